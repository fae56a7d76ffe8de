"""A model folder on this machine: which of its files may leave it, and whether they are fit to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from zoo.errors import HubError
from zoo.hub.config import read_hub_config
from zoo.hub.names import check_collisions, check_path, select

__all__ = [
    "PUSH_FILES",
    "check_config",
    "check_secrets",
    "check_weights",
    "has_weights",
    "local_files",
]

# What a model folder may hold for others. Logs, checkpoints and the like stay at home.
PUSH_FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "README.md",
    "LICENSE*",
    "*_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "*.spm",
    "vocab-src.json",
    "vocab-tgt.json",
    "target_vocab.json",
    "*.png",
    ".eval_results/*.yaml",
)
_HF_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{34}\b")
_TEXT = 8 << 20  # bytes; files up to this are searched for tokens


def local_files(folder: Path, allow: Iterable[str]) -> dict[str, Path]:
    """The files to push. Links to files count as files; links to folders are not followed.

    Raises:
        HubError: the folder is no model's, or a file in it is broken.
    """
    if not folder.is_dir():
        raise HubError(f"{folder} is not a folder; push takes a folder that zoo saved.")
    names = []
    for base, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if f not in (".git", ".cache", "__pycache__")]
        names += [(Path(base) / file).relative_to(folder).as_posix() for file in files]
    paths = select(names, allow)
    for path in paths:
        check_path(path, str(folder))
        if not (folder / path).is_file():
            raise HubError(
                f"{folder / path} is a broken link or no regular file; remove or mend it."
            )
    check_collisions(paths, str(folder))
    if "config.json" not in paths or not has_weights(paths):
        lacks = "no config.json" if "config.json" not in paths else "no *.safetensors"
        raise HubError(f"{folder} holds {lacks}; push takes a folder that zoo saved.")
    for path in paths:
        if path.endswith(".safetensors"):
            check_weights(folder / path)
    return {path: folder / path for path in paths}


def has_weights(paths: Iterable[str]) -> bool:
    return any(path.endswith(".safetensors") for path in paths)


def check_weights(file: Path) -> None:
    """Refuse a safetensors file that is cut off or is none, without reading its tensors.

    Raises:
        HubError: naming the file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        text = str(error).removeprefix("Error while deserializing header: ")
        raise HubError(f"{file} is not a whole safetensors file ({text}).") from None


def check_config(local: dict[str, Path]) -> None:
    """Refuse to publish a configuration that a pull would refuse."""
    config = read_hub_config(local["config.json"], foreign=True)
    if "zoo" in config:
        read_hub_config(local["config.json"])


def check_secrets(local: dict[str, Path], token: str | None) -> None:
    """Refuse to publish an access token: the one in use, or what looks like another."""
    for path, file in local.items():
        if path.endswith(".safetensors") or file.stat().st_size > _TEXT:
            continue
        data = file.read_bytes()
        if (token and len(token) >= 8 and token.encode() in data) or _HF_TOKEN.search(data):
            raise HubError(f"{file} holds an access token; remove it from {path}, then push.")
