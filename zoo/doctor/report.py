"""What a doctor's finding is, and how all of them come together."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["SECTIONS", "Finding", "State", "examine"]

# Each is a module of this package with `look() -> Iterator[Finding]`; the report has this order.
SECTIONS = ("system", "libraries", "accelerator", "hub", "names", "weights")


State = Literal["ok", "absent", "broken", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    `ok`: as it should be. `absent`: optional, not here. `broken`: to be mended. `note`: a fact.
    """

    section: str
    name: str
    state: State
    text: str
    advice: str = ""  # what to do about it, when something can be done


def examine(sections: tuple[str, ...] = SECTIONS) -> Iterator[Finding]:
    """Yields the findings of every section; a section that fails to look is a finding too."""
    torch_loads = True
    for section in sections:
        if section == "accelerator" and not torch_loads:
            continue  # asking torch here could end this process too
        try:
            for finding in importlib.import_module(f"zoo.doctor.{section}").look():
                torch_loads &= finding.name != "import torch"
                yield finding
        except Exception as error:
            yield Finding(section, "doctor", "broken", f"{type(error).__name__}: {error}")
