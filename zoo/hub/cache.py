"""Pulled repositories on disk, in the cache that every tool of the Hugging Face hub shares.

    <cache>/models--owner--name/
        blobs/<sha256 or git sha1>        contents
        snapshots/<commit>/<file>         links to them
        refs/<revision>                   the commit a branch or tag stood at
        zoo/<commit>.json                 ours: what the commit holds, written first
        zoo/checked.json                  ours: which files were hashed, at what size and time

A ref is written last, so that a revision's name always leads to a snapshot that was pulled whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import HubError
from zoo.hub.disk import dump_json, write_atomic
from zoo.hub.names import check_path, check_revision, is_commit

__all__ = ["Cache", "Content", "Fault"]

_CHUNK = 1 << 20
_REMEMBERING = threading.Lock()
_HEX = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")


@dataclass(frozen=True)
class Content:
    """What a file must be: its size in bytes and its digest.

    `digest` is the sha256 of an LFS file (64 hex digits) or the git sha1 of a file kept in git
    (40); empty if the hub gave none. `xet` says that the hub also serves it by Xet.
    """

    size: int
    digest: str
    xet: bool = False

    def hasher(self) -> Any:
        """A fresh hash object for the digest's kind."""
        if len(self.digest) == 40:
            return hashlib.sha1(b"blob %d\0" % self.size)
        return hashlib.sha256()

    def digest_of(self, file: Path) -> str:
        """The digest of a file's content, of the same kind."""
        hasher = self.hasher()
        with open(file, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                hasher.update(chunk)
        return hasher.hexdigest()


@dataclass(frozen=True)
class Fault:
    """A file that is not what it must be: `state` is missing or damaged; `detail` says how."""

    path: str
    state: str
    detail: str


class Cache:
    """The cached states of one repository."""

    def __init__(self, root: Path, repo: str):
        self.root, self.repo = root, repo
        self.folder = root / f"models--{repo.replace('/', '--')}"

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit."""
        return self.folder / "snapshots" / commit

    def blob(self, content: Content) -> Path:
        """Where a content lies."""
        assert _HEX.fullmatch(content.digest), content
        return self.folder / "blobs" / content.digest

    def lock_file(self, name: str) -> Path:
        """The lock that the hub's own client takes for the same content."""
        return self.root / ".locks" / self.folder.name / f"{name}.lock"

    # revisions

    def commit_of(self, revision: str) -> str | None:
        """The commit a revision stood at when it was last pulled."""
        if is_commit(revision):
            return revision
        try:
            commit = (self.folder / "refs" / check_revision(revision)).read_text().strip()
        except OSError:
            return None
        return commit if is_commit(commit) else None

    def set_ref(self, revision: str, commit: str) -> None:
        """Remember where a revision stands."""
        if not is_commit(revision) and self.commit_of(revision) != commit:
            write_atomic(self.folder / "refs" / revision, commit.encode())

    # manifests

    def save_manifest(
        self,
        commit: str,
        revision: str,
        files: dict[str, Content],
        wanted: Iterable[str],
    ) -> None:
        """Write down what a commit holds and what of it is being pulled."""
        rows = {p: {"size": c.size, "digest": c.digest, "xet": c.xet} for p, c in files.items()}
        pulled = sorted({*(self.pulled(commit) or ()), *wanted})
        value = {"format": 1, "revision": revision, "pulled": pulled, "files": rows}
        write_atomic(self.folder / "zoo" / f"{commit}.json", dump_json(value))

    def pulled(self, commit: str) -> list[str] | None:
        """The files of a commit that were asked for; None if another tool pulled it."""
        paths = _read(self.folder / "zoo" / f"{commit}.json").get("pulled")
        return [str(path) for path in paths] if isinstance(paths, list) else None

    def own_manifest(self, commit: str) -> dict[str, Content] | None:
        """What a commit holds, as we wrote it down."""
        value = _read(self.folder / "zoo" / f"{commit}.json")
        with contextlib.suppress(TypeError, KeyError, AttributeError, HubError):
            if value.get("format") == 1:
                return {check_path(path): Content(**row) for path, row in value["files"].items()}
        return None

    def manifest(self, commit: str) -> dict[str, Content] | None:
        """What a commit holds, as we or the hub's client noted it, or as its links say."""
        own = self.own_manifest(commit)
        if own is not None:
            return own
        with contextlib.suppress(TypeError, KeyError, AttributeError, HubError):
            value = _read(self.folder / "trees" / f"{commit}.json")
            if value.get("format_version") == 1:
                return {
                    check_path(path): Content(
                        row["size"], row.get("lfs_sha256") or row["blob_id"], "xet_hash" in row
                    )
                    for path, row in value["files"].items()
                }
        return self._linked(commit)

    def _linked(self, commit: str) -> dict[str, Content] | None:
        """A snapshot filled by another tool: its links lead to blobs named by their digests."""
        folder, found = self.snapshot(commit), {}
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            # One link far: the blob may itself be a link into the store that repositories share.
            name = os.path.basename(os.readlink(file)) if file.is_symlink() else ""
            digest = name if _HEX.fullmatch(name) else ""
            found[file.relative_to(folder).as_posix()] = Content(file.stat().st_size, digest)
        for index in [p for p in found if p.endswith(".index.json")]:
            shards = _read(folder / index).get("weight_map")
            for shard in set(shards.values()) if isinstance(shards, dict) else ():
                found.setdefault(str(shard), Content(-1, ""))
        return found or None

    def interrupted(self, revision: str) -> str | None:
        """The commit that a pull of this revision began with and did not finish."""
        for file in sorted((self.folder / "zoo").glob("*.json"), key=lambda p: -p.stat().st_mtime):
            if is_commit(file.stem) and _read(file).get("revision") == revision:
                return file.stem
        return None

    # contents

    def link(self, commit: str, path: str, content: Content) -> None:
        """Make a stored content appear in a snapshot; a copy where links cannot be made."""
        target, blob = self.snapshot(commit) / path, self.blob(content)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            draft.symlink_to(os.path.relpath(blob, target.parent))
        except OSError:
            shutil.copyfile(blob, draft)
        os.replace(draft, target)

    def faults(
        self, commit: str, wanted: dict[str, Content], *, rehash: bool = False
    ) -> list[Fault]:
        """The files of a snapshot that are not what they must be.

        A file is hashed once and remembered by its size and time of change; `rehash` does it again.
        """
        return self.compare(self.snapshot(commit), wanted, rehash=rehash)

    def compare(self, folder: Path, wanted: dict[str, Content], *, rehash: bool) -> list[Fault]:
        """`faults` of any folder that should hold these files."""
        memory = _read(self.folder / "zoo/checked.json")
        fresh: dict[str, list] = {}
        faults = []
        root = self.root.resolve()
        inside = folder.resolve().is_relative_to(root)
        for path, content in wanted.items():
            file = folder / path
            try:
                real = file.resolve(strict=True)
                status = real.stat()
            except OSError:
                faults.append(Fault(path, "missing", "is missing"))
                continue
            if inside and not real.is_relative_to(root):
                faults.append(Fault(path, "damaged", f"leads out of the cache to {real}"))
                continue
            seen = [status.st_size, status.st_mtime_ns, content.digest]
            if not rehash and memory.get(str(real)) == seen:
                continue
            if status.st_size != content.size >= 0:
                detail = f"has {status.st_size} bytes instead of {content.size}"
                faults.append(Fault(path, "damaged", detail))
            elif content.digest and content.digest_of(real) != content.digest:
                faults.append(
                    Fault(path, "damaged", "has another content than the hub's (sha differs)")
                )
            else:
                fresh[str(real)] = seen
        if fresh:
            self.remember(fresh)
        return faults

    def remember(self, fresh: dict[str, list]) -> None:
        """Add to the memory of hashed files; an entry lost to a race costs one more hashing."""
        with (
            _REMEMBERING,
            contextlib.suppress(OSError),
        ):  # a cache that may only be read is still a cache
            known = {
                k: v for k, v in _read(self.folder / "zoo/checked.json").items() if Path(k).exists()
            }
            write_atomic(self.folder / "zoo/checked.json", dump_json({**known, **fresh}))

    def remember_blob(self, content: Content) -> None:
        """A blob that was hashed while it arrived need not be hashed again."""
        real = self.blob(content).resolve()
        status = real.stat()
        self.remember({str(real): [status.st_size, status.st_mtime_ns, content.digest]})


def sum_sizes(contents: Iterable[Content]) -> int:
    """Bytes of several contents."""
    return sum(max(0, content.size) for content in contents)


def _read(file: Path) -> dict:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
