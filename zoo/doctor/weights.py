"""The weights that ship with zoo: there, and unchanged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from zoo.doctor.report import Finding
from zoo.models import shipped

__all__ = ["look"]

ADVICE = "pip install --force-reinstall --no-deps multimodal-zoo"


def look() -> Iterator[Finding]:
    """Yields a finding per shipped model, comparing each file with its checksum."""
    for name, folder in shipped.shipped_models().items():
        yield _compare(name, folder)


def _compare(name: str, folder: str) -> Finding:
    file = shipped.ASSETS / "checksums.json"
    sums = json.loads(file.read_text()) if file.is_file() else {}
    wanted = {path: digest for path, digest in sums.items() if path.startswith(f"{folder}/")}
    if not wanted:
        return Finding("weights", name, "broken", f"no checksums of {folder} are known", ADVICE)
    wrong = []
    for path, digest in wanted.items():
        place = shipped.ASSETS / path
        if not place.is_file():
            wrong.append(f"{path} is missing")
        elif hashlib.sha256(place.read_bytes()).hexdigest() != digest:
            wrong.append(f"{path} is damaged")
    if wrong:
        return Finding("weights", name, "broken", "; ".join(wrong), ADVICE)
    return Finding("weights", name, "ok", f"{len(wanted)} files are whole")
