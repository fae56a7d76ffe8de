"""Which package is a piece of code from? A labelled task out of the standard library's sources.

Pieces of at most so many tokens, each from whole lines; a module's pieces are held out together.
"""

# b samples, n tokens

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zoo.data.text.split import in_split
from zoo.data.text.stdlib import modules, source_of, text_tokenizer
from zoo.errors import DataError
from zoo.registry.suggest import hint

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.data.base import Batch, Dataset
    from zoo.data.text.schema import PackagesConfig

__all__ = ["PackagesData", "Pieces", "pieces"]


class PackagesData:
    """`data=packages`: batches {"tokens": (b n) long, "mask": (b n) bool, "labels": (b) long} of
    the model's own tokenizer; the labels are the packages."""

    def __init__(self, config: PackagesConfig) -> None:
        self.config, self.labels = config, list(config.packages)

    def split(self, name: str, model: Any = None) -> Dataset:
        """Returns the pieces of "train" or "test"; raises DataError for a package that Python
        does not have."""
        config = self.config
        tokenizer = text_tokenizer(model)
        texts: list[list[str]] = [[] for _ in self.labels]
        for module in modules():
            package = module.partition(".")[0]
            if package in self.labels and in_split(module, name, config.held_out):
                texts[self.labels.index(package)].append(source_of(module))
        known = {module.partition(".")[0] for module in modules()}
        for package in self.labels:
            if package not in known:
                raise DataError(f"packages: there is no package {package!r}.{hint(package, known)}")
        return Pieces(tokenizer, texts, config.length)


class Pieces:
    """Labelled pieces of texts; `texts` are those of each class."""

    def __init__(self, tokenizer: Any, texts: list[list[str]], length: int) -> None:
        self.tokenizer, self.length = tokenizer, length
        self.rows: list[list[int]] = []
        self.labels: list[int] = []
        for label, mine in enumerate(texts):
            for text in mine:
                found = pieces(tokenizer, text, length)
                self.rows += found
                self.labels += [label] * len(found)
        if not self.rows:
            raise DataError("packages: the modules hold not one piece; lower data.length.")

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> Batch:
        import torch

        start = [] if self.tokenizer.cls_id is None else [self.tokenizer.cls_id]
        rows = [[*start, *self.rows[i]] for i in indices]
        width = max(map(len, rows))
        fill = self.tokenizer.pad_id or 0
        lengths = torch.tensor([len(row) for row in rows])
        return {
            "tokens": torch.tensor([row + [fill] * (width - len(row)) for row in rows]),
            "mask": torch.arange(width) < lengths[:, None],
            "labels": torch.tensor([self.labels[i] for i in indices]),
        }


def pieces(tokenizer: Any, text: str, length: int) -> list[list[int]]:
    """Returns the tokens of a text's pieces: as many whole lines as fit, the rest of a line that is
    too long left out; a last piece of less than half a length is none."""
    lines = tokenizer.encode(text.splitlines(keepends=True), special=False, control=False)
    found: list[list[int]] = [[]]
    for line in lines:
        if len(found[-1]) + len(line) > length and found[-1]:
            found.append([])
        found[-1] += line[: length - len(found[-1])]
    return [row for row in found if len(row) >= length // 2]
