"""What commands that use a model share: which model, on what device, and which files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zoo.cli.output import status
from zoo.errors import ConfigError, DataError

__all__ = ["add_model", "expand", "load_another", "load_model"]


def add_model(parser: argparse.ArgumentParser) -> None:
    """Gives a command its model: a name, overrides by `--set`, device and dtype."""
    parser.add_argument("name", metavar="NAME", help="a model's name, hf:org/repo or dir:folder")
    parser.add_argument(
        "--set", action="append", default=[], metavar="key=value", help="change a key (repeatable)"
    )
    parser.add_argument("--device", help="cpu, cuda, …; the first accelerator unless given")
    parser.add_argument("--dtype", help="fp32, bf16, int8 … (default: as stored)")


def load_model(args: argparse.Namespace, verb: str) -> Any:
    """Returns the model of `add_model`'s arguments; raises ConfigError when it lacks the verb."""
    import zoo

    with status(f"loading {args.name}"):
        device = args.device or _best_device()
        model = zoo.load(args.name, *args.set, device=device, dtype=args.dtype)
    if not hasattr(model, verb):
        raise ConfigError(f"{args.name!r} is a {model.config.zoo_kind} model and cannot {verb}.")
    return model


def load_another(name: str, args: argparse.Namespace) -> Any:
    """Returns a second model, on the device and in the dtype of the first."""
    import zoo

    with status(f"loading {name}"):
        return zoo.load(name, device=args.device or _best_device(), dtype=args.dtype)


def _best_device() -> str:
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found is not None else "cpu"


def expand(paths: list[str]) -> list[str]:
    """Returns the files of a command line; a folder stands for its files, sorted."""
    files: list[str] = []
    for path in paths:
        folder = Path(path)
        if folder.is_dir():
            inside = sorted(p for p in folder.iterdir() if p.is_file() and p.name[0] != ".")
            if not inside:
                raise DataError(f"The folder {path} holds no files.")
            files += map(str, inside)
        else:
            files.append(path)
    return files
