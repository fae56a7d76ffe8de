"""Repositories on disk: content-addressed blobs, unchanging commits, and refs that name them.

    <root>/models/<owner>/<name>/
        repo.json                {"private": false, "created": "..."}
        blobs/ab/abcd...         file contents, named by their sha256
        commits/<oid>.json       {"parent", "title", "message", "date", "files": {path: entry}}
        refs/heads/main          where a branch, tag (refs/tags) or pull request (refs/pr) is
        pulls/1.json             pull requests

A push writes blobs first, then the commit, then the ref, each beside its place and renamed into it.
Whatever moment the power fails, a ref names a commit whose files are all there. File names inside a
repository live in the commit only and never touch the file system, so no name can leave the folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from zoo.errors import HubError
from zoo.hub.disk import dump_json, lock_file, now, sync_folder, write_atomic
from zoo.hub.names import check_repo
from zoo.hub.repository import Conflict, Missing, Repository

__all__ = ["KINDS", "Storage"]

KINDS = ("models", "datasets")
_RESERVED = {"api", "spaces", *KINDS}


class Storage:
    """All repositories under one folder, which one process serves at a time.

    Raises:
        HubError: the folder cannot be written, or another hub already serves it.
    """

    def __init__(self, root: str | os.PathLike[str]):
        self.root = Path(root).expanduser().resolve()
        self.temporary = self.root / "tmp"
        try:
            self.root.mkdir(
                parents=True, exist_ok=True, mode=0o700
            )  # private means private on disk
            self.temporary.mkdir(exist_ok=True)
            self._lock = open(self.root / ".lock", "a+b")  # noqa: SIM115 (held until close)
        except OSError as error:
            raise HubError(f"{self.root} cannot hold a hub: {error.strerror or error}.") from None
        if not lock_file(self._lock):
            self._lock.close()
            raise HubError(
                f"{self.root} is already served by another hub; "
                "stop that one or choose another folder."
            )
        for (
            leftover
        ) in self.temporary.iterdir():  # of a process that was killed; nothing refers to them
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink()
        self._changing: dict[str, threading.RLock] = {}
        self._guard = threading.Lock()

    def close(self) -> None:
        """Let another process serve the folder."""
        self._lock.close()

    def draft(self) -> Path:
        """A fresh name for something half written; `<root>/tmp` is emptied when the hub starts."""
        return self.temporary / uuid.uuid4().hex

    def repository(self, kind: str, name: str) -> Repository:
        """The repository called `owner/name`.

        Raises:
            Missing: there is none (`RepoNotFound`).
        """
        with contextlib.suppress(HubError):
            check_repo(name, namespace=True)
            folder = self.root / kind / name
            if (folder / "repo.json").is_file():
                return Repository(self, kind, name, folder)
        raise Missing("RepoNotFound", f"There is no repository {name} here.")

    def create(self, kind: str, name: str, private: bool) -> tuple[Repository, bool]:
        """Create an empty repository with an empty commit on `main`; returns whether it is new."""
        with self.changing(kind, name):
            with contextlib.suppress(Missing):
                return self.repository(kind, name), False
            self._check_new(kind, name)
            draft = self.draft()
            (draft / "refs/heads").mkdir(parents=True)
            write_atomic(draft / "repo.json", dump_json({"private": private, "created": now()}))
            repository = Repository(self, kind, name, draft)
            first = repository.write_commit(None, "initial commit", "", {})
            write_atomic(draft / "refs/heads/main", first.oid.encode())
            place = self.root / kind / name
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(draft, place)
            sync_folder(place.parent)
            return Repository(self, kind, name, place), True

    def delete(self, kind: str, name: str) -> None:
        """Forget a repository with all its files."""
        with self.changing(kind, name):
            grave = self.draft()
            os.replace(self.repository(kind, name).folder, grave)
        shutil.rmtree(grave, ignore_errors=True)

    def move(self, kind: str, name: str, new: str) -> None:
        """Rename a repository."""
        self._check_new(kind, new)
        with self.changing(kind, name):
            repository = self.repository(kind, name)
            place = self.root / kind / new
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(repository.folder, place)

    def names(self, kind: str) -> list[str]:
        """Every repository's `owner/name`, sorted."""
        base = self.root / kind
        return sorted(p.parent.relative_to(base).as_posix() for p in base.glob("*/*/repo.json"))

    @contextlib.contextmanager
    def changing(self, kind: str, name: str) -> Iterator[None]:
        """Hold a repository while it changes; readers need no lock: nothing changes in place."""
        with self._guard:
            lock = self._changing.setdefault(f"{kind}/{name}".lower(), threading.RLock())
        with lock:
            yield

    def _check_new(self, kind: str, name: str) -> None:
        owner = check_repo(name, namespace=True).split("/")[0]
        if owner.lower() in _RESERVED:
            raise HubError(f"{owner} cannot own a repository; addresses use that word.")
        twin = next((n for n in self.names(kind) if n.lower() == name.lower()), None)
        if twin is not None:
            raise Conflict(409, f"{twin} exists already (upper and lower case are the same here).")
