"""What is a parameter by default? Questions about the standard library's signatures, whose answers
stand in them.

Signatures with at least two defaults, so that the question must be read; those of a module are held
out together.
"""

# b samples, n tokens

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zoo.data.text.split import in_split
from zoo.data.text.stdlib import modules, source_of, text_tokenizer
from zoo.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.data.base import Batch, Dataset
    from zoo.data.text.schema import SignaturesConfig

__all__ = ["SignaturesData", "questions"]


class SignaturesData:
    """`data=signatures`: batches {"tokens", "mask", "context" (b n), "start", "end" (b)} of
    class token, question, separator, signature, in the model's own tokenizer."""

    labels: list[str] = []

    def __init__(self, config: SignaturesConfig) -> None:
        self.config = config

    def split(self, name: str, model: Any = None) -> Dataset:
        """Returns the questions of "train" or "test"; raises DataError when there is none."""
        config, tokenizer = self.config, text_tokenizer(model)
        sources = (source_of(m) for m in modules() if in_split(m, name, config.held_out))
        return Questions(tokenizer, sources, config.length)


class Questions:
    """Questions with the places of their answers; what is longer than `length` is left out."""

    def __init__(self, tokenizer: Any, sources: Iterable[str], length: int) -> None:
        self.fill = tokenizer.pad_id or 0
        self.samples: list[tuple[list[int], int, int, int]] = []  # ids, context, start, end
        first = [] if tokenizer.cls_id is None else [tokenizer.cls_id]
        between = [] if tokenizer.sep_id is None else [tokenizer.sep_id]
        for signature, asked in (found for source in sources for found in questions(source)):
            ids = tokenizer.encode(signature, special=False, control=False)
            spans = tokenizer.spans(signature)
            for question, start, stop in asked:
                words = tokenizer.encode(question, special=False, control=False)
                head = [*first, *words, *between]
                place = [i for i, (a, b) in enumerate(spans) if a < stop and start < b]
                if len(head) + len(ids) <= length:
                    at = len(head)
                    self.samples.append((head + ids, at, at + place[0], at + place[-1]))
        if not self.samples:
            raise DataError(f"signatures: no question has at most {length} tokens.")

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> Batch:
        import torch

        chosen = [self.samples[i] for i in indices]
        width = max(len(ids) for ids, *_ in chosen)
        lengths, context, start, end = torch.tensor(
            [(len(ids), *places) for ids, *places in chosen]
        ).T
        place = torch.arange(width)
        mask = place < lengths[:, None]
        return {
            "tokens": torch.tensor([ids + [self.fill] * (width - len(ids)) for ids, *_ in chosen]),
            "mask": mask,
            "context": mask & (place >= context[:, None]),
            "start": start,
            "end": end,
        }


def questions(source: str) -> Iterator[tuple[str, list[tuple[str, int, int]]]]:
    """Yields the text of each signature with two defaults or more, and its questions: (question,
    first character of the answer in the signature, the one after its last)."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    lines = source.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        asked, places = [], node.args
        positional = [*places.posonlyargs, *places.args]
        given = positional[len(positional) - len(places.defaults) :] if places.defaults else []
        pairs = [*zip(given, places.defaults, strict=True)]
        pairs += [
            (argument, default)
            for argument, default in zip(places.kwonlyargs, places.kw_defaults, strict=True)
            if default is not None
        ]
        text = "\n".join(lines[node.lineno - 1 : node.body[0].lineno - 1])
        if len(pairs) < 2 or not text.isascii():  # or the columns would be none of characters
            continue
        for argument, default in pairs:
            begin = _place(lines, node.lineno, default.lineno, default.col_offset)
            stop = _place(lines, node.lineno, default.end_lineno or 0, default.end_col_offset or 0)
            if stop <= len(text):
                asked.append((f"What is {argument.arg} by default?", begin, stop))
        if asked:
            yield text, asked


def _place(lines: list[str], first: int, line: int, column: int) -> int:
    """Returns the character of a text that begins with line `first`."""
    return sum(len(text) + 1 for text in lines[first - 1 : line - 1]) + column
