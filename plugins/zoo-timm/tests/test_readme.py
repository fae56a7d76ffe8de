"""What the README shows, works; what it counts, is so."""

import re
from pathlib import Path

from zoo_timm.plugin import read_index

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_its_code_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})


def test_its_numbers_are_those_of_the_index():
    models = read_index()["models"].values()
    tags = sum(len(model["tags"]) for model in models)
    assert f"{len(models)} architectures with {tags} sets of weights" in README
