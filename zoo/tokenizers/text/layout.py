"""Where special tokens stand around one text or two: `[CLS] $A [SEP] $B:1 [SEP]:1`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from zoo.errors import ConfigError, DataError

__all__ = ["Item", "Layout", "read_post_processor"]

_TYPED = re.compile(r"(.+?)(?::(\d+))?")


@dataclass(frozen=True)
class Item:
    """One place of a layout: a text ('$A', '$B') or a special token with its ids; `segment` is its
    token type."""

    name: str
    ids: tuple[int, ...] = ()
    segment: int = 0

    @property
    def is_text(self) -> bool:
        return self.name in ("$A", "$B")


@dataclass(frozen=True)
class Layout:
    """What is built from one text, and from two."""

    single: tuple[Item, ...] = (Item("$A"),)
    pair: tuple[Item, ...] = (Item("$A"), Item("$B", segment=1))

    def added(self, pair: bool) -> int:
        """Returns how many special tokens are put around one text or two."""
        return sum(len(item.ids) for item in (self.pair if pair else self.single))

    def before_pair(self, first: int) -> int:
        """Returns how many tokens stand before the second text, after `first` tokens of text."""
        place = next(i for i, item in enumerate(self.pair) if item.name == "$B")
        return sum(first if item.is_text else len(item.ids) for item in self.pair[:place])

    def assemble(
        self, first: list[int], second: list[int] | None, special: bool
    ) -> tuple[list[int], list[int]]:
        """Returns (ids, segments) of one or two texts, with their special tokens or without."""
        ids: list[int] = []
        segments: list[int] = []
        for item in self.single if second is None else self.pair:
            if item.is_text:
                piece = first if item.name == "$A" else second or []
            else:
                piece = list(item.ids) if special else []
            ids += piece
            segments += [item.segment] * len(piece)
        return ids, segments

    def to_post_processor(self) -> dict[str, Any] | None:
        """Returns the layout as tokenizer.json writes it; None when nothing is added."""
        if self == Layout():
            return None
        named = {item.name: item.ids for item in (*self.single, *self.pair) if not item.is_text}
        return {
            "type": "TemplateProcessing",
            "single": [_plain(item) for item in self.single],
            "pair": [_plain(item) for item in self.pair],
            "special_tokens": {
                name: {"id": name, "ids": list(ids), "tokens": [name] * len(ids)}
                for name, ids in named.items()
            },
        }


def _plain(item: Item) -> dict[str, Any]:
    if item.is_text:
        return {"Sequence": {"id": item.name[1], "type_id": item.segment}}
    return {"SpecialToken": {"id": item.name, "type_id": item.segment}}


def parse_layout(
    single: str | None, pair: str | None, base: Layout, find: Callable[[str], int | None]
) -> Layout:
    """Returns `base` with what the two strings say; `find` gives a token's id. Raises ConfigError
    for unknown tokens.

    A pair that is not given stays the base's, unless a single layout is: then the pair repeats it
    for each text.
    """
    if single is None and pair is None:
        return base
    one = _parse(single, find) if single is not None else base.single
    if pair is not None:
        return Layout(one, _parse(pair, find))
    second = tuple(Item("$B" if i.is_text else i.name, i.ids, 1) for i in one)
    return Layout(one, one + second)


def _parse(text: str, find: Callable[[str], int | None]) -> tuple[Item, ...]:
    items = []
    for word in text.split():
        match = _TYPED.fullmatch(word)
        assert match is not None
        name, segment = match.group(1), int(match.group(2) or 0)
        if name in ("$A", "$B"):
            items.append(Item(name, (), segment))
            continue
        token = find(name)
        if token is None:
            raise ConfigError(
                f"The layout {text!r} names {name!r}, which the vocabulary does not hold."
            )
        items.append(Item(name, (token,), segment))
    return tuple(items)


def read_post_processor(content: Mapping[str, Any] | None) -> Layout:
    """Returns the layout that a tokenizer.json's post_processor describes; raises DataError for a
    kind unknown here."""
    if content is None:
        return Layout()
    kind = content.get("type")
    if kind == "Sequence":
        layouts = [read_post_processor(part) for part in content["processors"]]
        changing = [layout for layout in layouts if layout != Layout()]
        if len(changing) > 1:
            raise DataError("tokenizer.json: two post-processors that both add tokens.")
        return changing[0] if changing else Layout()
    if kind == "ByteLevel":  # only moves offsets
        return Layout()
    if kind in ("BertProcessing", "RobertaProcessing"):
        cls, sep = (Item(content[key][0], (content[key][1],)) for key in ("cls", "sep"))
        a, b = Item("$A"), Item("$B")
        if kind == "RobertaProcessing":
            return Layout((cls, a, sep), (cls, a, sep, sep, b, sep))
        b, last = Item("$B", segment=1), Item(sep.name, sep.ids, 1)
        return Layout((cls, a, sep), (cls, a, sep, b, last))
    if kind == "TemplateProcessing":
        named = content["special_tokens"]

        def items(parts: list[Mapping[str, Any]]) -> tuple[Item, ...]:
            return tuple(
                Item("$" + part["Sequence"]["id"], (), part["Sequence"]["type_id"])
                if "Sequence" in part
                else Item(
                    part["SpecialToken"]["id"],
                    tuple(named[part["SpecialToken"]["id"]]["ids"]),
                    part["SpecialToken"]["type_id"],
                )
                for part in parts
            )

        return Layout(items(content["single"]), items(content["pair"]))
    raise DataError(f"tokenizer.json: the post-processor {kind!r} is not one that zoo knows.")
