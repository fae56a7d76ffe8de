"""Questions about the standard library's signatures, whose answers stand in them.

What is asked is an axis: `ask=name`, the default of a parameter by its name (what is port by
default?), in signatures with two defaults at least; `ask=place`, a parameter by its place, as it is
written (what is the third parameter?), in signatures with two parameters at least. So a question
must be read.

A module is held out as a whole, and a signature that training has too is asked about in training
alone: packages override and copy methods.
"""

# b samples, n tokens

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from zoo.data.text.split import in_split
from zoo.data.text.stdlib import modules, source_of, text_tokenizer
from zoo.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.data.base import Batch, Dataset
    from zoo.data.text.schema import SignaturesConfig

__all__ = ["PLACES", "SignaturesData", "questions", "signatures"]

Asked = tuple[str, list[tuple[str, int, int]]]  # a signature; question, begin, stop

# parameters beyond these are not asked for
PLACES = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"]


class SignaturesData:
    """`data=signatures`: batches {"tokens", "mask", "types", "context" (b n), "start", "end" (b)},
    a question and a signature each, as the model's own tokenizer puts two texts together."""

    labels: list[str] = []

    def __init__(self, config: SignaturesConfig) -> None:
        self.config = config

    def split(self, name: str, model: Any = None) -> Dataset:
        """Returns the questions of "train" or "test"; raises DataError when there is none."""
        found = signatures(name, self.config)
        return Questions(text_tokenizer(model), found, self.config.length)


def signatures(split: str, config: SignaturesConfig) -> Iterator[Asked]:
    """Yields the signatures of a split with their questions."""
    trained = set()
    if split == "test":
        trained = {_plain(text) for text, _ in signatures("train", config)}
    for module in modules():
        if in_split(module, split, config.held_out):
            for text, asked in questions(source_of(module), config.ask):
                if _plain(text) not in trained:
                    yield text, asked


def _plain(text: str) -> str:
    return " ".join(text.split())


class Questions:
    """Questions with the places of their answers; what is longer than `length` is left out."""

    def __init__(self, tokenizer: Any, signatures: Iterable[Asked], length: int) -> None:
        self.fill = tokenizer.pad_id or 0
        layout = tokenizer.layout
        # tokens and their segments; first place and the one after the last of the signature; first
        # and last place of the answer
        self.samples: list[tuple[list[int], list[int], tuple[int, int], tuple[int, int]]] = []
        for signature, asked in signatures:
            ids = tokenizer.encode(signature, special=False, control=False)
            spans = tokenizer.spans(signature)
            for question, start, stop in asked:
                words = tokenizer.encode(question, special=False, control=False)
                row, types = layout.assemble(words, ids, True)
                place = [i for i, (a, b) in enumerate(spans) if a < stop and start < b]
                if len(row) <= length:
                    at = layout.before_pair(len(words))
                    whole = (at, at + len(ids))
                    self.samples.append((row, types, whole, (at + place[0], at + place[-1])))
        if not self.samples:
            raise DataError(f"signatures: no question has at most {length} tokens.")

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> Batch:
        import torch

        rows, types, contexts, answers = zip(*(self.samples[i] for i in indices), strict=True)
        width = max(map(len, rows))
        place = torch.arange(width)
        first, after = torch.tensor(contexts).T[..., None]
        start, end = torch.tensor(answers).T
        return {
            "tokens": torch.tensor([row + [self.fill] * (width - len(row)) for row in rows]),
            "mask": place < torch.tensor([*map(len, rows)])[:, None],
            "types": torch.tensor([row + [0] * (width - len(row)) for row in types]),
            "context": (place >= first) & (place < after),
            "start": start,
            "end": end,
        }


def questions(source: str, ask: Literal["name", "place"] = "name") -> Iterator[Asked]:
    """Yields the text of each signature in which there is a choice of two answers or more, and its
    questions: (question, first character of the answer in the signature, the one after its last).
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    lines = source.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        text = "\n".join(lines[node.lineno - 1 : node.body[0].lineno - 1])
        found = [*(_by_name if ask == "name" else _by_place)(node.args)]
        if len(found) < 2 or not text.isascii():  # or the columns would be none of characters
            continue
        asked = []
        for question, first, last in found:
            begin = _place(lines, node.lineno, first.lineno, first.col_offset)
            stop = _place(lines, node.lineno, last.end_lineno or 0, last.end_col_offset or 0)
            if stop <= len(text):
                asked.append((question, begin, stop))
        if asked:
            yield text, asked


def _by_name(arguments: ast.arguments) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    for argument, default in _parameters(arguments):
        if default is not None:
            yield f"What is {argument.arg} by default?", default, default


def _by_place(arguments: ast.arguments) -> Iterator[tuple[str, ast.arg, ast.arg | ast.expr]]:
    for place, (argument, default) in zip(PLACES, _parameters(arguments)):
        yield f"What is the {place} parameter?", argument, default or argument


def _parameters(arguments: ast.arguments) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """Yields each parameter and its default, in the order in which they are written."""
    positional = [*arguments.posonlyargs, *arguments.args]
    none = [None] * (len(positional) - len(arguments.defaults))
    yield from zip(positional, [*none, *arguments.defaults], strict=True)
    if arguments.vararg:
        yield arguments.vararg, None
    yield from zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    if arguments.kwarg:
        yield arguments.kwarg, None


def _place(lines: list[str], first: int, line: int, column: int) -> int:
    """Returns the character of a text that begins with line `first`."""
    return sum(len(text) + 1 for text in lines[first - 1 : line - 1]) + column
