"""Transducers: what is heard and what was said so far, joined for the next label or none."""

# b batch, t frames, m features, n tokens of sound, u labels so far, v labels, p joint width

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.models.speech.encoder import SpeechEncoder, SpeechOutput
from zoo.models.speech.schema import PredictionConfig, TransducerConfig
from zoo.models.speech.verbs import TransducerVerbs
from zoo.nn.attention import Record
from zoo.nn.feedforward import ACTIVATIONS
from zoo.nn.linear import Embedding, Linear

__all__ = ["Joint", "Prediction", "Transducer"]

State = tuple[Tensor, Tensor]  # of the LSTM, each (layers b p)


class Transducer(SpeechEncoder, TransducerVerbs):
    """Features and the labels so far in, scores of the next label at every token of sound out."""

    config: TransducerConfig

    def __init__(self, config: TransducerConfig) -> None:
        super().__init__(config)
        width, p = config.backbone.width, config.prediction.width
        self.prediction = Prediction(config.prediction, config.vocabulary)
        self.project = Linear(width, p, std=width**-0.5)
        outputs = config.vocabulary + len(config.durations)
        self.joint = Joint(p, outputs, config.prediction.activation)
        self.ctc_head = Linear(width, config.vocabulary, std=0.02) if config.ctc else None

    def forward(
        self,
        features: Tensor,  # b t m
        lengths: Tensor | None = None,  # b
        tokens: Tensor | None = None,  # b u, labels without blanks; None: nothing was said yet
        *,
        record: Record | None = None,
    ) -> SpeechOutput:
        """Returns logits (b n u+1 v), v with the durations at its end; raises DataError for
        features of another width."""
        hidden, lengths = self.encode(features, lengths, record)
        start = torch.full_like(lengths[:, None], self.config.blank)
        said = start if tokens is None else torch.cat([start, tokens], dim=1)
        predicted, _ = self.prediction(said)
        logits = self.joint(self.project(hidden)[:, :, None], predicted[:, None])
        ctc = None if self.ctc_head is None else self.ctc_head(hidden)
        return SpeechOutput(logits, lengths, hidden, ctc)


class Prediction(nn.Module):
    """An LSTM over the labels so far; the blank begins every text."""

    def __init__(self, config: PredictionConfig, vocabulary: int) -> None:
        super().__init__()
        self.width, self.layers = config.width, config.layers
        self.embedding = Embedding(vocabulary, config.width, std=config.width**-0.5)
        self.lstm = LSTM(config.width, config.layers)
        self.out = Linear(config.width, config.width, std=config.width**-0.5)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Returns (what is predicted (b u p), state after the last): (b u) -> (b u p)."""
        x, state = self.lstm(self.embedding(tokens), state)
        return self.out(x), state


class LSTM(nn.Module):
    """PyTorch's, with weights that may be replaced and are filled when asked for."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.width, self.layers = width, layers
        for layer in range(layers):
            for name in ("ih", "hh"):
                weight = nn.Parameter(torch.empty(4 * width, width))
                self.register_parameter(f"weight_{name}_l{layer}", weight)
            for name in ("ih", "hh"):
                bias = nn.Parameter(torch.empty(4 * width))
                self.register_parameter(f"bias_{name}_l{layer}", bias)

    def reset_parameters(self) -> None:
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(self.width**-0.5), self.width**-0.5)

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:  # b u p -> b u p
        if state is None:
            zeros = x.new_zeros(self.layers, x.shape[0], self.width)
            state = zeros, zeros
        weights: list[Tensor] = [*self.parameters()]  # in the order that PyTorch wants them
        out, hidden, cell = torch.lstm(
            x, state, weights, True, self.layers, 0.0, self.training, False, True
        )
        return out, (hidden, cell)


class Joint(nn.Module):
    """head(activation(heard + said))."""

    def __init__(self, width: int, outputs: int, activation: str) -> None:
        super().__init__()
        self.head = Linear(width, outputs, std=width**-0.5)
        self.activation = ACTIVATIONS[activation]

    def forward(self, heard: Tensor, said: Tensor) -> Tensor:  # … p, … p -> … v
        return self.head(self.activation(heard + said))
