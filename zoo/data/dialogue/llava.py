"""Conversations in LLaVA's JSON format beside a folder of pictures."""

# b samples, t tiles of all pictures, c channels, h w pixels

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.data.dialogue.conversations import answered, collate, encoder
from zoo.data.text.split import in_split
from zoo.errors import DataError
from zoo.models.vlm.prompts import MARK, Asked

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.data.base import Batch, Dataset
    from zoo.data.dialogue.schema import LlavaConfig

__all__ = ["LlavaData", "read_conversation"]

ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


class LlavaData:
    """`data=llava data.file=chat.json data.folder=pictures`: batches of conversations."""

    labels: list[str] = []

    def __init__(self, config: LlavaConfig) -> None:
        if config.file is None:
            raise DataError("data.file: say which JSON file, as in data.file=llava_instruct.json.")
        self.config, self.path = config, Path(config.file).expanduser()
        try:
            entries = json.loads(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}.") from None
        except ValueError as error:
            raise DataError(f"{self.path} is not JSON ({error}).") from None
        if not isinstance(entries, list) or not entries:
            raise DataError(f"{self.path} is not a list of conversations.")
        folder = self.path.parent if config.folder is None else Path(config.folder).expanduser()
        self.samples = [
            (str(_of(entry, "id", number)), read_conversation(entry, folder, self._place(number)))
            for number, entry in enumerate(entries)
        ]

    def _place(self, number: int) -> str:
        return f"{self.path}, entry {number}"

    def split(self, name: str, model: Any = None) -> Dataset:
        """Returns the conversations of `"train"` or `"test"`. Raises DataError when there are none,
        or when they are about pictures and the model sees none."""
        share = self.config.held_out
        chosen = [(key, asked) for key, asked in self.samples if in_split(key, name, share)]
        if not chosen and name == "test":
            chosen = self.samples[:1]  # so few that none was drawn: something must be measured
        if not chosen:
            raise DataError(f"{self.path} holds no conversations for {name}.")
        if not hasattr(model, "see") and any(asked.pictures for _, asked in chosen):
            raise DataError(f"{self.path} is about pictures, and this model sees none.")
        return Conversations(chosen, model, self.config.length)


class Conversations:
    """The conversations of a split; pictures are opened when they are asked for."""

    def __init__(self, samples: list[tuple[str, Asked]], model: Any, length: int) -> None:
        self.samples, self.model, self.length = samples, model, length
        self.encode = encoder(model, getattr(model.config, "image_token", -1))
        self.fill = model.special("pad") or 0

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> Batch:
        """Returns what `collate` does. Raises DataError naming the conversation whose picture
        cannot be read, or whose pictures would be cut off."""
        rows, pixels, sizes = [], [], []
        for index in indices:
            key, asked = self.samples[index]
            ids, answers = answered(asked, self.model.tokenizer, self.encode)
            ids, answers = ids[: self.length], answers[: self.length]
            if asked.pictures:
                mark = self.model.config.image_token
                if ids.count(mark) != len(asked.pictures):
                    raise DataError(
                        f"Conversation {key}: {ids.count(mark)} of its {len(asked.pictures)} "
                        f"pictures fit into data.length={self.length} by the model's template."
                    )
                try:
                    found = self.model.preprocess(asked.pictures)
                except DataError as error:
                    raise DataError(f"Conversation {key}: {error}") from None
                pixels += found[0]
                sizes += found[1]
            rows.append((ids, answers))
        return collate(rows, pixels, sizes, self.fill)


def read_conversation(entry: Any, folder: Path, place: str) -> Asked:
    """Returns a conversation of LLaVA's JSON format; raises DataError saying what is wrong there.

    The mark of a single picture goes to the start of its message, as LLaVA's own code puts it.
    """
    turns = _of(entry, "conversations", None)
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{place}: 'conversations' is no list of turns.")
    images = _of(entry, "image", [])
    pictures = [folder / str(name) for name in (images if isinstance(images, list) else [images])]
    messages = []
    for number, turn in enumerate(turns):
        role, text = ROLES.get(_of(turn, "from", "")), _of(turn, "value", None)
        if role is None or not isinstance(text, str):
            raise DataError(
                f"{place}, turn {number}: needs 'from' (human or gpt) and 'value', a text."
            )
        if len(pictures) == 1 and MARK in text:
            text = f"{MARK}\n{text.replace(MARK, '').strip()}".strip()
        messages.append({"role": role, "content": text})
    marks = sum(message["content"].count(MARK) for message in messages)
    if marks != len(pictures):
        raise DataError(f"{place}: {marks} {MARK} marks for {len(pictures)} pictures.")
    return Asked(messages, list(pictures))


def _of(mapping: Any, key: str, default: Any) -> Any:
    return mapping.get(key, default) if isinstance(mapping, dict) else default
