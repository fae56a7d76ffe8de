"""The libraries: installed, within the tested bounds, and able to load beside each other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import TYPE_CHECKING

from zoo.doctor.report import Finding, State

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["look"]

DISTRIBUTION = "multimodal-zoo"
# What has compiled code that must fit torch's; imported in this order, so that a crash has a name.
COMPILED = ("torch", "torchvision", "torchaudio", "timm")
TIMEOUT = 120  # seconds; a cold disk can make the first import slow

_IMPORT = """
import importlib, json, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        print(json.dumps([name, None]), flush=True)
    except BaseException as error:
        print(json.dumps([name, f"{type(error).__name__}: {error}"]), flush=True)
"""


def look() -> Iterator[Finding]:
    """Yields core libraries, the compiled ones' imports, then the optional ones by extra."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in requires(DISTRIBUTION) or []]
    for requirement in wanted:
        if _applies(requirement, ""):
            yield _library(requirement)
    yield from _loads_together()
    for extra in metadata(DISTRIBUTION).get_all("Provides-Extra") or []:
        for requirement in wanted:
            if (
                extra not in ("all", "test")
                and _applies(requirement, extra)
                and not _applies(requirement, "")
            ):
                yield _library(requirement, extra)


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _library(requirement: Requirement, extra: str | None = None) -> Finding:
    name, bounds = requirement.name, requirement.specifier
    label = f"{name} [{extra}]" if extra else name
    command = f"pip install '{DISTRIBUTION}[{extra}]'" if extra else f"pip install '{name}{bounds}'"
    try:
        installed = version(name)
    except PackageNotFoundError:
        missing: State = "absent" if extra else "broken"
        return Finding("libraries", label, missing, "not installed", command)
    if not bounds.contains(installed, prereleases=True):
        text = f"{installed} is outside {bounds}"
        return Finding("libraries", label, "broken", text, f"pip install '{name}{bounds}'")
    return Finding("libraries", label, "ok", installed)


def _loads_together() -> Iterator[Finding]:
    """Imports the compiled libraries in another process: a mismatch may crash, not raise."""
    try:
        run = subprocess.run(
            [sys.executable, "-c", _IMPORT, *COMPILED],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        yield Finding("libraries", "imports", "broken", f"took more than {TIMEOUT} s")
        return
    answers = dict(json.loads(line) for line in run.stdout.splitlines() if line[:1] == "[")
    failed = {name: error for name, error in answers.items() if error}
    crashed = next((name for name in COMPILED if name not in answers), None)
    if crashed:
        failed[crashed] = f"importing it ended the process (exit code {run.returncode})"
    advice = "these three must match: pip install -c constraints.txt torch torchvision torchaudio"
    for name, error in failed.items():
        text = " ".join(error.split())[:200]
        yield Finding("libraries", f"import {name}", "broken", text, advice)
    if not failed:
        yield Finding("libraries", "imports", "ok", f"{', '.join(COMPILED)} load beside each other")
