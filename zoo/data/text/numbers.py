"""Numbers in words between languages: a translation task without any file, whose answers are exact.

    list(number_pairs("train", "en", "de"))[0]    # ('zero', 'null')

Words come from the package num2words. A number is held out in all languages or in none, by its
hash.
"""

# b samples, n source tokens, m target tokens

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal

from zoo.data.text.schema import LANGUAGES
from zoo.data.text.split import in_split
from zoo.data.text.stdlib import text_tokenizer
from zoo.errors import ConfigError, DataError
from zoo.registry.suggest import hint

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.data.base import Batch, Dataset
    from zoo.data.text.schema import NumbersConfig

__all__ = ["NumbersData", "in_words", "number_pairs", "numbers_of", "repeated"]


@cache
def _converters() -> Any:
    try:
        from num2words import CONVERTER_CLASSES
    except ImportError:
        raise ConfigError(
            "Numbers in words need the package 'num2words': pip install multimodal-zoo[numbers]."
        ) from None
    return CONVERTER_CLASSES


@lru_cache(maxsize=1 << 18)  # both languages of 100,000 numbers, 40 MB; a conversion takes 0.1 ms
def in_words(number: int, language: str) -> str:
    """Returns a whole number in words; languages are de, en, es, fr. Raises DataError,
    ConfigError."""
    if language not in LANGUAGES:
        known = ", ".join(LANGUAGES)
        raise DataError(f"Unknown language {language!r}.{hint(language, LANGUAGES, known)}")
    return _converters()[language].to_cardinal(number)


def numbers_of(
    split: Literal["train", "test", "all"], highest: int = 99_999, held_out: float = 0.1
) -> list[int]:
    """Returns the numbers 0 … highest of a split, in order."""
    return [n for n in range(highest + 1) if in_split(f"number {n}", split, held_out)]


def repeated(numbers: list[int], share: float) -> list[int]:
    """Returns the numbers, those of a count of digits that is rare so often that they make up a
    share: without it a model of numbers below 100,000 hardly meets one below 10."""
    counts = Counter(len(str(number)) for number in numbers)
    times = {digits: math.ceil(share * len(numbers) / count) for digits, count in counts.items()}
    return [number for number in numbers for _ in range(max(1, times[len(str(number))]))]


def number_pairs(
    split: Literal["train", "test", "all"] = "all",
    source: str = "en",
    target: str = "de",
    highest: int = 99_999,
    held_out: float = 0.1,
) -> Iterator[tuple[str, str]]:
    """Yields (words in one language, words in the other) of every number of a split, in order."""
    for number in numbers_of(split, highest, held_out):
        yield in_words(number, source), in_words(number, target)


class NumbersData:
    """`data=numbers`: batches of a translation.

    `source` (b n) and `target` (b m) are long, the target ends in the end token; `source_mask` and
    `target_mask` are bool, true at tokens. `pairs` of the split's Dataset are the texts themselves.
    """

    labels: list[str] = []

    def __init__(self, config: NumbersConfig) -> None:
        self.config = config

    def split(self, name: str, model: Any = None) -> Dataset:
        config = self.config
        numbers = numbers_of(name, config.highest, config.held_out)  # type: ignore[arg-type]
        if name == "train":
            numbers = repeated(numbers, config.short)
        return NumberPairs(numbers, config.source, config.target, text_tokenizer(model))


class NumberPairs:
    """The numbers of a split as pairs of token rows, made when they are asked for."""

    def __init__(self, numbers: list[int], source: str, target: str, tokenizer: Any) -> None:
        in_words(0, source), in_words(0, target)  # that the words are to be had at all
        self.numbers, self.source, self.target = numbers, source, target
        self.tokenizer = tokenizer
        if tokenizer.target.eos_id is None:
            raise DataError("Translation needs an end token; set tokenizer.special.eos to one.")

    def __len__(self) -> int:
        return len(self.numbers)

    def pairs(self, indices: Sequence[int]) -> list[tuple[str, str]]:
        """Returns the texts of samples."""
        return [
            (in_words(self.numbers[i], self.source), in_words(self.numbers[i], self.target))
            for i in indices
        ]

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> Batch:
        sources, targets = zip(*self.pairs(indices), strict=True)
        source = self.tokenizer(sources, padding="right")
        end = self.tokenizer.target.eos_id
        rows = [[*ids, end] for ids in self.tokenizer.target.encode(targets, special=False)]
        target, mask = _filled(rows, self.tokenizer.target.pad_id or 0)
        return {
            "source": source.tokens,
            "source_mask": source.mask,
            "target": target,
            "target_mask": mask,
        }


def _filled(rows: list[list[int]], fill: int) -> tuple[Tensor, Tensor]:
    import torch

    width = max(map(len, rows))
    tokens = torch.tensor([row + [fill] * (width - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return tokens, torch.arange(width) < lengths[:, None]
