"""The standard library of the running Python as a corpus: real code and real English, on every
machine.

Modules in the order of their names, without the test suites; which ones are held out depends on
their names alone. Python 3.11 has 726 texts of 12.1 MB, of which 1.8 MB are docstrings; 31 of them,
0.39 MB, are held out by default. Other versions differ a little.
"""

# b samples, n tokens

from __future__ import annotations

import ast
import inspect
import sys
import sysconfig
import tokenize
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.data.text.split import in_split
from zoo.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.data.base import Batch, Dataset
    from zoo.data.text.schema import StdlibConfig

__all__ = ["ScoredWindows", "StdlibData", "TokenWindows", "modules", "source_of", "stdlib_texts"]

_SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


@cache
def modules() -> dict[str, Path]:
    """Returns dotted name -> file of every source file, sorted; raises DataError when there are
    none."""
    root = Path(sysconfig.get_path("stdlib"))
    found = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        if not _SKIPPED.intersection(parts) and parts[0] in sys.stdlib_module_names:
            found[".".join(parts)] = path
    if not found:
        raise DataError(f"This Python carries no sources of its standard library in {root}.")
    return dict(sorted(found.items()))


def stdlib_texts(
    split: Literal["train", "test", "all"] = "all",
    content: Literal["source", "docstrings"] = "source",
    held_out: float = 0.05,
) -> Iterator[str]:
    """Yields one text per module, in the order of the modules' names.

    Args:
        split: "train", "test" (the modules that are held out) or "all".
        content: the whole file, or its docstrings with blank lines between them.
        held_out: share of the modules in "test".
    Raises: DataError.
    """
    if content not in ("source", "docstrings"):
        raise DataError(f"content: must be source or docstrings, got {content!r}.")
    for name in modules():
        if not in_split(name, split, held_out):
            continue
        text = source_of(name)
        if content == "docstrings":
            text = "\n\n".join(_docstrings(text))
        if text.strip():
            yield text


def source_of(module: str) -> str:
    """Returns the source of a module, "" of one that Python could not import either."""
    try:
        with tokenize.open(modules()[module]) as file:  # as Python reads it, coding cookie and all
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ""


def _docstrings(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node, clean=False)
            if text and text.strip():
                yield inspect.cleandoc(text)


class StdlibData:
    """`data=stdlib`: batches {"tokens": (b n) long} of the model's own tokenizer."""

    labels: list[str] = []

    def __init__(self, config: StdlibConfig) -> None:
        self.config = config

    def split(self, name: str, model: Any = None) -> Dataset:
        """Returns windows over the texts of "train" or "test", with the end token between
        modules; those of "test" say what counts."""
        config = self.config
        tokenizer = text_tokenizer(model)
        texts = stdlib_texts(name, config.content, config.held_out)  # type: ignore[arg-type]
        if name == "train":
            return TokenWindows(tokenizer, texts, config.length)
        return ScoredWindows(tokenizer, texts, config.length, config.context)


def text_tokenizer(model: Any) -> Any:
    """Returns the model's tokenizer; raises DataError when it has none that reads text."""
    tokenizer = getattr(model, "tokenizer", None)
    if not hasattr(tokenizer, "encode"):
        raise DataError("This data needs a model with a tokenizer of text; set its tokenizer.")
    return tokenizer


class TokenWindows:
    """One long row of tokens, seen through windows of one length.

    In training a window begins at a random place of its stretch; otherwise windows stand side by
    side, and together they hold every token once (but for a last one that is not full). `bytes` is
    the UTF-8 size of the texts.
    """

    def __init__(self, tokenizer: Any, texts: Any, length: int) -> None:
        import torch

        texts = list(texts)
        end = tokenizer.eos_id
        row: list[int] = []
        for ids in tokenizer.encode(texts, special=False, control=False):
            row += ids
            if end is not None:
                row.append(end)
        self.bytes = sum(len(text.encode()) for text in texts)
        self.length = length
        if len(row) < length:
            raise DataError(f"The texts hold {len(row)} tokens, less than one window of {length}.")
        self.tokens = torch.tensor(row, dtype=torch.int32)

    def __len__(self) -> int:
        return len(self.tokens) // self.length

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> Batch:
        import torch

        starts = torch.tensor(indices) * self.length
        if seeds is not None:
            starts += seeds.cpu() % self.length
            starts.clamp_(max=len(self.tokens) - self.length)
        places = starts[:, None] + torch.arange(self.length)
        return {"tokens": self.tokens[places].long()}


class ScoredWindows(TokenWindows):
    """Held-out windows that overlap by `context`, so that each token is scored once, and all but
    the first ones are predicted from at least so many before them.

    The row begins with an end token, from which the first text's first token is predicted. A batch
    also holds `scored` (b n), bool, and `bytes_per_token` (b), the mean over all texts.
    """

    def __init__(self, tokenizer: Any, texts: Any, length: int, context: int = 0) -> None:
        import torch

        super().__init__(tokenizer, texts, 1)
        if tokenizer.eos_id is not None:
            first = torch.tensor([tokenizer.eos_id], dtype=torch.int32)
            self.tokens = torch.cat([first, self.tokens])
        self.length = min(length, len(self.tokens))  # short texts are one window
        # what is predicted comes after what predicts it
        self.fresh = max(self.length - max(context, 1), 1)
        self.bytes_per_token = self.bytes / (len(self.tokens) - 1)

    def __len__(self) -> int:
        rest = len(self.tokens) - self.length
        return 1 + -(-rest // self.fresh)

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> Batch:
        import torch

        wanted = torch.tensor(indices) * self.fresh
        starts = wanted.clamp(max=len(self.tokens) - self.length)  # the last one has more context
        places = starts[:, None] + torch.arange(self.length)
        new = wanted + self.length - self.fresh
        new[wanted == 0] = 1
        return {
            "tokens": self.tokens[places].long(),
            "scored": places >= new[:, None],
            "bytes_per_token": torch.full((len(places),), self.bytes_per_token),
        }
