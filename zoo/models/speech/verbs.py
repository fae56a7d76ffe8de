"""What a loaded speech model does with raw sound: transcribe, align."""

# n tokens of sound, d width, v labels

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from zoo.errors import ConfigError, DataError
from zoo.models.speech.align import ctc_align, transducer_align, words_of
from zoo.models.speech.decoding import (
    Label,
    Scorer,
    ctc_beam,
    ctc_greedy,
    transducer_beam,
    transducer_greedy,
)
from zoo.models.speech.transcript import Transcript, Word, segments_of
from zoo.models.text.verbs import ReadsText
from zoo.tokenizers.audio.read import as_list, audio_blocks

__all__ = ["CTCVerbs", "TransducerVerbs"]

WINDOW = 120.0  # seconds of sound that are encoded at once; longer sounds go piece by piece
SILENCE = 1e-4  # of full scale (-80 dB): sound that is never louder says nothing
CONTEXT = 5.0  # seconds before and after a piece that are encoded with it and then left out


@dataclass
class _Piece:
    """A stretch of a sound, and which of its tokens count."""

    sound: int
    samples: Tensor
    before: int  # tokens of context at its start
    count: int | None  # tokens that count; None: all that follow


@dataclass
class _Scored:
    """A sound as decoding reads it."""

    scores: Tensor  # n …
    samples: int
    peak: float  # the loudest of them


def _groups(sounds: Iterable[_Scored], most: float) -> Iterator[list[_Scored]]:
    """Yields neighbours that have no more than `most` tokens together."""
    group: list[_Scored] = []
    tokens = 0
    for one in sounds:
        if group and tokens + len(one.scores) > most:
            yield group
            group, tokens = [], 0
        group.append(one)
        tokens += len(one.scores)
    if group:
        yield group


class SpeechVerbs(ReadsText):
    """Mixed into speech models. Every verb takes one raw sound (path, bytes, array, (array, rate))
    or a list of them and answers in kind.

    Raises: DataError for what is no sound, ConfigError for what the model cannot do.
    """

    sound: Any  # the tokenizer of the model
    encode: Any  # (features, lengths) -> hidden, lengths

    @torch.inference_mode()
    def transcribe(
        self,
        sounds: Any,
        *,
        batch_size: int = 8,
        beams: int = 1,
        score: Scorer | None = None,
        window: float | None = WINDOW,
        progress: Callable[[float, float | None], None] | None = None,
    ) -> Any:
        """Returns a Transcript with word times, or a list of them.

        Args:
            batch_size: stretches that are encoded at once; the answer does not depend on it.
            beams: 1 is greedy; more search that many prefixes.
            score: with beams, what a language model thinks of a label after the labels so far.
            window: seconds that are encoded at once; memory is bounded by it. Longer sounds are
                encoded in such pieces with 5 s more at both sides. None encodes all at once.
            progress: called with (seconds encoded, None: how long it all is shows at its end).
        """
        if batch_size < 1 or beams < 1 or (window is not None and window <= 0):
            raise ConfigError(
                "batch_size and beams must be at least 1, window more than 0 seconds."
            )
        if beams == 1 and score is not None:
            raise ConfigError("score: a greedy search asks no language model; give beams.")
        given, several = as_list(sounds)
        tokenizer, rate = self.tokenizer, self.sound.rate
        step = self.config.sound.seconds_per_token
        found = []
        with self._evaluating():
            most = batch_size * (window or WINDOW) / step  # tokens that are decoded together
            for group in _groups(self._scored(given, batch_size, window, progress), most):
                heard = [one.scores[: None if one.peak > SILENCE else 0] for one in group]
                for one, labels in zip(group, self._labels(heard, beams, score), strict=True):
                    words = words_of(labels, tokenizer, step)
                    text = " ".join(word.text for word in words)
                    found.append(Transcript(text, one.samples / rate, segments_of(words)))
        return found if several else found[0]

    @torch.inference_mode()
    def align(self, sound: Any, text: str, *, window: float | None = WINDOW) -> list[Word]:
        """Returns when each word of a known text was said in one sound.

        Raises: DataError for a text that the model cannot spell or that is too long for the sound.
        """
        labels = self._spelt(text)
        with self._evaluating():
            found = self._align(next(self._scored([sound], 8, window)).scores, labels)
        return words_of(found, self.tokenizer, self.config.sound.seconds_per_token)

    def _spelt(self, text: str) -> list[int]:
        """Returns the labels of a text; in lower case where the model knows no capitals."""
        if not isinstance(text, str) or not text.strip():
            raise DataError("There is no text to align.")
        wanted = " ".join(text.split())
        unknown = ""
        for spelling in (wanted, wanted.lower(), wanted.upper()):
            labels = self.tokenizer.encode([spelling], special=False)[0]
            back = self.tokenizer.decode(labels).strip()
            if back == spelling and self.tokenizer.unk_id not in labels:
                return labels
            unknown = unknown or "".join(sorted(set(spelling.lower()) - set(back.lower())))
        raise DataError(
            f"The model cannot spell {unknown or wanted[:40]!r}; write the text as it is spoken."
        )

    # -- sound to scores ---------------------------------------------------------------------------

    def _scored(
        self,
        sounds: list[Any],
        batch_size: int,
        window: float | None,
        progress: Callable[[float, float | None], None] | None = None,
    ) -> Iterator[_Scored]:
        """Yields sound by sound what decoding reads of it."""
        waiting: list[_Piece] = []
        scores: dict[int, list[Tensor]] = {}
        sizes, peaks = [0] * len(sounds), [0.0] * len(sounds)
        done = 0

        def run() -> None:
            for piece, score in zip(waiting, self._encoded([p.samples for p in waiting])):
                stop = None if piece.count is None else piece.before + piece.count
                scores.setdefault(piece.sound, []).append(score[piece.before : stop])
            waiting.clear()
            if progress is not None:
                progress(sum(sizes) / self.sound.rate, None)

        def complete() -> _Scored:
            parts = scores.pop(done)
            whole = torch.cat(parts) if len(parts) > 1 else parts[0]
            return _Scored(whole, sizes[done], peaks[done])

        for index, sound in enumerate(sounds):
            for piece, samples in self._stretches(index, sound, window):
                sizes[index] += samples
                peaks[index] = max(peaks[index], float(piece.samples.abs().max()))
                waiting.append(piece)
                if len(waiting) == batch_size:
                    run()
                    while done < index:  # sounds before this one are complete
                        yield complete()
                        done += 1
        if waiting:
            run()
        while done < len(sounds):
            yield complete()
            done += 1

    def _stretches(
        self, index: int, sound: Any, window: float | None
    ) -> Iterator[tuple[_Piece, int]]:
        """Yields (piece, samples that it adds) of one sound, reading it as it goes."""
        rate = self.sound.rate
        period = round(self.config.sound.seconds_per_token * rate)  # samples of a token
        if window is None:
            samples = torch.cat(list(audio_blocks(sound, rate)))
            yield _Piece(index, samples, 0, None), len(samples)
            return
        count = max(1, round(window * rate / period))  # tokens of a piece
        around = round(CONTEXT * rate / period)
        blocks = audio_blocks(sound, rate, count * period / rate)
        before = torch.zeros(0)
        block: Tensor | None = next(blocks)
        while block is not None:
            following = next(blocks, None)
            after = torch.zeros(0) if following is None else following[: around * period]
            if following is not None and len(following) <= around * period:
                block, after, following = torch.cat([block, following]), torch.zeros(0), None
            last = following is None
            piece = _Piece(
                index,
                torch.cat([before, block, after]),
                len(before) // period,
                None if last else len(block) // period,
            )
            yield piece, len(block)
            before = block[-around * period :]
            block = following

    def _encoded(self, sounds: list[Tensor]) -> Iterator[Tensor]:
        """Yields what decoding reads of each stretch of samples."""
        if not sounds:
            return
        parameter = next(self.parameters())  # type: ignore[attr-defined]
        rows = [self.sound.features(samples.to(parameter.device)) for samples in sounds]
        lengths = torch.tensor([len(row) for row in rows], device=parameter.device)
        features = pad_sequence(rows, batch_first=True)
        hidden, lengths = self.encode(features.to(parameter.dtype), lengths)
        for row, length in zip(self._scores(hidden), lengths.tolist(), strict=True):
            yield row[:length]

    def _scores(self, hidden: Tensor) -> Tensor:
        raise NotImplementedError

    def _labels(self, sounds: list[Tensor], beams: int, score: Scorer | None) -> list[list[Label]]:
        """Returns the labels of each sound."""
        raise NotImplementedError

    def _align(self, scores: Tensor, labels: list[int]) -> list[Label]:
        raise NotImplementedError

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Has the model in eval mode meanwhile."""
        was_training = self.training  # type: ignore[attr-defined]
        self.eval()  # type: ignore[attr-defined]
        try:
            yield
        finally:
            self.train(was_training)  # type: ignore[attr-defined]


class CTCVerbs(SpeechVerbs):
    """Decoding reads log-probabilities (n v)."""

    head: Any

    def _scores(self, hidden: Tensor) -> Tensor:
        return self.head(hidden).float().log_softmax(-1)

    def _labels(self, sounds: list[Tensor], beams: int, score: Scorer | None) -> list[list[Label]]:
        blank = self.config.blank
        if beams == 1:
            return [ctc_greedy(scores, blank) for scores in sounds]
        found = [ctc_beam(scores, blank, beams, score)[0] for scores in sounds]
        return [ctc_align(s, labels, blank) for s, labels in zip(sounds, found, strict=True)]

    def _align(self, scores: Tensor, labels: list[int]) -> list[Label]:
        return ctc_align(scores, labels, self.config.blank)


class TransducerVerbs(SpeechVerbs):
    """Decoding reads what the joint hears (n p)."""

    project: Any
    prediction: Any
    joint: Any

    def _scores(self, hidden: Tensor) -> Tensor:
        return self.project(hidden)

    def _labels(self, sounds: list[Tensor], beams: int, score: Scorer | None) -> list[list[Label]]:
        if beams > 1:
            if self.config.durations:
                raise ConfigError(
                    "beams: with durations, transducers are searched greedily; take 1."
                )
            return [transducer_beam(self, scores, beams, score)[0] for scores in sounds]
        lengths = torch.tensor([len(scores) for scores in sounds])
        return transducer_greedy(self, pad_sequence(sounds, batch_first=True), lengths)

    def _align(self, scores: Tensor, labels: list[int]) -> list[Label]:
        if self.config.durations:
            raise ConfigError("align: this transducer has durations; align with an RNN-T or CTC.")
        said = torch.tensor([[self.config.blank, *labels]], device=scores.device)
        predicted, _ = self.prediction(said)
        logits = self.joint(scores[:, None], predicted)  # n u+1 v
        return transducer_align(logits.float().log_softmax(-1), labels, self.config.blank)
