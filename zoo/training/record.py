"""The record of a run: experiment.json. Torch-free.

{"zoo": {"format": 1, "version": …}, "group": "experiment", "overrides": […], "config": {the
resolved experiment}}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, TrainingError
from zoo.registry import resolve, to_mapping
from zoo.training.schema import ExperimentConfig

__all__ = ["EXPERIMENT", "RESULT", "read_run", "read_run_mapping", "write_json", "write_run"]

FORMAT = 1
EXPERIMENT, RESULT = "experiment.json", "result.json"
# what may differ when a run goes on: how long, how often, on what machines; not what is learned
# from what
_FREE = ("trainer.",)
_FIXED = ("trainer.batch", "trainer.ema")


def read_run(folder: str | Path) -> ExperimentConfig | None:
    """Returns the configuration of a run, or None for a folder that is none; raises ConfigError
    for a newer format."""
    mapping = read_run_mapping(folder)
    return None if mapping is None else resolve("experiment", mapping, stored=True)


def read_run_mapping(folder: str | Path) -> dict[str, Any] | None:
    """Returns the same as plain data, with `run.dir` where the folder lies now."""
    file = Path(folder) / EXPERIMENT
    try:
        content = json.loads(file.read_text())
        known, mapping = content["zoo"]["format"] == FORMAT, dict(content["config"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is not the configuration of a run ({error}).") from None
    if not known:
        raise ConfigError(f"{file} was written by a newer zoo; upgrade it.")
    mapping["run"] = {**mapping.get("run", {}), "dir": str(folder)}
    return mapping


def write_run(folder: Path, config: ExperimentConfig, overrides: Sequence[str]) -> None:
    """Writes the record, unless it is there already; raises TrainingError when the folder holds
    another run."""
    from zoo import __version__

    mapping, before, old = to_mapping(config, omit=("run",)), read_run(folder), None
    if before is not None:  # typed and back: keys that this zoo added since have their defaults
        old = to_mapping(before, omit=("run",))
        _refuse_other(folder, old, mapping)
    if old == mapping:
        return
    header = {"zoo": {"format": FORMAT, "version": __version__}, "group": "experiment"}
    write_json(folder / EXPERIMENT, {**header, "overrides": list(overrides), "config": mapping})


def _refuse_other(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    before, now = _flat(old), _flat(new)
    for key in sorted(before.keys() | now.keys()):
        free = key.startswith(_FREE) and key not in _FIXED
        if free or before.get(key) == now.get(key):
            continue
        raise TrainingError(
            f"{folder} is a run with {key}={before.get(key, 'null')}, not {now.get(key, 'null')}; "
            f"choose another run.dir, or start a new run from it with weights=dir:{folder}."
        )


def _flat(mapping: Any, path: str = "") -> dict[str, Any]:
    """Returns dotted key -> value."""
    if isinstance(mapping, dict) and mapping:
        found: dict[str, Any] = {}
        for key, value in mapping.items():
            found |= _flat(value, f"{path}.{key}" if path else str(key))
        return found
    return {path: "null" if mapping is None else mapping}


def write_json(path: Path, content: Any) -> None:
    """Writes a file by renaming a finished one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
