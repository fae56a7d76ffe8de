"""Files that are whole or not there: atomic writes, folder locks, the protocol's clock."""

from __future__ import annotations

import datetime
import json
import os
import uuid
from pathlib import Path
from typing import BinaryIO

__all__ = ["dump_json", "lock_file", "now", "sync_folder", "write_atomic"]


def now() -> str:
    """The time as the protocol writes it, in UTC with milliseconds."""
    moment = datetime.datetime.now(datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def write_atomic(path: Path, data: bytes, temporary: Path | None = None) -> None:
    """Write `data`; `path` holds what it held before or all of it, also after a power cut."""
    temporary = temporary or path.parent
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = temporary / f"{path.name[:40]}.{uuid.uuid4().hex}.tmp"
    try:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock_file(file: BinaryIO) -> bool:
    """Hold an open file against other processes until it is closed; false if one holds it."""
    try:
        import fcntl
    except (
        ImportError
    ):  # Windows: no advisory locks in the standard library; two hubs on a folder stay possible
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def dump_json(value: object) -> bytes:
    """JSON as it is kept on disk."""
    return json.dumps(value, indent=1, ensure_ascii=False).encode()
