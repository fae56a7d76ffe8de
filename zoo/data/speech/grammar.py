"""What is said, by whom and how fast: a function of (grammar, split, index) and nothing else."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["GRAMMARS", "TEST_VARIANTS", "TRAIN_VARIANTS", "Line", "lines"]

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ROOMS = ("kitchen", "bedroom", "garden", "bathroom", "garage")
THINGS = ("light", "heater", "radio", "fan")
# Sentences whose words the synthesiser times one by one: it runs "on the" and "in the" together.
COMMANDS = (
    ("turn", "the", ROOMS, THINGS, ("on", "off")),
    ("set", "the", ("timer", "alarm"), "to", DIGITS[1:], ("minutes", "hours")),
    ("play", "the", ("next", "last", "first"), ("song", "album")),
    ("call", ("anna", "peter", "maria", "john"), ("now", "later", "tomorrow")),
    (("open", "close"), "every", ("window", "door")),
    ("volume", ("up", "down")),
)
GRAMMARS = ("digits", "commands")

ACCENTS = (
    "en", "en-us", "en-us-nyc", "en-029", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbcwmd",
    "en-gb-x-gbclan",
)  # fmt: skip
# Variants of the synthesiser's voice. Those of the test split are heard nowhere in training.
TRAIN_VARIANTS = (
    "f1", "f2", "f3", "f5", "m1", "m2", "m3", "m4", "m6", "m8", "Alex", "Andy", "Gene", "Mario",
    "Storm", "anika", "belinda", "edward", "linda", "steph",
)  # fmt: skip
TEST_VARIANTS = ("f4", "m5", "m7", "Annie", "Michael", "adam")


@dataclass(frozen=True)
class Line:
    """One utterance to be spoken."""

    text: str
    voice: str  # accent+variant, as the synthesiser calls them
    speed: int  # words a minute
    pitch: int  # 0 to 99


def lines(grammar: str, split: str, count: int) -> list[Line]:
    """Returns the first `count` utterances of a split; more of them begin with the same ones."""
    rng = random.Random(f"{grammar}/{split}")  # whose random() is the same in every Python
    variants = TEST_VARIANTS if split == "test" else TRAIN_VARIANTS
    found = []
    for _ in range(count):
        text = _digits(rng) if grammar == "digits" else _command(rng)
        voice = f"{_choice(rng, ACCENTS)}+{_choice(rng, variants)}"
        found.append(Line(text, voice, 120 + int(rng.random() * 71), 25 + int(rng.random() * 51)))
    return found


def _choice(rng: random.Random, options: tuple) -> str:
    return options[int(rng.random() * len(options))]


def _digits(rng: random.Random) -> str:
    return " ".join(_choice(rng, DIGITS) for _ in range(1 + int(rng.random() * 7)))


def _command(rng: random.Random) -> str:
    pattern = _choice(rng, COMMANDS)
    return " ".join(word if isinstance(word, str) else _choice(rng, word) for word in pattern)
