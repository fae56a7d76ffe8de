"""What every model node holds besides its architecture: its weights and its card. Torch-free."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from zoo.errors import ConfigError
from zoo.nn.tuning.schema import TuningConfig
from zoo.registry import part, section, setting


@dataclass(kw_only=True)
class Weights:
    """One set of weights of a node: where it lies and how its names map to ours."""

    repo: str | None = setting(None, "hub repository, org/name")
    folder: str | None = setting(None, "folder of weights that ships with zoo, below zoo/assets")
    revision: str | None = setting(
        None, "commit of the repository, 40 hex digits; null follows main"
    )
    file: str = setting("model.safetensors", "weights file (or its index) in the repository")
    files: dict[str, str] = setting(
        {},
        "instead of `file`, where a model lies in several: what goes before the names inside -> "
        "weights file, {encoder: encoder.pt} makes encoder.layers.0.… of layers.0.…",
    )
    format: str = setting(
        "zoo", "names inside the file: ours, or a public format (see zoo.weights.formats)"
    )
    set: dict[str, Any] = setting({}, "config keys that these weights require, as dotted overrides")
    license: str | None = setting(None, "licence of these weights, when not the card's")

    def patterns(self) -> tuple[str, ...]:
        """Returns what of its repository a load needs: the files, with an index also its shards,
        and the small files beside them (configs, vocabularies)."""
        found = []
        for file in self.files.values() or (self.file,):
            stem, _, ending = file.removesuffix(".index.json").partition(".")
            found += [file, f"{stem}-*.{ending}"] if file.endswith(".index.json") else [file]
        return (*found, "*.json", "*.txt", "*.model", "*.spm", "*.jinja")

    def check(self) -> None:
        if (self.repo is None) == (self.folder is None):
            raise ConfigError("repo: give either a repo or a folder that ships with zoo.")
        if self.revision is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ConfigError(f"revision: must be 40 hex digits, got {self.revision!r}.")


@dataclass(kw_only=True)
class Card:
    """What a person should know before using a model."""

    title: str | None = setting(None, "what people call it")
    summary: str | None = setting(None, "one sentence")
    paper: str | None = setting(None, "arXiv number or address")
    license: str | None = setting(None, "of the weights, an SPDX name")
    data: str | None = setting(None, "what it was trained on")


@dataclass(kw_only=True)
class ModelConfig:
    """The base of every model's schema."""

    zoo_kind: ClassVar[str]

    weights: dict[str, Weights] = setting({}, "tag -> weights; the first is the default")
    bases: dict[str, str | None] = setting(
        {},
        "module -> name of the model whose weights fill it where the own weights do not; 'all' is "
        "the whole model; null: of none; in training also experiment:NAME, which is run first",
    )
    deltas: dict[str, str] = setting(
        {},
        "module -> name of the model whose weights are added to the own ones, where those are "
        "differences to them (the first files of Vicuna and LLaVA)",
    )
    tuning: TuningConfig | None = part("tuning", None, "small trained additions, as LoRA")
    card: Card = section(Card, doc="for people")

    def __post_init__(self) -> None:
        self.bases = {module: name for module, name in self.bases.items() if name is not None}
