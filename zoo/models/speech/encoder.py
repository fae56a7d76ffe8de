"""From features to what every head reads, and what a whole sound of any length becomes."""

# b batch, t frames, m features, n tokens of sound, d width

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.models.speech.schema import SpeechEncoderConfig
from zoo.nn.attention import Record
from zoo.nn.mask import Mask
from zoo.registry import build

__all__ = ["HeadlessEncoder", "SpeechEncoder", "SpeechOutput"]


@dataclass
class SpeechOutput:
    """What a speech model gives; rows past `lengths` mean nothing."""

    logits: Tensor | None  # b n v; of a transducer b n u+1 v; None without a head
    lengths: Tensor  # b, tokens of sound
    hidden: Tensor  # b n d
    ctc_logits: Tensor | None = None  # b n v, of a transducer with a second head


class SpeechEncoder(nn.Module):
    """The base of speech models: sound, backbone."""

    load_dtype = torch.float32  # shipped weights are stored in bf16, which computes no better

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.sound = build(config.sound, width=config.backbone.width)
        self.backbone = build(config.backbone)

    def encode(
        self,
        features: Tensor,  # b t m, or samples b t
        lengths: Tensor | None = None,  # b; None: all are whole
        record: Record | None = None,
    ) -> tuple[Tensor, Tensor]:  # b n d, b
        """Returns what the heads read, and lengths. No real token depends on what lies past its
        utterance's end."""
        if lengths is None:
            lengths = torch.full(features.shape[:1], features.shape[1], device=features.device)
        x, lengths = self.sound(features, lengths)
        mask = None
        if bool((lengths < x.shape[1]).any()):
            # an utterance of nothing keeps a token, so that its attention has something to see
            real = lengths.clamp(min=1)[:, None]
            mask = Mask(padding=torch.arange(x.shape[1], device=x.device) < real)
        return self.backbone(x, mask=mask, record=record), lengths

    def fsdp_units(self) -> list[nn.Module]:
        """Returns what is sharded as a unit."""
        return self.backbone.fsdp_units()


class HeadlessEncoder(SpeechEncoder):
    """The encoder alone: features in, hidden states out."""

    def forward(
        self,
        features: Tensor,  # b t m
        lengths: Tensor | None = None,  # b
        *,
        record: Record | None = None,
    ) -> SpeechOutput:
        """Raises DataError for features of another width."""
        hidden, lengths = self.encode(features, lengths, record)
        return SpeechOutput(None, lengths, hidden)
