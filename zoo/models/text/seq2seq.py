"""Encoder-decoders over text."""

# b batch, m source tokens, n target tokens, v vocabulary, d width

from __future__ import annotations

from torch import Tensor, nn

from zoo.backbones.transformer import Transformer
from zoo.models.text.common import TextOutput, TokenEmbedding, TokenHead, as_mask
from zoo.models.text.schema import Seq2SeqConfig
from zoo.models.text.verbs import Seq2SeqVerbs
from zoo.nn.attention import Record
from zoo.nn.cache import Cache
from zoo.nn.mask import Mask
from zoo.registry import build

__all__ = ["EncoderDecoder", "Seq2Seq"]


class EncoderDecoder(nn.Module):
    """What every encoder-decoder that writes tokens has: `encoder`, `decoder`, `embedding` (and
    `target_embedding` where the target's is another) and `head`, whatever it reads."""

    embedding: TokenEmbedding
    encoder: Transformer
    decoder: Transformer
    head: TokenHead

    def decode(
        self,
        target: Tensor,  # b n, the new tokens
        memory: Tensor | None,  # b m d; may be None once a cache has kept its keys and values
        source_mask: Tensor | Mask | None = None,
        target_mask: Tensor | Mask | None = None,
        *,
        cache: Cache | None = None,
        record: Record | None = None,
        last: bool = False,
    ) -> TextOutput:
        """Returns scores of what follows each target token."""
        embedding = getattr(self, "target_embedding", self.embedding)
        source = as_mask(source_mask)
        x = self.decoder(
            embedding(target),
            mask=as_mask(target_mask),
            memory=memory,
            memory_mask=source.padding if source is not None else None,
            cache=cache,
            record=record,
        )
        return TextOutput(self.head(x[:, -1:] if last else x, embedding), x)

    def fsdp_units(self) -> list[nn.Module]:
        """Returns what is sharded as a unit."""
        return [*self.encoder.fsdp_units(), *self.decoder.fsdp_units()]


class Seq2Seq(EncoderDecoder, Seq2SeqVerbs):
    """Source and target tokens in, scores of the target's next token out."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.config = config
        encoder, decoder = config.encoder, config.decoder
        target = config.target_vocabulary or config.vocabulary
        self.embedding = TokenEmbedding(config, encoder.width, encoder.init_std, config.vocabulary)
        if not config.shared_embedding:
            self.target_embedding = TokenEmbedding(config, decoder.width, decoder.init_std, target)
        self.encoder = build(encoder)
        self.decoder = build(decoder, memory_width=encoder.width)
        self.head = TokenHead(config, decoder.width, decoder.norm, decoder.init_std, target)

    def forward(
        self,
        source: Tensor,  # b m
        target: Tensor,  # b n
        source_mask: Tensor | Mask | None = None,  # b m, 1 for real tokens
        target_mask: Tensor | Mask | None = None,  # b n
        *,
        record: Record | None = None,
    ) -> TextOutput:
        memory = self.encode(source, source_mask)
        return self.decode(target, memory, source_mask, target_mask, record=record)

    def encode(
        self, source: Tensor, source_mask: Tensor | Mask | None = None, record: Record | None = None
    ) -> Tensor:
        """Returns the memory (b m d) that decoding reads; run it once per source."""
        return self.encoder(self.embedding(source), mask=as_mask(source_mask), record=record)

    def read(
        self, tokens: Tensor, layer: int | None = -1, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:  # b n -> b n d
        """Returns what another model reads of texts: the output of a block of the encoder (-1 the
        last one's, before the norm after it; None what that norm gives), and nothing for a whole
        text."""
        if layer is None:
            return self.encode(tokens, mask), None
        index = layer % self.config.encoder.depth
        record = Record(layers=frozenset({index}))
        self.encode(tokens, mask, record)
        return record.hidden[index], None
