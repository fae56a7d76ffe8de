"""Schemas of the speech recognisers. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.backbones.schema import TransformerConfig
from zoo.errors import ConfigError
from zoo.models.schema import ModelConfig
from zoo.nn.schema import Activation
from zoo.registry import kind, part, section, setting
from zoo.tokenizers.schema import TokenizerConfig


@kind("model", "speech-encoder", builds="zoo.models.speech.encoder:HeadlessEncoder")
@dataclass(kw_only=True)
class SpeechEncoderConfig(ModelConfig):
    """Sound to tokens and a stack over them, for heads of other kinds."""

    sound: TokenizerConfig = part("tokenizer", "filterbank", "sound to the encoder's tokens")
    backbone: TransformerConfig = part("backbone", "conformer", "the encoder")

    def check(self) -> None:
        if not hasattr(self.sound, "seconds_per_token"):
            raise ConfigError(
                f"sound: {self.sound.zoo_kind!r} gives no tokens of sound; take filterbank."
            )

    def inputs(self) -> str:
        """What the model takes, for people."""
        return self.sound.inputs()


@dataclass(kw_only=True)
class SpeechConfig(SpeechEncoderConfig):
    """What recognisers share: an encoder, and a vocabulary with a blank."""

    tokenizer: object = part(
        "tokenizer", None, "text to labels; null when the weights' folder holds one"
    )
    vocabulary: int = setting(29, "labels v, the blank among them", low=2)
    blank: int = setting(0, "label that stands for nothing new", low=0)

    def check(self) -> None:
        super().check()
        if self.blank >= self.vocabulary:
            raise ConfigError(f"blank: {self.blank} is none of the {self.vocabulary} labels.")

    def inputs(self) -> str:
        """What the model takes, for people."""
        return f"{super().inputs()}; {self.vocabulary:,} labels"


@kind("model", "ctc", builds="zoo.models.speech.ctc:CTC")
@dataclass(kw_only=True)
class CTCConfig(SpeechConfig):
    """Speech recognisers with CTC: an encoder and a linear head, a label or a blank for every token
    of sound (Graves et al. 2006)."""


@dataclass(kw_only=True)
class PredictionConfig:
    """What a transducer knows of the labels so far, and how it joins that with what it hears."""

    width: int = setting(640, "of the LSTM and of the joint p", low=1)
    layers: int = setting(1, "of the LSTM", low=1)
    activation: Activation = setting("relu", "of the joint")


@kind("model", "transducer", builds="zoo.models.speech.transducer:Transducer")
@dataclass(kw_only=True)
class TransducerConfig(SpeechConfig):
    """Transducers: an encoder, a network over the labels so far and their joint (Graves 2012, arXiv
    1211.3711); with `durations` they are token-and-duration ones (Xu et al. 2023, arXiv
    2304.06795)."""

    prediction: PredictionConfig = section(PredictionConfig, doc="the labels so far")
    durations: list[int] = setting(
        [], "tokens of sound that a label may span; none: a blank goes on by one", low=0
    )
    max_symbols: int = setting(10, "labels at one token of sound, at most", low=1)
    ctc: bool = setting(False, "a CTC head beside it, for training (hybrid)")

    def check(self) -> None:
        super().check()
        if self.durations and max(self.durations) < 1:
            raise ConfigError("durations: one of them must go on.")
