"""Writes constraints.txt: the exact versions, as installed here, of what zoo and its extras need.

    python -m tools.write_constraints

Run it in an environment in which `make test` has just passed: the file records what was tested.
What has no release for an older Python that zoo supports is pinned for the newer ones only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
FILE = ROOT / "constraints.txt"
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
HEADER = """\
# The versions that were tested together; `make setup` installs these. Written by: make constraints
# Library users are bound by the ranges in pyproject.toml only.
"""


def needed() -> Iterator[Requirement]:
    """Yields what pyproject.toml and the plugins ask for, all extras included."""
    import tomllib

    for file in (ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))):
        content = tomllib.loads(file.read_text())
        project = content["project"]
        lists = [
            project.get("dependencies", []),
            *project.get("optional-dependencies", {}).values(),
        ]
        for text in [*content["build-system"]["requires"], *(t for each in lists for t in each)]:
            yield Requirement(text)


def closure() -> dict[str, str]:
    """Returns name -> line of every distribution that is needed, directly or not."""
    own = {"multimodal-zoo"} | {
        canonicalize_name(p.parent.name) for p in ROOT.glob("plugins/*/pyproject.toml")
    }
    lines: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [*needed()]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        extras = ["", *requirement.extras]
        if name in own or key in seen:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(
                f"{requirement} is not installed here; run make setup first."
            ) from None
        seen.add(key)
        lines[name] = f"{name}=={Version(found.version).public}{_python_marker(found)}"
        for text in found.requires or []:
            inner = Requirement(text)
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(inner)
    return lines


def _python_marker(found: Distribution) -> str:
    allowed = SpecifierSet(found.metadata["Requires-Python"] or "")
    fitting = [python for python in PYTHONS if allowed.contains(f"{python}.99")]
    return "" if fitting == [*PYTHONS] else f' ; python_version >= "{fitting[0]}"'


def main() -> int:
    """Writes the file."""
    lines = closure()
    FILE.write_text(HEADER + "".join(f"{lines[name]}\n" for name in sorted(lines)))
    print(f"wrote {FILE.name}: {len(lines)} distributions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
