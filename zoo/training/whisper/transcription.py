"""Transcription: teacher forcing in training, word error rate in measuring."""

# b samples, t frames, m mel filters, n tokens

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from zoo.data.base import Batch, Data
from zoo.data.draw import uniform
from zoo.errors import ConfigError
from zoo.generation.loop import decode
from zoo.generation.schema import options
from zoo.models.text.steps import Seq2SeqSteps
from zoo.models.whisper.labels import timed_tokens
from zoo.training.distributed import unwrap
from zoo.training.speech.common import edits
from zoo.training.speech.normalizer import normalizer
from zoo.training.text.common import TokenObjective
from zoo.training.whisper.schema import TranscriptionConfig

__all__ = ["Transcription"]

IGNORED = -1  # in targets: the prompt, and what fills up


class Transcription(TokenObjective):
    """Batches hold `features` (b t m), `lengths` (b), `targets` (b n) of text tokens,
    `target_lengths` (b) and `texts`. Numbers: `loss` and `accuracy` per token; `wer`, edits over
    words."""

    config: TranscriptionConfig
    metric = "wer"

    def __init__(self, config: TranscriptionConfig) -> None:
        super().__init__(config)
        self.smoothing = config.smoothing
        self.plain = normalizer(config.normalizer)

    def check(self, model: nn.Module, data: Data) -> None:
        """Raises ConfigError unless the model is a Whisper with a language of that name."""
        plain: Any = unwrap(model)
        if getattr(plain.config, "zoo_kind", None) != "whisper":
            raise ConfigError("objective: 'transcription' trains whisper models.")
        self.sound, self.layout = plain.sound, plain.config.layout
        self.prompts = {
            times: self.layout.prompt(self.config.language, "transcribe", times)
            for times in (True, False)
        }

    def higher_is_better(self, name: str) -> bool:
        return name == "accuracy"

    def prepare(self, batch: Batch, seeds: Tensor) -> tuple[dict[str, Any], Tensor, Tensor]:
        config, sound = self.config, self.sound.config
        draws = uniform(seeds.cpu(), 3).tolist()  # timed?, silent?, where in the window
        lengths = batch["lengths"].tolist()
        shifts, rows = [], []
        for index, (timed, silent, place) in enumerate(draws):
            tokens = batch["targets"][index, : batch["target_lengths"][index]].tolist()
            frames = min(lengths[index], sound.frames)
            per_time = sound.frames // sound.positions
            room = (sound.frames - frames) // per_time if config.shift else 0
            shift = int(place * (room + 1)) * per_time
            if silent < config.silent:
                prompt, written, frames = [self.layout.start], [self.layout.no_speech], 0
            elif timed < config.times:
                rate = sound.rate / sound.hop
                span = (shift / rate, (shift + frames) / rate, tokens)
                prompt = self.prompts[True]
                written = timed_tokens(self.layout, [span], sound.seconds)
            else:
                prompt, written = self.prompts[False], [*tokens, self.layout.end]
            shifts.append((shift, frames))
            rows.append((prompt, written))
        device = batch["features"].device
        given = [torch.tensor([*prompt, *written][:-1]) for prompt, written in rows]
        wanted = [torch.tensor([IGNORED] * (len(p) - 1) + w) for p, w in rows]
        targets = pad_sequence(wanted, batch_first=True, padding_value=IGNORED).to(device)
        arguments = {
            "features": self._windows(batch["features"], batch["lengths"], shifts),
            "tokens": pad_sequence(given, batch_first=True).to(device),
        }
        return arguments, targets.clamp(min=0), targets != IGNORED

    def _windows(self, features: Tensor, lengths: Tensor, shifts: list[tuple[int, int]]) -> Tensor:
        """Returns windows (b m t) in which each sound stands at its frame; one without frames is
        silence."""
        windows = self.sound.filled(features, lengths)
        moved = windows[:, :, -1:].expand_as(windows).clone()
        quietest = windows.amin((1, 2))
        for row, (shift, frames) in enumerate(shifts):
            moved[row] = quietest[row]
            moved[row, :, shift : shift + frames] = windows[row, :, :frames]
        return moved

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        sums = super().measure(model, batch)
        plain: Any = unwrap(model)
        features = self.sound.filled(batch["features"], batch["lengths"])
        prompt = torch.tensor([self.prompts[False]] * len(features), device=features.device)
        room = plain.config.decoder.length - prompt.shape[1]
        limit = options(max_new_tokens=room)
        found = decode(Seq2SeqSteps(plain, features), prompt, limit, [self.layout.end])
        wrong = words = 0
        for row, tokens in enumerate(found.tokens):
            if batch["valid"][row]:
                said = self.plain(batch["texts"][row]).split()
                wrong += edits(said, self.plain(plain.text_of(tokens)).split())
                words += len(said)
        return {**sums, "wer": (torch.tensor(wrong), torch.tensor(words))}
