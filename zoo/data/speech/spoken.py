"""Spoken sentences as a data set: features made once by the model, and its tokens.

The model says how: `model.sound.preprocess([(samples, rate), …])` gives features and lengths,
`model.tokenizer.encode(texts)` the tokens. A batch holds `features` (b t m), `lengths` (b),
`targets` (b u), `target_lengths` (b) and `texts`, a list.
"""

# b batch, t frames, m features, u tokens

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zoo.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.data.base import Batch
    from zoo.data.speech.schema import SpecAugment, SpokenConfig
    from zoo.data.speech.utterances import Utterance

__all__ = ["SpokenData", "SpokenSentences"]


class SpokenData:
    """`data=spoken-digits`, `data=spoken-commands`."""

    labels: list[str] = []

    def __init__(self, config: SpokenConfig) -> None:
        self.config = config

    def split(self, name: str, model: Any = None) -> SpokenSentences:
        """Returns the sentences of "train" or "test", spoken now (some 2 ms each)."""
        from zoo.data.speech.utterances import speak

        config = self.config
        count = config.test if name == "test" else config.train
        utterances = speak(config.grammar, name, count)
        bundle = 1 if name == "test" else config.bundle
        if name != "test" and (config.silence or config.noise):
            from zoo.data.speech.pauses import spread, with_pauses, without_speech

            utterances = [
                with_pauses(one, i, config.silence) if spread(i, config.paused) else one
                for i, one in enumerate(utterances)
            ]
            rate, more = utterances[0].rate, round(config.noise * count)
            utterances += [without_speech(i, rate) for i in range(more)]
        if bundle > 1:  # a stable sort, so that the data is the same everywhere
            utterances = sorted(utterances, key=lambda one: len(one.wave))
        return SpokenSentences(utterances, model, config.augment, bundle)


class SpokenSentences:
    """Utterances, prepared for a model and kept in memory: 300 bytes a frame in fp32."""

    def __init__(
        self,
        utterances: Sequence[Utterance],
        model: Any,
        changes: SpecAugment,
        bundle: int = 1,
    ) -> None:
        import torch

        if not hasattr(model, "sound") or not hasattr(model, "tokenizer"):
            raise DataError(
                "Speech needs a model that hears (`sound`) and has a tokenizer of text."
            )
        self.changes, self.bundle = changes, bundle
        self.texts = [one.text for one in utterances]
        self.features = []
        for one in utterances:  # one by one: a batch of all would be filled up to the longest
            features, lengths = model.sound.preprocess([(one.wave, one.rate)])
            self.features.append(features[0, : int(lengths[0])])
        rows = model.tokenizer.encode(self.texts, special=False)
        self.targets = [torch.tensor(row, dtype=torch.long) for row in rows]

    def __len__(self) -> int:
        return len(self.texts) // self.bundle

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> Batch:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        from zoo.data.draw import mix
        from zoo.data.speech.augment import spec_augment

        if self.bundle > 1:
            indices = [i * self.bundle + j for i in indices for j in range(self.bundle)]
            if seeds is not None:
                seeds = mix(seeds.cpu()[:, None] + torch.arange(self.bundle)).flatten()
        rows = [self.features[i] for i in indices]
        targets = [self.targets[i] for i in indices]
        lengths = torch.tensor([len(row) for row in rows])
        features = pad_sequence(rows, batch_first=True)
        if seeds is not None:
            features = spec_augment(features, lengths, seeds.cpu(), self.changes)
        return {
            "features": features,
            "lengths": lengths,
            "targets": pad_sequence(targets, batch_first=True),
            "target_lengths": torch.tensor([len(row) for row in targets]),
            "texts": [self.texts[i] for i in indices],
        }
