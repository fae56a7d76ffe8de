"""From a name to a tokenizer of text: a node of ours, a model's, a folder or a repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.api.describe import node_config
from zoo.errors import ConfigError, UnknownName
from zoo.registry import Name, build, names, parse_name
from zoo.registry.suggest import hint
from zoo.tokenizers.text.reading import read_tokenizer
from zoo.tokenizers.text.schema import FILES, TextTokenizerConfig

if TYPE_CHECKING:
    from zoo.tokenizers.text import TextTokenizer

__all__ = ["tokenizer"]


def tokenizer(
    name: str, *overrides: str | Mapping[str, Any], folder: str | Path | None = None, **keys: Any
) -> TextTokenizer:
    """Returns a tokenizer of text.

    Args:
        name: a tokenizer node (`stdlib-bpe`, `gpt2`), else a model node with one, `dir:path` or
            `hf:org/repo@revision`.
        overrides: keys of its config, as for `zoo.config`.
        folder: where a node's files lie, instead of its repository or what ships with zoo.
    Raises: UnknownName, ConfigError, DataError, HubError.
    """
    if ":" not in name and name not in names("tokenizer") and name in names("model"):
        return _of_model(name, overrides, keys)
    parsed = parse_name(name, "tokenizer")
    if parsed.scheme:
        from zoo.hub.client import pull

        path = Path(parsed.name).expanduser()
        if parsed.scheme == "hf":
            path = pull(parsed.name, parsed.revision, allow=FILES)
        return read_tokenizer(path, *overrides, *([keys] if keys else []))
    if parsed.name not in names("tokenizer"):
        known = [*names("tokenizer"), *names("model")]
        raise UnknownName(f"Unknown tokenizer {name!r}.{hint(name, known)} (zoo list tokenizer)")
    return _of_config(node_config(parsed, overrides, keys, "tokenizer"), folder, name)


def _of_config(config: Any, folder: str | Path | None, name: str) -> TextTokenizer:
    if not isinstance(config, TextTokenizerConfig):
        raise ConfigError(f"{name!r} is a {config.zoo_kind} tokenizer, not one of text.")
    if folder is None and config.folder is None and config.repo is not None:
        from zoo.hub.client import pull

        folder = pull(config.repo, config.revision, allow=FILES)
    return build(config, folder=folder)


def _of_model(name: str, overrides: Any, keys: Mapping[str, Any]) -> TextTokenizer:
    """Returns the tokenizer that a model's node names, else that of its weights' repository."""
    typed = node_config(Name("", name), (), {})
    named = getattr(typed, "tokenizer", None)
    if named is not None:
        return _of_config(named, None, name)
    tag = next(iter(typed.weights.values()), None)
    if tag is None:
        raise ConfigError(f"{name!r} names no tokenizer, and no weights that come with one.")
    if tag.folder is not None:
        path = Path(__file__).parent.parent / "assets" / tag.folder
    else:
        from zoo.hub.client import pull

        path = pull(tag.repo, tag.revision, allow=FILES)
    return read_tokenizer(path, *overrides, *([keys] if keys else []))
