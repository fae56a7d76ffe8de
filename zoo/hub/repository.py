"""One repository on disk: states, contents and refs (its layout is in `zoo.hub.storage`)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import HubError
from zoo.hub.disk import dump_json, now, sync_folder, write_atomic
from zoo.hub.names import check_path, check_revision, is_commit

if TYPE_CHECKING:
    from zoo.hub.storage import Storage

__all__ = ["Commit", "Conflict", "Entry", "Missing", "Repository", "decode_base64", "lfs_pointer"]

_CHUNK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Missing(HubError):
    """Something asked for is not here; `code` is the protocol's X-Error-Code."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class Conflict(HubError):
    """The repository is not in the state that the request was made for; `status` is 409 or 412."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Entry:
    """One file of a commit: sha256 and git sha1 of its content, size, whether it goes by LFS."""

    sha256: str
    git: str
    size: int
    lfs: bool


@dataclass(frozen=True)
class Commit:
    """A state of a repository. `oid` is the sha1 of everything else, so it cannot change."""

    oid: str
    parent: str | None
    title: str
    message: str
    date: str
    files: dict[str, Entry]


class Repository:
    """One repository: reading states, adding blobs, committing, moving refs."""

    def __init__(self, storage: Storage, kind: str, name: str, folder: Path):
        self.storage, self.kind, self.name, self.folder = storage, kind, name, folder

    def settings(self) -> dict:
        """`private` and `created`."""
        return json.loads((self.folder / "repo.json").read_bytes())

    def change_settings(self, **values: object) -> None:
        """Set some of the settings."""
        with self.storage.changing(self.kind, self.name):
            self._write(self.folder / "repo.json", dump_json({**self.settings(), **values}))

    # refs

    def ref_file(self, ref: str) -> Path:
        """The file of `heads/x`, `tags/x` or `pr/n`."""
        check_revision(ref)
        return self.folder / "refs" / ref

    def refs(self) -> dict[str, str]:
        """Every ref with its commit, such as `{"heads/main": "1f0c..."}`."""
        base = self.folder / "refs"
        files = sorted(p for p in base.rglob("*") if p.is_file())
        return {p.relative_to(base).as_posix(): p.read_text() for p in files}

    def resolve(self, revision: str) -> str:
        """The commit of a branch, a tag, `refs/...` or a (shortened) commit id.

        Raises:
            Missing: there is no such revision (`RevisionNotFound`).
        """
        with contextlib.suppress(HubError, OSError):
            check_revision(revision)
            names = (
                [revision[len("refs/") :]]
                if revision.startswith("refs/")
                else [f"heads/{revision}", f"tags/{revision}"]
            )
            for name in names:
                if (self.folder / "refs" / name).is_file():
                    return (self.folder / "refs" / name).read_text()
            if is_commit(revision) and (self.folder / "commits" / f"{revision}.json").is_file():
                return revision
            if re.fullmatch(r"[0-9a-f]{7,39}", revision):
                found = list((self.folder / "commits").glob(f"{revision}*.json"))
                if len(found) == 1:
                    return found[0].stem
        raise Missing("RevisionNotFound", f"{self.name} has no revision {revision}.")

    def set_ref(self, ref: str, oid: str) -> None:
        """Point `heads/x`, `tags/x` or `pr/n` at a commit."""
        file = self.ref_file(ref)
        try:
            self._write(file, oid.encode())
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise Conflict(
                409, f"{ref} clashes with another ref that is its folder, or its file."
            ) from None

    def delete_ref(self, ref: str) -> None:
        """Remove a branch or a tag; its commits stay readable by their id."""
        file = self.ref_file(ref)
        try:
            file.unlink()
        except OSError:
            raise Missing("RevisionNotFound", f"{self.name} has no {ref}.") from None
        with contextlib.suppress(OSError):  # an empty folder `a` would keep a later ref `a` out
            for folder in file.parents[: len(Path(ref).parts) - 2]:
                folder.rmdir()

    # commits

    def commit(self, revision: str) -> Commit:
        """The state a revision names."""
        oid = self.resolve(revision)
        raw = json.loads((self.folder / "commits" / f"{oid}.json").read_bytes())
        return Commit(
            oid,
            raw["parent"],
            raw["title"],
            raw["message"],
            raw["date"],
            {path: Entry(**entry) for path, entry in raw["files"].items()},
        )

    def history(self, revision: str) -> Iterator[Commit]:
        """The commits from a revision back to the first."""
        oid: str | None = self.resolve(revision)
        while oid is not None:
            commit = self.commit(oid)
            yield commit
            oid = commit.parent

    def write_commit(
        self, parent: str | None, title: str, message: str, files: dict[str, Entry]
    ) -> Commit:
        """Store a state. It is not reachable until a ref names it."""
        date = now()
        raw = {
            "parent": parent,
            "title": title,
            "message": message,
            "date": date,
            "files": {path: asdict(files[path]) for path in sorted(files)},
        }
        data = dump_json(raw)
        oid = hashlib.sha1(data).hexdigest()
        self._write(self.folder / "commits" / f"{oid}.json", data)
        return Commit(oid, parent, title, message, date, files)

    def push(
        self,
        ref: str,
        title: str,
        message: str,
        change: Callable[[dict[str, Entry]], dict[str, Entry]],
        expected: str | None = None,
    ) -> Commit:
        """Move `ref` to a new commit with `change` applied to its files.

        Nothing is committed when nothing changes. Sending the same change for the same `expected`
        parent twice, as a client does whose first answer was lost, is one commit.

        Raises:
            Conflict: `expected` is not where the ref stands (412), or names clash.
        """
        with self.storage.changing(self.kind, self.name):
            if not self.ref_file(ref).is_file():
                raise Missing(
                    "RevisionNotFound", f"{self.name} has no branch {ref.partition('/')[2]}."
                )
            head = self.commit(f"refs/{ref}")
            if expected and not head.oid.startswith(expected):
                again = (head.parent or "").startswith(expected) and head.title == title
                if again and change(dict(self.commit(head.parent or "").files)) == head.files:
                    return head
                raise Conflict(
                    412,
                    f"{self.name} moved on to {head.oid[:12]} since {expected[:12]}; "
                    "fetch the newer state and push again.",
                )
            files = change(dict(head.files))
            if files == head.files:
                return head
            _check_folders(files)
            commit = self.write_commit(head.oid, title, message, files)
            self.set_ref(ref, commit.oid)
            return commit

    # blobs

    def blob(self, sha256: str) -> Path:
        """Where the content with this sha256 is, or would be.

        Raises:
            HubError: `sha256` is not 64 hex digits.
        """
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise HubError("A content is named by the 64 hex digits of its sha256.")
        return self.folder / "blobs" / sha256[:2] / sha256

    def has_blob(self, sha256: str, size: int | None = None) -> bool:
        """Whether the content is here (and has this size)."""
        try:
            found = self.blob(sha256).stat().st_size
        except OSError:
            return False
        return size is None or found == size

    def add_blob(
        self, chunks: Iterable[bytes], sha256: str | None = None, size: int | None = None
    ) -> Entry:
        """Store a content and return its entry (with `lfs` false).

        Raises:
            HubError: it is not the announced content; nothing is kept.
        """
        draft, digest, length = self.storage.draft(), hashlib.sha256(), 0
        try:
            with open(draft, "wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    length += len(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if size is not None and length != size:
                raise HubError(
                    f"{length} bytes arrived where {size} were announced; nothing was kept."
                )
            if sha256 is not None and digest.hexdigest() != sha256:
                raise HubError(
                    "The content that arrived has another sha256 than announced; nothing was kept."
                )
            return self.adopt_blob(draft, digest.hexdigest())
        finally:
            draft.unlink(missing_ok=True)

    def adopt_blob(self, draft: Path, sha256: str, *, check: bool = False) -> Entry:
        """Move a complete file into the blobs; with `check` after hashing and syncing it.

        Raises:
            HubError: it is not the content of that name.
        """
        place = self.blob(sha256)
        if check:
            digest = hashlib.sha256()
            with open(draft, "rb+") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                os.fsync(file.fileno())
            if digest.hexdigest() != sha256:
                raise HubError("The content that arrived has another sha256 than announced.")
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(draft, place)
            sync_folder(place.parent)
        return self.entry(sha256, lfs=False)

    def entry(self, sha256: str, *, lfs: bool) -> Entry:
        """The entry of a stored content; its git sha1 is the content's, or for LFS the pointer's.

        Raises:
            Missing: no such content was uploaded (`EntryNotFound`).
        """
        place = self.blob(sha256)
        if not place.is_file():
            raise Missing(
                "EntryNotFound", f"The content {sha256[:12]} was never uploaded to {self.name}."
            )
        size = place.stat().st_size
        if lfs:
            pointer = lfs_pointer(sha256, size)
            return Entry(
                sha256, hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest(), size, True
            )
        digest = hashlib.sha1(b"blob %d\0" % size)
        with open(place, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return Entry(sha256, digest.hexdigest(), size, False)

    def read(self, entry: Entry) -> bytes:
        """A content as bytes, for the small files the server itself looks into."""
        return self.blob(entry.sha256).read_bytes()

    def _write(self, path: Path, data: bytes) -> None:
        write_atomic(path, data, self.storage.temporary)


def lfs_pointer(sha256: str, size: int) -> bytes:
    """What git itself stores for a file that goes by LFS."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    )


def decode_base64(text: str) -> bytes:
    """Strict base64.

    Raises:
        HubError: it is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        raise HubError("A file's content is not base64.") from None


def _check_folders(files: dict[str, Entry]) -> None:
    for path in files:
        check_path(path)
        parts = path.split("/")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in files:
                raise Conflict(
                    409, f"{'/'.join(parts[:end])} cannot be both a file and the folder of {path}."
                )
