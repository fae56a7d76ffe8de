"""Pull a repository's files into the cache, whole and checked, or say why not."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from zoo.errors import HubError
from zoo.hub.cache import Cache, Content, Fault, sum_sizes
from zoo.hub.fetch import fetch
from zoo.hub.names import (
    check_collisions,
    check_path,
    check_repo,
    check_revision,
    is_commit,
    select,
)
from zoo.hub.remote import (
    Remote,
    Unreachable,
    cache_root,
    disk_error,
    is_offline,
    log,
    shown_endpoint,
    xet_works,
)

__all__ = ["PULL_FILES", "contents_of", "pull"]

# What a model can be loaded from. Nothing here can carry code: no pickles, no Python, no archives.
PULL_FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "README.md",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "*.spm",
    "*.tiktoken",
    "vocab-src.json",
    "vocab-tgt.json",
    "target_vocab.json",
    "chat_template.json",
    "chat_template.jinja",  # text; rendered in a sandbox only
)
_ROOM = 64 << 20  # bytes that stay free on the disk
_WORKERS = 4


def pull(
    repo: str,
    revision: str | None = None,
    *,
    allow: Iterable[str] = PULL_FILES,
    cache: str | os.PathLike[str] | None = None,
    offline: bool = False,
    force: bool = False,
) -> Path:
    """Return the folder of a repository's files at a revision, pulling what is not there.

    The hub is HF_ENDPOINT (or huggingface.co), the token HF_TOKEN or the one `hf auth login`
    stored, the cache that of every Hugging Face tool. Only files matching `allow` are pulled (a
    pattern without a slash means files at the top). Every one is hashed once and compared with what
    the hub announced; what is broken never gets into the cache. An interrupted pull goes on where
    it stopped. A commit id (40 hex digits) that was pulled before is answered without the network,
    and so is everything with `offline` or HF_HUB_OFFLINE; when the hub cannot be reached, the last
    whole snapshot of the revision is used and a warning is logged.

    Args:
        repo: `owner/name`.
        revision: a branch, tag or commit; None is `main`.
        allow: file names or patterns.
        cache: the cache's folder; None is HF_HUB_CACHE.
        offline: ask the cache only.
        force: pull anew what is in the cache already.

    Raises:
        HubError: no such repository, revision or file; no token; no room on the disk; files that
            are missing, damaged or refused.
    """
    check_repo(repo)
    revision = check_revision(revision or "main")
    allow = [allow] if isinstance(allow, str) else list(allow)
    store = Cache(cache_root(cache), repo)
    try:
        return _find(store, revision, allow, offline or is_offline(), force)
    except OSError as error:
        raise disk_error(error, repo) from None


def _find(store: Cache, revision: str, allow: list[str], offline: bool, force: bool) -> Path:
    repo = store.repo
    if offline and force:
        raise HubError(f"{repo} cannot be pulled anew without the network; drop --force.")
    if offline:
        return _cached(store, revision, allow, "the network is off")
    if is_commit(revision) and not force:
        folder = _known(store, revision, allow)
        if folder is not None:
            return folder
    try:
        return _pull(store, revision, allow, force)
    except Unreachable as error:
        if force or store.commit_of(revision) is None:
            raise
        folder = _cached(store, revision, allow, "the hub does not answer")
        log.warning("%s Using the snapshot that was pulled before: %s", error, folder.name[:12])
        return folder


def _known(store: Cache, commit: str, allow: list[str]) -> Path | None:
    """A commit never changes: if all of it is here, nobody need be asked."""
    manifest = store.own_manifest(commit)
    if manifest is None:
        return None
    faults = store.faults(commit, _wanted(store.repo, commit, manifest, allow))
    _refuse_damaged(store, faults)
    return None if faults else store.snapshot(commit)


def contents_of(remote: Remote, revision: str) -> tuple[str, dict[str, Content]]:
    """The commit a revision stands at and every file of it, as the hub tells.

    Raises:
        HubError: the hub fails or names a commit that is none.
    """
    from huggingface_hub import RepoFile

    commit = revision
    if not is_commit(revision):
        info = remote.call(
            remote.api.model_info, remote.repo, asked=revision, revision=revision, timeout=10.0
        )
        commit = info.sha or ""
        if not is_commit(commit):
            raise HubError(f"{shown_endpoint()} names no commit for {remote.repo} at {revision}.")

    def tree() -> dict[str, Content]:
        rows = remote.api.list_repo_tree(remote.repo, revision=commit, recursive=True)
        return {
            row.path: Content(
                row.lfs.size if row.lfs else row.size,
                _digest(row.lfs.sha256 if row.lfs else row.blob_id),
                bool(row.xet_hash),
            )
            for row in rows
            if isinstance(row, RepoFile)
        }

    # The client tries this one again by itself.
    return commit, remote.call(tree, asked=revision, attempts=1)


def _digest(text: str | None) -> str:
    """A digest from the hub. It becomes a file's name: hex of a known length, or nothing."""
    text = (text or "").lower()
    return text if len(text) in (40, 64) and all(c in "0123456789abcdef" for c in text) else ""


def _pull(store: Cache, revision: str, allow: list[str], force: bool) -> Path:
    remote = Remote(store.repo)
    commit, files = contents_of(remote, revision)
    wanted = _wanted(store.repo, revision, files, allow)
    nameless = [path for path, content in wanted.items() if not content.digest]
    if nameless:
        raise HubError(
            f"{shown_endpoint()} gives no digest of {nameless[0]}, so it cannot be checked."
        )
    if not force:
        faults = store.faults(commit, wanted) if store.snapshot(commit).is_dir() else []
        _refuse_damaged(store, faults)
    store.save_manifest(commit, revision, _kept(files), wanted)
    _check_room(store, wanted, force)
    _fetch_all(remote, store, commit, wanted, force)
    _refuse_damaged(store, store.faults(commit, wanted))
    store.set_ref(revision, commit)
    return store.snapshot(commit)


def _fetch_all(
    remote: Remote, store: Cache, commit: str, wanted: dict[str, Content], force: bool
) -> None:
    from huggingface_hub.utils import tqdm

    missing = {
        path: content
        for path, content in wanted.items()
        if force or not (store.snapshot(commit) / path).is_file()
    }
    if not missing:
        return
    by_xet = _xet_paths(missing)
    with tqdm(
        total=sum_sizes(missing.values()),
        unit="B",
        unit_scale=True,
        desc=f"{store.repo}",
        disable=None,
        leave=False,
    ) as bar:
        arrived: dict[str, int] = {}
        stopped = threading.Event()

        def one(path: str) -> None:
            def progress(position: int) -> None:
                if stopped.is_set():
                    raise HubError(f"{path} of {store.repo} was stopped.")
                bar.update(position - arrived.get(path, 0))
                arrived[path] = position

            content = missing[path]
            if path in by_xet:
                remote.call(_fetch_by_xet, remote, store, commit, path, force, asked=commit)
            else:
                fetch(remote, store, commit, path, content, force=force, progress=progress)
                store.link(commit, path, content)

        pool = ThreadPoolExecutor(_WORKERS)
        try:
            # Small files first: a configuration that is refused should not cost the weights' time.
            for _ in pool.map(one, sorted(missing, key=lambda p: missing[p].size)):
                pass
        finally:
            stopped.set()  # after Ctrl-C or a failure the other files stop, too
            pool.shutdown(cancel_futures=True)


def _xet_paths(missing: dict[str, Content]) -> set[str]:
    """The files that the client brings faster, in parallel chunks, than one stream."""
    return {path for path, content in missing.items() if content.xet} if xet_works() else set()


def _fetch_by_xet(remote: Remote, store: Cache, commit: str, path: str, force: bool) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(
        store.repo,
        path,
        revision=commit,
        cache_dir=store.root,
        force_download=force,
        endpoint=remote.endpoint,
        token=remote.token or False,
    )


def _wanted(
    repo: str, revision: str, files: dict[str, Content], allow: list[str]
) -> dict[str, Content]:
    """The files to pull, their names checked.

    Raises:
        HubError: none matches, or a name is refused.
    """
    paths = select(files, allow)
    if not paths:
        shown = ", ".join(sorted(files)[:6]) + (", ..." if len(files) > 6 else "")
        raise HubError(
            f"{repo} at {revision} has none of {', '.join(allow[:6])}; "
            f"it holds {shown or 'nothing'}."
        )
    for path in paths:
        check_path(path, repo)
    check_collisions(paths, repo)
    return {path: files[path] for path in paths}


def _kept(files: dict[str, Content]) -> dict[str, Content]:
    """What goes into the manifest: names that could never be pulled stay out of it."""
    kept = {}
    for path, content in files.items():
        try:
            kept[check_path(path)] = content
        except HubError:
            continue
    return kept


def _cached(store: Cache, revision: str, allow: list[str], why: str) -> Path:
    repo = store.repo
    commit = store.commit_of(revision) or store.interrupted(revision)
    manifest = store.manifest(commit) if commit else None
    if commit is None or manifest is None:
        raise HubError(
            f"{repo} at {revision} is not in the cache {store.root} and {why}; "
            f"run `zoo pull {repo}` when the hub can be reached."
        )
    wanted = _wanted(repo, revision, manifest, allow)
    faults = store.faults(commit, wanted)
    missing = [fault.path for fault in faults if fault.state == "missing"]
    if missing:
        shown = ", ".join(missing[:4]) + (
            f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        )
        raise HubError(
            f"{repo} at {revision} is incomplete in the cache (missing: {shown}) and {why}; "
            f"run `zoo pull {repo}` when the hub can be reached."
        )
    _refuse_damaged(store, faults)
    return store.snapshot(commit)


def _refuse_damaged(store: Cache, faults: list[Fault]) -> None:
    for fault in faults:
        if fault.state == "damaged":
            raise HubError(
                f"{fault.path} of {store.repo} in the cache {fault.detail}; "
                f"run `zoo pull --force {store.repo}`."
            )


def _check_room(store: Cache, wanted: dict[str, Content], force: bool) -> None:
    needed = 0
    for content in {c.digest: c for c in wanted.values()}.values():
        blob = store.blob(content)
        if force or not blob.is_file():
            partial = blob.with_name(f"{blob.name}.zoo.incomplete")
            needed += content.size - (partial.stat().st_size if partial.is_file() else 0)
    place = store.root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed and needed + _ROOM > free:
        raise HubError(
            f"{store.repo} needs {needed / 1e9:.2f} GB in {store.root} and {free / 1e9:.2f} GB are "
            "free; free some space or set HF_HUB_CACHE to another disk."
        )
