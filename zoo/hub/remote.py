"""The other end: which hub, which token, trying again, and errors said in one sentence.

Everything is read from the environment when it is used, not when it is imported: HF_ENDPOINT,
HF_TOKEN (or what `hf auth login` stored), HF_HUB_OFFLINE, HF_HUB_CACHE, HF_HOME. `huggingface_hub`
is imported here only, inside functions: it costs 0.3 s that listing and describing models need not
pay.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib.util
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from zoo.errors import HubError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["Remote", "cache_root", "endpoint", "is_offline", "log", "shown_endpoint"]

log = logging.getLogger("zoo.hub")

PUBLIC = "https://huggingface.co"
ATTEMPTS = 4
WAIT = 1.0  # seconds before the second attempt; doubles
LONGEST_WAIT = 60.0  # seconds; a hub that asks for more is told to the user instead

Result = TypeVar("Result")


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, or the public hub."""
    return (os.environ.get("HF_ENDPOINT") or PUBLIC).rstrip("/")


def shown_endpoint() -> str:
    """The hub's address as it may be printed: without a user name or password."""
    url = urlsplit(endpoint())
    return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()


def is_offline() -> bool:
    """Whether the environment forbids the network."""
    values = (os.environ.get("HF_HUB_OFFLINE"), os.environ.get("TRANSFORMERS_OFFLINE"))
    return any((value or "").upper() in ("1", "ON", "YES", "TRUE") for value in values)


def cache_root(cache: str | os.PathLike[str] | None = None) -> Path:
    """The folder that models are pulled into, shared with every tool of the Hugging Face hub."""
    env = os.environ.get
    home = env("HF_HOME") or os.path.join(env("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    chosen = (
        cache or env("HF_HUB_CACHE") or env("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    )
    return Path(os.path.expandvars(os.path.expanduser(chosen))).absolute()


class Remote:
    """One hub and one token for the length of an operation on one repository."""

    def __init__(self, repo: str):
        from huggingface_hub import HfApi, get_token

        self.repo = repo
        self.endpoint = endpoint()
        self.token: str | None = get_token()
        # False, not None: None would make the client look for a token by itself.
        self.api: HfApi = HfApi(
            endpoint=self.endpoint, token=self.token or False, library_name="multimodal-zoo"
        )

    def headers(self) -> dict[str, str]:
        """The headers of a request that the client library does not make itself."""
        from huggingface_hub.utils import build_hf_headers

        return build_hf_headers(token=self.token or False, library_name="multimodal-zoo")

    def call(
        self,
        function: Callable[..., Result],
        *args: Any,
        asked: str | None = None,
        attempts: int | None = None,
        **options: Any,
    ) -> Result:
        """Call the client, trying again while the hub is busy or the line is bad.

        `asked` is the revision that an error should speak of; everything else goes to `function`.

        Raises:
            HubError: what went wrong and what to do about it.
        """
        attempts = attempts or ATTEMPTS
        for attempt in range(1, attempts + 1):
            try:
                return function(*args, **options)
            except Exception as error:
                pause = self.pause(error, attempt)
                if pause is None or attempt == attempts:
                    raise self.explain(error, asked) from None
                time.sleep(pause)
        raise AssertionError("unreachable")

    def pause(self, error: Exception, attempt: int) -> float | None:
        """Seconds to wait before trying again, None if trying again cannot help."""
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        if isinstance(error, OfflineModeIsEnabled):
            return None
        if isinstance(error, HfHubHTTPError):
            status = error.response.status_code
            if (status < 500 and status not in (408, 429)) or status in (501, 507):
                return None
            asked = error.response.headers.get("Retry-After", "")
            wanted = float(asked) if asked.isdigit() else WAIT * 2 ** (attempt - 1)
            return None if wanted > LONGEST_WAIT else wanted
        if isinstance(
            error, (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)
        ):
            return WAIT * 2 ** (attempt - 1)
        return None

    def explain(self, error: Exception, revision: str | None = None) -> HubError:
        """The error as one sentence: what was wrong, the nearest right name, what to do."""
        import httpx2
        from huggingface_hub import errors

        hub, repo = shown_endpoint(), self.repo
        if isinstance(error, HubError):
            return error
        if isinstance(error, errors.GatedRepoError):
            return HubError(
                f"{repo} is gated: accept its terms at {hub}/{repo}, "
                "then set HF_TOKEN or run `hf auth login`."
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            why = (
                "the token in use may not see it" if self.token else "needs a token (set HF_TOKEN)"
            )
            near = self._near_repository()
            return HubError(
                f"{hub} has no repository {repo}{f' (nearest: {near})' if near else ''}, "
                f"or it is private and {why}."
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return HubError(
                f"{repo} has no revision {revision}; {self._known_revisions(revision)}."
            )
        if isinstance(error, errors.HfHubHTTPError):
            return self._explain_status(error)
        if isinstance(error, errors.OfflineModeIsEnabled):
            return HubError(
                f"HF_HUB_OFFLINE forbids asking {hub} for {repo}; unset it, or pull first."
            )
        if isinstance(error, httpx2.TimeoutException):
            return Unreachable(f"{hub} does not answer about {repo}; try again later.")
        if isinstance(error, (httpx2.TransportError, httpx2.InvalidURL)):
            return Unreachable(
                f"{hub} cannot be reached for {repo}; check the network and HF_ENDPOINT."
            )
        if isinstance(error, OSError):
            return disk_error(error, repo)
        return HubError(f"{repo}: {type(error).__name__}: {self.scrub(str(error))[:300]}")

    def scrub(self, text: str) -> str:
        """Text without the token and on one line."""
        text = " ".join(text.split())
        return text.replace(self.token, "***") if self.token else text

    def _explain_status(self, error: Any) -> HubError:
        hub, repo, status = shown_endpoint(), self.repo, error.response.status_code
        said = self.scrub(error.server_message or "")[:300].rstrip(".")
        said = f" ({said})" if said else ""
        if status == 401:
            return HubError(
                f"{hub} refuses the token for {repo}; set HF_TOKEN to a valid one{said}."
            )
        if status == 403:
            return HubError(f"{hub} does not allow this on {repo}{said}.")
        if status == 405:
            return HubError(f"{hub} does not take this request; it may be a mirror for pulls only.")
        if status == 429:
            return Unreachable(f"{hub} asks to slow down; wait a few minutes and try again{said}.")
        if status >= 500:
            return Unreachable(
                f"{hub} fails with error {status} for {repo}; try again later{said}."
            )
        return HubError(f"{hub} refuses the request for {repo} with error {status}{said}.")

    def _near_repository(self) -> str:
        with contextlib.suppress(Exception):  # a hint only: no hint is no failure
            owner = self.repo.split("/")[0]
            names = [model.id for model in self.api.list_models(author=owner, limit=200)]
            return next(iter(difflib.get_close_matches(self.repo, names, 1)), "")
        return ""

    def _known_revisions(self, revision: str | None) -> str:
        with contextlib.suppress(Exception):
            refs = self.api.list_repo_refs(self.repo)
            names = [ref.name for ref in (*refs.branches, *refs.tags)]
            near = difflib.get_close_matches(revision or "", names, 1)
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            return f"the nearest is {near[0]}" if near else f"it has {shown}"
        return "check its name"


def disk_error(error: OSError, repo: str) -> HubError:
    """A failure of this machine's disk as one sentence."""
    place = error.filename or cache_root()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HubError(f"The disk is full at {place}; free some space.")
    return HubError(f"{repo}: {place} cannot be used: {error.strerror or error}.")


class Unreachable(HubError):
    """The hub does not answer or fails; what is in the cache may still do."""


def xet_works() -> bool:
    """Whether the client would use Xet: hf_xet is installed and not switched off."""
    from huggingface_hub import constants

    return not constants.HF_HUB_DISABLE_XET and importlib.util.find_spec("hf_xet") is not None


@contextlib.contextmanager
def without_xet() -> Iterator[None]:
    """Upload by LFS for the length of a `with` block.

    The client reads HF_HUB_DISABLE_XET once, when it is imported; it may be imported already.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before
