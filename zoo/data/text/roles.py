"""What is each name in a piece of code? Classes of tokens out of the standard library's sources.

A name's role is what Python's grammar and scopes make of it: an attribute, a builtin, what a `def`
or `class` defines, a global, something imported, the keyword of an argument, a local or a
parameter. It has its label at the token that it begins in; other tokens have none.
"""

# b samples, n tokens

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zoo.data.text.split import in_split
from zoo.data.text.stdlib import modules, source_of, text_tokenizer
from zoo.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.data.base import Batch, Dataset
    from zoo.data.text.schema import RolesConfig

__all__ = ["ROLES", "RolesData", "roles"]

ROLES = ["attribute", "builtin", "definition", "global", "import", "keyword", "local", "parameter"]
_BUILTINS = frozenset(dir(builtins))
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class RolesData:
    """`data=roles`: batches {"tokens": (b n) long, "labels": (b n) long, -100 where a token has
    none} of the model's own tokenizer; the labels are ROLES."""

    labels = ROLES

    def __init__(self, config: RolesConfig) -> None:
        self.config = config

    def split(self, name: str, model: Any = None) -> Dataset:
        """Returns the pieces of "train" or "test"; raises DataError when there is none."""
        config, tokenizer = self.config, text_tokenizer(model)
        chosen = [m for m in modules() if m.partition(".")[0] in config.packages]
        sources = (source_of(m) for m in chosen if in_split(m, name, config.held_out))
        return Tagged(tokenizer, sources, config.length)


class Tagged:
    """Sources cut into pieces of one length, side by side; what is left at an end is none."""

    def __init__(self, tokenizer: Any, sources: Iterable[str], length: int) -> None:
        import torch

        rows: list[list[tuple[int, int]]] = []
        for source in sources:
            tokens = tokenizer.encode(source, special=False, control=False)
            labels = _labels(tokenizer.spans(source), roles(source))
            row = list(zip(tokens, labels, strict=True))
            rows += [row[i : i + length] for i in range(0, len(row) - length + 1, length)]
        if not rows:
            raise DataError(f"roles: the modules hold not one piece of {length} tokens.")
        self.rows = torch.tensor(rows)  # b n 2

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> Batch:
        tokens, labels = self.rows[list(indices)].unbind(-1)
        return {"tokens": tokens, "labels": labels}


def _labels(spans: list[tuple[int, int]], names: dict[int, str]) -> list[int]:
    """Returns the label of each token: the role of the first name that begins in it."""
    found, waiting = [], sorted(names, reverse=True)
    for _, stop in spans:
        label = -100
        while waiting and waiting[-1] < stop:
            place = waiting.pop()
            label = ROLES.index(names[place]) if label == -100 else label
        found.append(label)
    return found


def roles(source: str) -> dict[int, str]:
    """Returns, for each name in a source, the character at which it begins and its role; nothing of
    a source that is no Python of this version."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return {}
    lines = source.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    found: dict[int, str] = {}
    outer = frozenset(_bound(tree.body))

    def tell(line: int, column: int, role: str) -> None:  # columns are counted in UTF-8
        text = lines[line - 1]
        column = column if text.isascii() else len(text.encode()[:column].decode())
        found[starts[line - 1] + column] = role

    def of_name(name: str, scopes: tuple) -> str:
        for parameters, bound in reversed(scopes):
            if name in parameters:
                return "parameter"
            if name in bound:
                return "local"
        return "builtin" if name in _BUILTINS and name not in outer else "global"

    def walk(node: ast.AST, scopes: tuple) -> None:
        inside = scopes
        if isinstance(node, _DEFINITIONS):
            text = lines[node.lineno - 1].encode()
            place = text.find(node.name.encode(), node.col_offset + len("def "))
            if place >= 0:  # on the line of its def
                tell(node.lineno, place, "definition")
        if isinstance(node, _FUNCTIONS):
            body = node.body if isinstance(node.body, list) else [node.body]
            own = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
            inside = (*scopes, (own, _bound(body)))
        elif isinstance(node, ast.arg):
            tell(node.lineno, node.col_offset, "parameter")
        elif isinstance(node, ast.Attribute):
            width = len(node.attr.encode())
            tell(node.end_lineno or 0, (node.end_col_offset or 0) - width, "attribute")
        elif isinstance(node, ast.keyword) and node.arg:
            tell(node.lineno, node.col_offset, "keyword")
        elif isinstance(node, ast.alias) and node.name != "*":
            tell(node.lineno, node.col_offset, "import")
        elif isinstance(node, ast.Name):
            tell(node.lineno, node.col_offset, of_name(node.id, scopes))
        for field, value in ast.iter_fields(node):
            here = inside if field == "body" else scopes
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    walk(child, here)

    walk(tree, ())
    return found


def _bound(body: list[Any]) -> set[str]:
    """Returns what a body binds itself, not within the functions and classes that it defines."""
    return set(_binds(body)) - {n for node in body for n in _elsewhere(node)}


def _binds(nodes: Iterable[Any]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, _DEFINITIONS):
            yield node.name
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name
        if not isinstance(node, (*_DEFINITIONS, ast.Lambda)):
            yield from _binds(ast.iter_child_nodes(node))


def _elsewhere(node: Any) -> Iterator[str]:
    """Yields the names that `global` and `nonlocal` take out of a scope."""
    if isinstance(node, (ast.Global, ast.Nonlocal)):
        yield from node.names
    if not isinstance(node, (*_DEFINITIONS, ast.Lambda)):
        for child in ast.iter_child_nodes(node):
            yield from _elsewhere(child)
