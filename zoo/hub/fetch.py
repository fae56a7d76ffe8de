"""Bring one content over HTTP into the cache: resumable, bounded, hashed before it is let in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.errors import HubError
from zoo.hub import remote as remotes
from zoo.hub.cache import Cache, Content
from zoo.hub.remote import Remote, Unreachable

__all__ = ["fetch"]


def fetch(
    remote: Remote,
    cache: Cache,
    commit: str,
    path: str,
    content: Content,
    *,
    force: bool = False,
    progress: Callable[[int], Any] = lambda bytes_: None,
) -> None:
    """Have the content of `path` at `commit` in the cache's blobs.

    What arrived before a broken line, a stopped process or a full disk is kept beside and continued
    from. The content becomes a blob only when all of it is there and its digest is right. Processes
    that want the same content wait for each other.

    Raises:
        HubError: the hub fails, or sends something else than it announced.
    """
    from huggingface_hub.utils import WeakFileLock

    blob = cache.blob(content)
    lock = cache.lock_file(content.digest)
    lock.parent.mkdir(parents=True, exist_ok=True)
    blob.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.is_file() and blob.stat().st_size == content.size and not force:
            progress(content.size)
            return
        partial = blob.with_name(f"{blob.name}.zoo.incomplete")
        resumed = partial.is_file() and partial.stat().st_size > 0
        found = _download(remote, commit, path, content, partial, progress)
        if found != content.digest and resumed:
            # The beginning came from another time: before blaming the hub, take all of it anew.
            partial.unlink()
            found = _download(remote, commit, path, content, partial, progress)
        if found != content.digest:
            partial.unlink()
            raise HubError(
                f"{path} of {remote.repo} arrived with another content than the hub announced "
                f"({found[:12]} instead of {content.digest[:12]}) and was dropped; "
                f"run `zoo pull --force {remote.repo}`."
            )
        os.replace(partial, blob)
        cache.remember_blob(content)


def _download(
    remote: Remote,
    commit: str,
    path: str,
    content: Content,
    partial: Path,
    progress: Callable[[int], Any],
) -> str:
    """Fill `partial` and return its digest. Gives up after some tries that brought nothing new."""
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(remote.repo, path, revision=commit, endpoint=remote.endpoint)
    tries, most = 0, 0
    while True:
        have = partial.stat().st_size if partial.is_file() else 0
        if have > content.size:
            partial.unlink()
            have = 0
        if have == content.size and partial.is_file():
            return content.digest_of(partial)
        if have > most:
            tries, most = 0, have
        tries += 1
        try:
            hasher = _stream(remote, url, path, content, partial, have, progress)
            if hasher is not None:
                return hasher.hexdigest()
            error: Exception | None = None
            pause: float | None = remotes.WAIT * 2 ** (tries - 1)
        except HubError:
            raise
        except Exception as problem:
            error, pause = problem, remote.pause(problem, tries)
        if pause is None or tries >= remotes.ATTEMPTS:
            raise _given_up(remote, path, content, partial, error, commit) from None
        time.sleep(pause)


def _given_up(
    remote: Remote,
    path: str,
    content: Content,
    partial: Path,
    error: Exception | None,
    commit: str,
) -> HubError:
    import httpx2

    have = partial.stat().st_size if partial.is_file() else 0
    if error is None or (have and isinstance(error, httpx2.TransportError)):
        return Unreachable(
            f"{path} of {remote.repo} breaks off after {have} of {content.size} bytes; "
            f"run `zoo pull {remote.repo}` again to continue."
        )
    return remote.explain(error, commit)


def _stream(
    remote: Remote,
    url: str,
    path: str,
    content: Content,
    partial: Path,
    have: int,
    progress: Callable[[int], Any],
) -> Any:
    """One request. Returns the hash if all of it came in this one, None if it must go on."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, hf_raise_for_status

    headers = {**remote.headers(), "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = get_session().stream(
        "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
    )
    with request as response:
        if response.status_code == 416:
            partial.unlink()
            return None
        hf_raise_for_status(response)
        continues = response.status_code == 206 and have > 0
        start = response.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
        if continues and start != str(have):
            raise HubError(
                f"{path} of {remote.repo}: the hub answered with another part than asked."
            )
        hasher = None if continues else content.hasher()
        with open(partial, "ab" if continues else "wb") as file:
            position = have if continues else 0
            progress(position)
            # As it comes: pieces of a fixed size would lose what came of one when the line breaks.
            for chunk in response.iter_bytes():
                position += len(chunk)
                if position > content.size:
                    file.truncate(0)
                    raise HubError(
                        f"{path} of {remote.repo} is longer than the {content.size} bytes the hub "
                        f"announced and was dropped; run `zoo pull --force {remote.repo}`."
                    )
                file.write(chunk)
                if hasher is not None:
                    hasher.update(chunk)
                progress(position)
            file.flush()
            os.fsync(file.fileno())  # the blob's name promises its content, also after a power cut
    return hasher if position == content.size else None
