"""Schemas of the conversations. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.data.schema import Augment, DataConfig
from zoo.registry import kind, section, setting


@dataclass(kw_only=True)
class DialogueConfig(DataConfig):
    """Conversations for a model that answers."""


@kind("data", "llava", builds="zoo.data.dialogue.llava:LlavaData")
@dataclass(kw_only=True)
class LlavaConfig(DialogueConfig):
    """Conversations in LLaVA's JSON format beside a folder of pictures: a list of
    `{"id": …, "image": "cat.jpg", "conversations": [{"from": "human", "value": "<image>\\n…"},
    {"from": "gpt", "value": …}]}`."""

    file: str | None = setting(None, "the JSON file; must be given")
    folder: str | None = setting(None, "where the pictures lie; null: beside the file")
    held_out: float = setting(
        0.01, "share of the conversations held out, by their ids' hash", low=0.0, high=0.9
    )
    length: int = setting(2048, "tokens at most, before pictures take their room", low=2)


@kind("data", "digit-questions", builds="zoo.data.dialogue.digits:DigitQuestionsData")
@dataclass(kw_only=True)
class DigitQuestionsConfig(DialogueConfig):
    """Questions about one to three of the handwritten digits that ship with zoo: which digit, even
    or odd, their sum, how many, whether one is there, which is larger, where."""

    pictures: bool = setting(
        True, "show the scans; false writes words in their place, for a model that only reads"
    )
    most: int = setting(3, "pictures of a question at most", low=2, high=9)
    held_out: int = setting(
        1400, "questions that are measured, about scans never trained on", low=6
    )
    augment: Augment = section(Augment, doc="random changes of the scans, in training only")
    # without pictures
    patches: int = setting(5, "words that stand for a picture", low=1)
    clear: tuple[float, float] = setting(
        [0.2, 0.8], "share of them that say what it is, drawn for each picture", low=0.0, high=1.0
    )
    noise: float = setting(
        0.02, "share of them that say something else; the rest says nothing", low=0.0, high=0.4
    )
