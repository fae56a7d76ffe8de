"""zoo.push, zoo.pull: models between folders and a hub."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, UnknownName
from zoo.registry import parse_name

__all__ = ["pull", "push"]


def push(model: Any, repo: str, only: Sequence[str] | None = None, **options: Any) -> Any:
    """Uploads a model, or a folder that holds one, to a hub repository in one commit; returns
    where it went.

    `only` names tensors as in `zoo.save`, for a model whose `bases` hold the others. Options are
    those of `zoo.hub.client.push`: private, revision, create_pr, message, dry_run. An existing card
    keeps its body; when nothing changed there is no commit.
    """
    from zoo.hub import client

    repo = repo.removeprefix("hf:")
    if isinstance(model, (str, Path)):
        if only is not None:
            raise ConfigError("only: a folder goes as it is; give the model, or zoo.save a part.")
        folder = Path(str(model).removeprefix("dir:"))
        if not folder.is_dir():
            raise UnknownName(f"{folder}: there is no such folder to push.")
        inner = folder / "model"
        return client.push(
            inner if inner.is_dir() and not (folder / "config.json").is_file() else folder,
            repo,
            **options,
        )
    from zoo.api.build import save

    with tempfile.TemporaryDirectory(prefix="zoo-push-") as folder_name:
        return client.push(save(model, folder_name, only=only), repo, **options)


def pull(name: str, **options: Any) -> Path:
    """Downloads what a name needs into the cache and returns the folder; `zoo.load` then needs
    no network.

    Options are those of `zoo.hub.client.pull`: cache, offline, force.
    """
    from zoo.api.describe import node_config
    from zoo.hub import client

    parsed = parse_name(name)
    if parsed.scheme == "dir":
        return Path(parsed.name)
    if parsed.scheme == "hf":
        return client.pull(parsed.name, parsed.revision, **options)
    typed = node_config(parsed, (), {})
    tag = typed.weights[parsed.tag] if parsed.tag else next(iter(typed.weights.values()), None)
    if tag is None:
        raise UnknownName(f"{name!r} has no weights to pull.")
    if tag.folder is not None:
        return Path(__file__).parent.parent / "assets" / tag.folder
    return client.pull(tag.repo, tag.revision, allow=tag.patterns(), **options)
