"""Listing and describing cost no torch, timm, torchaudio or hydra, and next to no time."""

import json
import os
import resource
import subprocess
import sys

import pytest

from zoo.cli.front import command_names, load_command

HEAVY = {"torch", "torchvision", "torchaudio", "timm", "hydra", "omegaconf", "numpy"}


def loaded(code, *words):
    """Returns the modules that a fresh interpreter has loaded after `code`."""
    report = "\nimport sys; print(chr(10) + ' '.join(sys.modules), file=sys.stderr)"
    run = subprocess.run(
        [sys.executable, "-c", code + report, *words], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    return set(run.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import zoo",
        "import zoo; zoo.list()",
        "import zoo; zoo.list('position', 'r*')",
        "import zoo; zoo.info('vit-base-16')",
        "import zoo; zoo.config('vit-digits', 'backbone.position=rope')",
        "import zoo; zoo.plugins()",
        "import zoo.errors, zoo.registry, zoo.cli.front",
    ],
)
def test_describing_is_light(code):
    assert not loaded(code) & HEAVY


def test_the_check_itself_can_fail():
    assert loaded("import numpy") & HEAVY


TEXT_AND_PICTURES = """
import sys
sys.modules["torchaudio"] = sys.modules["soundfile"] = None  # as if they were not installed
import torch
import zoo
sizes = {"backbone.depth": 1, "backbone.width": 32, "backbone.attention.heads": 2}
model = zoo.create("gpt2", sizes, vocabulary=99, seed=0)
assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 99)
assert zoo.load("vit-digits")(torch.zeros(1, 1, 8, 8)).logits.shape == (1, 10)
print(zoo.load("numbers-en-de").translate("twenty-one"))
"""


def test_text_and_pictures_need_no_torchaudio():
    modules = loaded(TEXT_AND_PICTURES)
    assert "torch" in modules and not [m for m in modules if m.startswith("torchaudio.")]
    speech = loaded("import zoo; zoo.create('whisper-digits', seed=0)")
    assert "torch" in speech and "torchaudio" not in speech  # until a sound has another rate


def command(line):
    return f"from zoo.cli import main; assert main({line.split()!r}) == 0"


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "list",
        "list --json",
        "list --groups",
        "info vit-base-16",
        "info rope",
        "cfg vit-digits",
        "plugins",
        "completion bash",
        "__complete zoo",
    ],
)
def test_commands_are_light(line):
    assert not loaded(command(line)) & HEAVY


@pytest.mark.parametrize("name", command_names())
def test_help_of_every_command_is_light(name):
    if not hasattr(load_command(name), "run_raw"):
        assert not loaded(command(f"{name} --help")) & HEAVY


def cpu_seconds(words):
    """Returns the least CPU time of three runs of a process."""
    found = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


@pytest.mark.parametrize("words", [["--help"], ["list"]])
def test_the_command_costs_little_beyond_the_bare_interpreter(words):
    bare = cpu_seconds([sys.executable, "-c", "pass"])
    ours = cpu_seconds([sys.executable, "-m", "zoo", *words])
    assert ours - bare <= 0.2, json.dumps({"bare": bare, "zoo": ours})


@pytest.mark.parametrize(("given", "kept"), [({}, "1"), ({"THP_MEM_ALLOC_ENABLE": "0"}, "0")])
def test_large_tensors_are_asked_into_huge_pages_unless_told_otherwise(given, kept):
    code = "import os, zoo; print(os.environ['THP_MEM_ALLOC_ENABLE'])"
    env = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"} | given
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert run.stdout.strip() == kept, run.stderr
