"""Schema of Whisper. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.backbones.schema import TransformerConfig
from zoo.errors import ConfigError
from zoo.models.text.schema import TextModelConfig
from zoo.models.whisper.layout import LANGUAGES, Layout
from zoo.registry import kind, part, setting
from zoo.tokenizers.audio.schema import LogMelConfig


@kind("model", "whisper", builds="zoo.models.whisper.model:Whisper")
@dataclass(kw_only=True)
class WhisperConfig(TextModelConfig):
    """Whisper and its relatives: an encoder over windows of sound, a decoder that writes text,
    language, task and times as tokens (Radford et al. 2022, arXiv 2212.04356)."""

    sound: LogMelConfig = part("tokenizer", "log-mel", "sound to the encoder's tokens")
    encoder: TransformerConfig = part(
        "backbone",
        {
            "kind": "transformer",
            "length": 1500,
            "position": {"kind": "sinusoidal", "spacing": "tensor2tensor"},
        },
        "reads the sound",
    )
    decoder: TransformerConfig = part(
        "backbone",
        {
            "kind": "transformer",
            "length": 448,
            "causal": True,
            "position": "learned",
            "cross_attention": "multihead",
        },
        "writes the text",
    )
    vocabulary: int = setting(51865, "rows of the embedding and of the head", low=1)
    languages: int = setting(
        99,
        "languages whose tokens follow the start token, in Whisper's order",
        low=0,
        high=len(LANGUAGES),
    )
    multilingual: bool = setting(
        True, "whether language and task are part of a prompt (the .en models leave them out)"
    )
    alignment_heads: list[list[int]] = setting(
        [],
        "[layer, head] of the cross-attention that follows the words; none: the upper layers' all",
    )

    def check(self) -> None:
        if self.decoder.cross_attention is None:
            raise ConfigError(
                "decoder.cross_attention: a decoder must read the encoder; set it to multihead."
            )
        if self.encoder.length != self.sound.positions:
            raise ConfigError(
                f"encoder.length: {self.sound.seconds} s of sound are {self.sound.positions} "
                f"tokens, not {self.encoder.length}."
            )
        heads = self.decoder.cross_attention.shape(self.decoder.width)[0]
        for place in self.alignment_heads:
            if len(place) != 2 or not (
                0 <= place[0] < self.decoder.depth and 0 <= place[1] < heads
            ):
                raise ConfigError(
                    f"alignment_heads: {place} is no [layer, head] of {self.decoder.depth} layers "
                    f"with {heads} heads."
                )

    @property
    def layout(self) -> Layout:
        """Where the special tokens are. Raises ConfigError for a vocabulary too small for them."""
        return Layout(self.vocabulary, self.languages, self.sound.positions, self.multilingual)

    def inputs(self) -> str:
        """What the model takes, for people."""
        return f"sound in windows of {self.sound.seconds} s, {self.vocabulary:,} text tokens"
