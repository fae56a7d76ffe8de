"""Verify a pulled repository or a model folder: every file, with its state."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.errors import HubError, ZooError
from zoo.hub.cache import Cache, Content
from zoo.hub.config import read_hub_config, read_json
from zoo.hub.folder import check_weights
from zoo.hub.names import check_repo, check_revision, select
from zoo.hub.pull import PULL_FILES, contents_of
from zoo.hub.remote import Remote, cache_root, is_offline

__all__ = ["FileState", "Report", "verify"]

CARD = "README.md"
_INDEX = 64 << 20  # bytes; models of many experts have long indexes
_SNAPSHOT = re.compile(r"models--(?P<repo>.+)/snapshots/(?P<commit>[0-9a-f]{40})")


@dataclass(frozen=True)
class FileState:
    """One file: `ok`, `damaged`, `missing`, `extra` (not the hub's) or `unchecked`."""

    path: str
    state: str
    size: int
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """What `verify` found. `ok` is true when no file is damaged or missing."""

    folder: Path
    compared_with: str
    files: tuple[FileState, ...]

    @property
    def ok(self) -> bool:
        """Whether every file that is needed is there and whole."""
        return not any(file.state in ("damaged", "missing") for file in self.files)


def verify(
    target: str | os.PathLike[str],
    revision: str | None = None,
    *,
    against: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    offline: bool = False,
) -> Report:
    """Hash every file anew and compare it with what the hub holds.

    `target` is a repository that was pulled, the folder of one, or any model folder. A folder that
    was not pulled is compared with the repository `against`; without that there is nothing to
    compare with, and its files are checked for being whole: safetensors headers, shard indexes,
    config.json.

    Raises:
        HubError: nothing is there to verify, or the hub cannot be asked.
    """
    folder = Path(target).expanduser()
    offline = offline or is_offline()
    if folder.is_dir():
        pulled = _SNAPSHOT.search(folder.resolve().as_posix())
        if against is not None:
            return _against_hub(folder, check_repo(against), revision, cache_root(cache))
        if pulled is None:
            return _alone(folder)
        repo = pulled["repo"].replace("--", "/")
        store = Cache(folder.resolve().parents[2], repo)
        return _against_manifest(store, pulled["commit"])
    repo = check_repo(str(target))
    store = Cache(cache_root(cache), repo)
    commit = None
    if not offline:
        commit, _ = contents_of(Remote(repo), check_revision(revision or "main"))
    else:
        commit = store.commit_of(check_revision(revision or "main"))
    if commit is None or not store.snapshot(commit).is_dir():
        raise HubError(
            f"{repo} at {revision or 'main'} is not in the cache; run `zoo pull {repo}`."
        )
    return _against_manifest(store, commit)


def _against_manifest(store: Cache, commit: str) -> Report:
    files = store.manifest(commit) or {}
    return _compared(
        store,
        store.snapshot(commit),
        files,
        f"{store.repo} at {commit}",
        _needed(store, commit, files),
    )


def _needed(store: Cache, commit: str, files: dict[str, Content]) -> dict[str, Content]:
    """What the snapshot should hold: the files that were asked for, and whatever else is there."""
    pulled = store.pulled(commit)
    asked = set(select(files, PULL_FILES) if pulled is None else pulled)
    folder = store.snapshot(commit)
    return {p: c for p, c in files.items() if p in asked or (folder / p).exists()}


def _against_hub(folder: Path, repo: str, revision: str | None, root: Path) -> Report:
    commit, files = contents_of(Remote(repo), check_revision(revision or "main"))
    wanted = {path: files[path] for path in select(files, PULL_FILES)}
    report = _compared(Cache(root, repo), folder, files, f"{repo} at {commit}", wanted)
    states = [_own_card(file) if file.path == CARD else file for file in report.files]
    return replace(report, files=tuple(states))


def _own_card(file: FileState) -> FileState:
    """A push brings the hub's card up to date and overwrites neither it nor the folder's, so that
    the two differ without damage."""
    if file.state != "damaged":
        return file
    return replace(file, state="unchecked", detail="the hub has a card of its own")


def _compared(
    store: Cache,
    folder: Path,
    files: dict[str, Content],
    name: str,
    wanted: dict[str, Content],
) -> Report:
    faults = {fault.path: fault for fault in store.compare(folder, wanted, rehash=True)}
    states = []
    for path, content in wanted.items():
        fault = faults.get(path)
        state = fault.state if fault else "ok" if content.digest else "unchecked"
        states.append(FileState(path, state, max(content.size, 0), fault.detail if fault else ""))
    for file in _files(folder):
        path = file.relative_to(folder).as_posix()
        if path not in files:
            states.append(FileState(path, "extra", file.stat().st_size, "is not on the hub"))
    return Report(folder, name, tuple(sorted(states, key=lambda state: state.path)))


def _alone(folder: Path) -> Report:
    """A folder that nothing is known about: are its files whole?"""
    states = []
    named: set[str] = set()
    present = {file.relative_to(folder).as_posix(): file for file in _files(folder)}
    for path, file in present.items():
        state, detail = "unchecked", ""
        try:
            if path.endswith(".safetensors"):
                check_weights(file)
                state, detail = "ok", "header fits the file"
            elif path.endswith(".safetensors.index.json"):
                shards = read_json(file, max_bytes=_INDEX).get("weight_map")
                base = path.rpartition("/")[0]
                for shard in set(shards.values()) if isinstance(shards, dict) else ():
                    named.add(f"{base}/{shard}" if base else str(shard))
                state = "ok"
            elif path == "config.json":
                read_hub_config(file, foreign="zoo" not in read_json(file))
                state = "ok"
        except ZooError as error:
            state, detail = "damaged", str(error)
        states.append(FileState(path, state, file.stat().st_size, detail))
    for shard in sorted(named - set(present)):
        states.append(FileState(shard, "missing", 0, "is named by the index"))
    if not any(s.state != "unchecked" for s in states):
        raise HubError(f"{folder} holds no model to verify (config.json, *.safetensors).")
    return Report(folder, "", tuple(sorted(states, key=lambda state: state.path)))


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and ".cache" not in p.parts[-3:])
