"""Whisper: windows of sound through an encoder, text out of a decoder that reads it."""

# b batch, m mel filters, t frames, s positions of the encoder, n tokens, v vocabulary, d width

from __future__ import annotations

from torch import Tensor

from zoo.models.text.common import TextOutput, TokenEmbedding, TokenHead
from zoo.models.text.seq2seq import EncoderDecoder
from zoo.models.whisper.schema import WhisperConfig
from zoo.models.whisper.verbs import WhisperVerbs
from zoo.nn.attention import Record
from zoo.nn.mask import Mask
from zoo.registry import build

__all__ = ["Whisper"]


class Whisper(EncoderDecoder, WhisperVerbs):
    """Features of a window of sound and the tokens so far in, scores of the next token out."""

    # layers that multiply all tokens of a window at once
    reads_windows = ("encoder.*", "decoder.*.cross_attention.kv")

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        encoder, decoder = config.encoder, config.decoder
        self.sound = build(config.sound, width=encoder.width)
        self.encoder = build(encoder)
        self.embedding = TokenEmbedding(config, decoder.width, decoder.init_std, config.vocabulary)
        self.decoder = build(decoder, memory_width=encoder.width)
        self.head = TokenHead(
            config, decoder.width, decoder.norm, decoder.init_std, config.vocabulary
        )

    def forward(
        self,
        features: Tensor,  # b m t
        tokens: Tensor,  # b n
        mask: Tensor | Mask | None = None,  # b n, 1 for real tokens
        *,
        record: Record | None = None,
    ) -> TextOutput:
        """Raises DataError for features of another size than a window's."""
        return self.decode(tokens, self.encode(features), None, mask, record=record)

    def encode(self, features: Tensor, record: Record | None = None) -> Tensor:  # b m t -> b s d
        """Returns the memory that decoding reads; run it once per window."""
        return self.encoder(self.sound(features), record=record)
