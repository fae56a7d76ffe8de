"""The grammar of names: `name`, `name.tag`, `plugin/name`, `hf:org/repo@revision`, `dir:path`."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass

from zoo.errors import UnknownName
from zoo.registry.folders import aliases, index, known_names, spelled
from zoo.registry.plugins import plugins
from zoo.registry.suggest import hint

__all__ = ["Name", "current_name", "parse_name"]

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_REVISION = re.compile(r"\w[\w./-]*", re.ASCII)
_PATH = re.compile(r"[A-Za-z]:[\\/]|[/~]|.*\\|(.*/)?\.{1,2}(/|$)")  # C:\x, /x, ~/x, a\b, ../x


@dataclass(frozen=True)
class Name:
    """What a name points to: a node of ours (scheme ''), a hub repository ('hf') or a folder
    ('dir')."""

    scheme: str
    name: str
    tag: str | None = None  # of a node: which of its weights
    revision: str | None = None  # of a repository


def parse_name(text: str, group: str = "model") -> Name:
    """Returns the parts of a name; that there is such a node, repository or folder is not checked.

    An old name gives its new one, with a DeprecationWarning. Raises: UnknownName with the ways out
    when the text is none of the known forms.
    """
    if not isinstance(text, str) or not text.strip():
        raise UnknownName(
            "A name is a non-empty string such as 'vit-digits', 'hf:org/repo' or 'dir:runs/7'."
        )
    text = text.strip()
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "dir":
        if not rest:
            raise UnknownName("'dir:' needs a folder after it, as in dir:runs/7.")
        return Name("dir", rest)
    if colon and scheme == "hf":
        repo, at, revision = rest.partition("@")
        if not _REPO.fullmatch(repo) or (at and not _REVISION.fullmatch(revision)) or ".." in rest:
            raise UnknownName(f"{text!r} is not of the form hf:org/repo or hf:org/repo@revision.")
        return Name("hf", repo, revision=revision or None)
    if _PATH.match(text):
        raise UnknownName(f"{text!r} looks like a path; a folder is named dir:{text}.")
    if not colon:
        return _parse_node(text, group)
    raise UnknownName(
        f"{text!r} has the unknown scheme {scheme!r}.{hint(scheme, ['hf', 'dir'])} "
        "Use hf:org/repo or dir:path."
    )


def _parse_node(text: str, group: str) -> Name:
    files, old = index(group), aliases(group)
    stem, tag = text, None
    while stem not in files and stem not in old and spelled(group, stem) == stem:
        # Names may hold dots (llama-3.2-1b), so the longest one that exists wins.
        stem, dot, _ = stem.rpartition(".")
        tag = text[len(stem) + 1 :]
        if not dot or "/" in tag:
            return _parse_made_up(text, group)
    return Name("", current_name(group, stem), tag)


def _parse_made_up(text: str, group: str) -> Name:
    """Parses a name that is no file: one that a plugin makes up (timm/resnet50.a1), or none."""
    namespace, slash, _ = text.partition("/")
    if not slash or namespace not in plugins():
        return Name("", text)
    known = known_names(group, text)
    stem = text
    while stem not in known and "." in stem.removeprefix(f"{namespace}/"):
        stem = stem.rpartition(".")[0]  # at last what stands before the first dot
    return Name("", stem, text[len(stem) + 1 :] if stem != text else None)


def current_name(group: str, name: str) -> str:
    """Returns what a name is called today, with a DeprecationWarning when that has changed, and
    with its own hyphens and underscores."""
    if name in index(group):
        return name
    new = aliases(group).get(name)
    if new is None:
        return spelled(group, name)
    warnings.warn(f"{group} {name!r} is now called {new!r}.", DeprecationWarning, stacklevel=4)
    return new
