"""Questions about handwritten digits: a picture each, one to three of them, and exact answers.

    question([3, 7], "sum", Dice(0))    # ('what is the sum?', 'ten'), or in other words

Without pictures the same questions are asked about words: where a picture would stand, some words
say what it is, some are mistaken, and most say nothing, as the patches of a picture do. A language
model that was trained on these knows the language of the task and has seen nothing.
"""

# b samples, n digits, c channels, h w pixels

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.data.augment import augment
from zoo.data.dialogue.conversations import answered, collate, encoder
from zoo.data.digits import load_digits
from zoo.data.draw import fold, uniform
from zoo.errors import ConfigError, DataError
from zoo.models.vlm.prompts import question_about

if TYPE_CHECKING:
    from zoo.data.base import Batch, Dataset
    from zoo.data.dialogue.schema import DigitQuestionsConfig

__all__ = ["KINDS", "DigitQuestionsData", "question", "texts"]

KINDS = ("which", "even", "sum", "count", "there", "larger", "place")
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
)  # fmt: skip
PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
NOTHING = " ."  # what a patch says that says nothing
MARK = -1  # in rows of ids, where a picture stands


class Dice:
    """Whole numbers drawn one after another from a seed."""

    def __init__(self, seed: int) -> None:
        self.numbers = iter(uniform(torch.tensor([seed]), 24, stream=5)[0].tolist())

    def __call__(self, sides: int) -> int:
        return int(next(self.numbers) * sides)


def question(digits: Sequence[int], kind: str, dice: Dice) -> tuple[str, str]:
    """Returns (question, answer) of a kind about digits, in one of several wordings."""
    if kind == "which":
        if len(digits) == 1:
            wordings = ["which digit is it?", "what digit do you see?"]
            return wordings[dice(2)], NUMBERS[digits[0]]
        place = dice(len(digits))
        return f"which digit is the {PLACES[place]}?", NUMBERS[digits[place]]
    if kind == "even":
        odd = dice(2)
        asked = f"is it {'odd' if odd else 'even'}?"
        return asked, "yes" if digits[0] % 2 == odd else "no"
    if kind == "sum":
        return ["what is the sum?", "what do they add up to?"][dice(2)], NUMBERS[sum(digits)]
    if kind == "count":
        wordings = ["how many digits are there?", "how many digits do you see?"]
        return wordings[dice(2)], NUMBERS[len(digits)]
    if kind == "there":
        wanted = digits[dice(len(digits))] if dice(2) else dice(10)
        return f"is there a {NUMBERS[wanted]}?", "yes" if wanted in digits else "no"
    left, right = digits
    if kind == "larger":
        larger = "left" if left > right else "right" if right > left else "neither"
        return "which is larger, left or right?", larger
    side = dice(2)
    return f"where is the {NUMBERS[digits[side]]}, left or right?", ("left", "right")[side]


def how_many(kind: str, most: int, dice: Dice) -> int:
    """Returns how many digits a question of a kind is about."""
    if kind in ("which", "count", "there"):
        return 1 + dice(most)
    return 1 if kind == "even" else 2


def texts() -> list[str]:
    """Returns the words of all questions and answers, for a vocabulary."""
    said = [question([3], "which", Dice(seed))[0] for seed in range(8)]
    said += [f"which digit is the {place}?" for place in PLACES]
    said += ["is it odd?", "is it even?", "what is the sum?", "what do they add up to?"]
    said += ["how many digits are there?", "which is larger, left or right?"]
    for word in NUMBERS[:10]:
        said.append(f"how many times is there a {word}?")
        said.append(f"where is the {word}, left or right?")
    answers = [*NUMBERS, "yes", "no", "left", "right", "neither"]
    return [*said, *answers, *(f" {word}" for word in answers), NOTHING * 4]


class DigitQuestionsData:
    """`data=digit-questions`: batches of conversations; `kind` (b) is a number of `kinds`."""

    labels: list[str] = []

    def __init__(self, config: DigitQuestionsConfig) -> None:
        self.config = config

    def split(self, name: str, model: Any = None) -> Dataset:
        """Returns the questions of `"train"` or `"test"`. Raises ConfigError for pictures without
        a model that sees them, DataError for a tokenizer that has no word for a digit."""
        sees = hasattr(model, "see")
        if self.config.pictures != sees:
            raise ConfigError(
                "data.pictures: this model sees none; set data.pictures=false."
                if self.config.pictures
                else "data.pictures: false writes words for a model that only reads."
            )
        return DigitQuestions(self.config, name, model)


class DigitQuestions:
    """The questions of a split; one of the training split is drawn anew from its seed."""

    def __init__(self, config: DigitQuestionsConfig, split: str, model: Any) -> None:
        self.config, self.split, self.model = config, split, model
        self._rows: dict[tuple[int, str, str], tuple[list[int], list[bool]]] = {}
        images, labels = load_digits(split)  # type: ignore[arg-type]
        self.labels = torch.from_numpy(labels)
        self.encode = encoder(model, MARK if not config.pictures else model.config.image_token)
        self.fill = model.special("pad") or 0
        if config.pictures:
            self.pixels = torch.cat(model.preprocess(list(images))[0])
            self.size = images.shape[1:]
        else:
            ids = [model.tokenizer.encode(f" {word}", special=False) for word in NUMBERS[:10]]
            ids.append(model.tokenizer.encode(NOTHING, special=False))
            if any(len(one) != 1 for one in ids):
                raise DataError("data: the vocabulary needs one token for each digit and for '.'.")
            self.words = torch.tensor(ids)[:, 0]

    def __len__(self) -> int:
        return 10 * len(self.labels) if self.split == "train" else self.config.held_out

    def sample(self, index: int, seed: int | None = None) -> tuple[str, list[int], str, str]:
        """Returns (kind, scans, question, answer)."""
        dice = Dice(fold(index, 1) if seed is None else seed)
        kind = KINDS[dice(len(KINDS)) if seed is not None else index % len(KINDS)]
        count = how_many(kind, self.config.most, dice)
        scans = [dice(len(self.labels)) for _ in range(count)]
        while kind == "place" and self.labels[scans[0]] == self.labels[scans[1]]:
            scans[1] = (scans[1] + 1) % len(self.labels)
        digits = [int(self.labels[scan]) for scan in scans]
        return kind, scans, *question(digits, kind, dice)

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> Batch:
        """Returns what `collate` does, `kind` (b) and `kinds`."""
        drawn = [None] * len(indices) if seeds is None else seeds.tolist()
        samples = [self.sample(i, seed) for i, seed in zip(indices, drawn, strict=True)]
        rows = [self.written(len(scans), asked, answer) for _, scans, asked, answer in samples]
        every = torch.tensor([scan for _, scans, _, _ in samples for scan in scans])
        own = [fold(i, 2) if seed is None else seed for i, seed in zip(indices, drawn, strict=True)]
        counts = [len(scans) for _, scans, _, _ in samples]
        each = [fold(s, k) for s, count in zip(own, counts, strict=True) for k in range(count)]
        if self.config.pictures:
            pixels = self.pixels[every]
            if seeds is not None:
                pixels = augment(pixels, torch.tensor(each), self.config.augment)
            batch = collate(rows, [pixels], [self.size] * len(every), self.fill)
        else:
            said = self.patches(self.labels[every], torch.tensor(each)).tolist()
            batch = collate(_written(rows, said), fill=self.fill)
        kinds = torch.tensor([KINDS.index(kind) for kind, *_ in samples])
        return {**batch, "kind": kinds, "kinds": KINDS}

    def written(self, count: int, asked: str, answer: str) -> tuple[list[int], list[bool]]:
        """Returns `answered` of a question about so many pictures; there are a few hundred."""
        key = (count, asked, answer)
        if key not in self._rows:
            dialogue = question_about([None] * count, asked)
            dialogue.messages.append({"role": "assistant", "content": answer})
            self._rows[key] = answered(dialogue, self.model.tokenizer, self.encode)
        return self._rows[key]

    def patches(self, digits: Tensor, seeds: Tensor) -> Tensor:  # n, n -> n patches
        """Returns words in place of pictures: at least one says what it is."""
        count = self.config.patches
        low, high = self.config.clear
        drawn = uniform(seeds, 2 * count + 2, stream=6)
        clear = low + (high - low) * drawn[:, :1]
        noise = self.config.noise * drawn[:, 1:2] * 2 * clear
        what, other = drawn[:, 2 : 2 + count], (drawn[:, 2 + count :] * 10).long()
        says = torch.where(what < clear, digits[:, None], torch.where(what > 1 - noise, other, 10))
        says[:, 0] = torch.where((says == digits[:, None]).any(1), says[:, 0], digits)
        return self.words[says]


def _written(
    rows: list[tuple[list[int], list[bool]]], said: list[list[int]]
) -> list[tuple[list[int], list[bool]]]:
    """Returns the rows with words in place of marks."""
    waiting = iter(said)
    found = []
    for ids, places in rows:
        row: list[int] = []
        answer: list[bool] = []
        for token, place in zip(ids, places, strict=True):
            words = next(waiting) if token == MARK else [token]
            row += words
            answer += [place] * len(words)
        found.append((row, answer))
    return found
