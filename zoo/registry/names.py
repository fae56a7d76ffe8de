"""The grammar of names: `name`, `name.tag`, `plugin/name`, `hf:org/repo@revision`, `dir:path`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zoo.errors import UnknownName
from zoo.registry.suggest import hint

__all__ = ["Name", "parse_name"]

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_REVISION = re.compile(r"[\w./-]+")


@dataclass(frozen=True)
class Name:
    """What a name points to: a node of ours (scheme ''), a hub repository ('hf') or a folder ('dir')."""

    scheme: str
    name: str
    tag: str | None = None  # of a node: which of its weights
    revision: str | None = None  # of a repository


def parse_name(text: str, group: str = "model") -> Name:
    """Returns the parts of a name; raises UnknownName with both ways out when it is none of the known forms."""
    from zoo.registry.nodes import index, read_aliases

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
    if colon:
        raise UnknownName(
            f"{text!r}: unknown scheme {scheme!r};{hint(scheme, ['hf', 'dir'])} use hf:org/repo or dir:path."
        )
    known = {**index(group), **read_aliases().get(group, {})}
    if text in known:
        return Name("", text)
    stem = text
    while "." in stem:  # names may hold dots (llama-3.2-1b), so the longest one that exists wins
        stem = stem.rpartition(".")[0]
        if stem in known:
            return Name("", stem, tag=text[len(stem) + 1 :])
    if "/" in text:
        from zoo.registry.plugins import plugins

        namespace, _, inner = text.partition("/")
        if namespace in plugins():  # names that the plugin makes up, timm/resnet50.a1_in1k
            name, _, tag = inner.partition(".")
            return Name("", f"{namespace}/{name}", tag=tag or None)
    return Name("", text)
