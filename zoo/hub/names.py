"""What may be called a repository, a revision or a file, for the client and the server alike.

A name that passes here can be joined to a folder on any common file system without leaving it and
without changing its meaning: no absolute paths, no `..`, no backslashes, drive letters or control
characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from zoo.errors import HubError

__all__ = [
    "check_collisions",
    "check_path",
    "check_repo",
    "check_revision",
    "is_commit",
    "select",
]

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?"
_REPO = re.compile(rf"{_PART}(?:/{_PART})?")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(?:/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Devices on Windows: a file of this name, whatever its ending, is not a file there.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}


def is_commit(revision: str | None) -> bool:
    """Whether `revision` is a full commit id (40 hex digits), which never changes its meaning."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def check_repo(repo: str, *, namespace: bool = False) -> str:
    """Return `repo` if it reads `name` or `owner/name`; with `namespace` only `owner/name`.

    Raises:
        HubError: the name cannot be a repository's.
    """
    plain = isinstance(repo, str) and _REPO.fullmatch(repo)
    # `--` separates owner and name in the cache's folders; a name with it could pose as another.
    if not plain or "--" in repo or ".." in repo or repo.endswith(".git"):
        raise HubError(
            f"{repo!r} is not a repository's name; it reads owner/name, as in acme/my-vit."
        )
    if namespace and "/" not in repo:
        raise HubError(f"{repo!r} lacks its owner; write owner/{repo}.")
    return repo


def check_revision(revision: str) -> str:
    """Return `revision` if it can be a branch, a tag, `refs/pr/N` or a commit.

    Raises:
        HubError: it cannot be.
    """
    good = isinstance(revision, str) and len(revision) <= 200 and _REVISION.fullmatch(revision)
    if not good or ".." in revision or any(p.endswith((".lock", ".")) for p in revision.split("/")):
        raise HubError(
            f"{revision!r} is not a revision's name; "
            "use letters, digits and . _ - + as in v1.0 or refs/pr/2."
        )
    return revision


def check_path(path: str, where: str = "the repository") -> str:
    """Return `path` if it is a plain relative file name that stays inside its folder everywhere.

    Raises:
        HubError: it could leave the folder, or means another file on another system.
    """
    reason = _path_fault(path)
    if reason:
        raise HubError(f"{where} names a file {path!r}, which {reason}; it is refused.")
    return path


def _path_fault(path: str) -> str:
    if not isinstance(path, str) or not path:
        return "is empty"
    if len(path.encode("utf-8", "surrogatepass")) > 1024:
        return "is longer than 1024 bytes"
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) <= 0xDFFF for c in path):
        return "holds control characters"
    if "\\" in path or ":" in path:
        return "holds a backslash or a colon"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return "could leave its folder"
        if part.endswith((".", " ")) or part.startswith(" "):
            return "has a part that begins or ends with a space or ends with a dot"
        if part.lower() in (".git", ".cache"):
            return f"lies in {part}"
        if part.split(".")[0].lower() in _DEVICES:
            return f"is a device ({part}) on Windows"
        if len(part.encode()) > 255:
            return "has a part longer than 255 bytes"
    return ""


def check_collisions(paths: Iterable[str], where: str = "the repository") -> None:
    """Refuse names that differ by upper and lower case only, or are file and folder at once.

    Raises:
        HubError: naming both.
    """
    paths = sorted(paths)
    seen: dict[str, str] = {}
    for path in paths:
        twin = seen.setdefault(path.lower(), path)
        if twin != path:
            raise HubError(
                f"{where} holds both {twin} and {path}, one file on many systems; rename one."
            )
    for path in paths:
        parts = path.lower().split("/")
        for end in range(1, len(parts)):
            parent = seen.get("/".join(parts[:end]))
            if parent is not None:
                raise HubError(
                    f"{where} holds {parent} both as a file and as the folder of {path}."
                )


def select(paths: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The paths that match any of the patterns, sorted.

    A pattern without a slash speaks of files at the top only: `*.safetensors` does not reach
    `backup/old.safetensors`, so one repository may keep other models in its folders.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    return sorted(p for p in paths if any(_matches(p, pattern) for pattern in patterns))


def _matches(path: str, pattern: str) -> bool:
    return path.count("/") == pattern.count("/") and all(
        fnmatchcase(part, wanted) for part, wanted in zip(path.split("/"), pattern.split("/"))
    )
