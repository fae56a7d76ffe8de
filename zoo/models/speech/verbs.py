"""What a loaded speech model does with raw sound: transcribe, align."""

# n tokens of sound, d width, v labels

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from zoo.errors import ConfigError, DataError
from zoo.models.speech.align import ctc_align, transducer_align, words_of
from zoo.models.speech.ctc_search import CTCBeam, CTCGreedy
from zoo.models.speech.labels import Label, Scorer
from zoo.models.speech.pieces import Heard, batches, grouped, pieces
from zoo.models.speech.transcript import Transcript, Word, segments_of
from zoo.models.speech.transducer_search import TransducerBeam, TransducerGreedy, hear_together
from zoo.models.text.verbs import ReadsText
from zoo.tokenizers.audio.read import as_list

__all__ = ["CTCVerbs", "TransducerVerbs"]

WINDOW = 120.0  # seconds of sound that are encoded at once; longer sounds go piece by piece
SILENCE = 1e-4  # of full scale (-80 dB): sound that is never louder says nothing


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
            batch_size: sounds that are encoded at once, as far as they fit in a window; the answer
                does not depend on it.
            beams: 1 is greedy; more search that many prefixes.
            score: with beams, what a language model thinks of a label after the labels so far.
            window: seconds that are encoded at once; memory is bounded by it, and beyond it grows
                with the words alone. Longer sounds are encoded in such pieces with 5 s more at both
                sides. None encodes all at once.
            progress: called with (seconds encoded, None: how long it all is shows at its end).
        """
        if batch_size < 1 or beams < 1 or (window is not None and window <= 0):
            raise ConfigError(
                "batch_size and beams must be at least 1, window more than 0 seconds."
            )
        if beams == 1 and score is not None:
            raise ConfigError("score: a greedy search asks no language model; give beams.")
        self._search(beams, score)  # refuses what cannot be done before anything is read
        given, several = as_list(sounds)
        rate, step = self.sound.rate, self.config.sound.seconds_per_token
        searches: dict[int, Any] = {}
        found: list[Any] = [None] * len(given)
        samples, peaks = [0] * len(given), [0.0] * len(given)
        most = batch_size * (window or WINDOW) / step  # tokens that are decoded together
        with self._evaluating():
            for group in grouped(self._heard(given, batch_size, window, progress), most):
                scores: dict[int, list[Tensor]] = {}
                for part in group:
                    scores.setdefault(part.sound, []).append(part.scores)
                    samples[part.sound] += part.samples
                    peaks[part.sound] = max(peaks[part.sound], part.peak)
                for index in scores.keys() - searches.keys():
                    searches[index] = self._search(beams, score)
                heard = [torch.cat(parts) for parts in scores.values()]
                self._hear([searches[index] for index in scores], heard)
                for index in (part.sound for part in group if part.last):
                    labels = searches.pop(index).labels if peaks[index] > SILENCE else []
                    words = words_of(labels, self.tokenizer, step)
                    text = " ".join(word.text for word in words)
                    found[index] = Transcript(text, samples[index] / rate, segments_of(words))
        return found if several else found[0]

    @torch.inference_mode()
    def align(self, sound: Any, text: str, *, window: float | None = WINDOW) -> list[Word]:
        """Returns when each word of a known text was said in one sound.

        Raises: DataError for a text that the model cannot spell or that is too long for the sound.
        """
        labels = self._spelt(text)
        with self._evaluating():
            scores = torch.cat([part.scores for part in self._heard([sound], 8, window)])
            found = self._align(scores, labels)
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

    def _heard(
        self,
        sounds: list[Any],
        batch_size: int,
        window: float | None,
        progress: Callable[[float, float | None], None] | None = None,
    ) -> Iterator[Heard]:
        """Yields what decoding reads of all sounds, piece by piece, reading them as it goes."""
        rate = self.sound.rate
        period = round(self.config.sound.seconds_per_token * rate)  # samples of a token
        cut, done = pieces(sounds, rate, period, window), 0
        for batch in batches(cut, batch_size, rate, window):
            for piece, scores in zip(batch, self._encoded([piece.samples for piece in batch])):
                stop = None if piece.count is None else piece.before + piece.count
                own = scores[piece.before : stop]
                done += piece.new
                yield Heard(piece.sound, own, piece.new, piece.peak, piece.count is None)
            if progress is not None:
                progress(done / rate, None)

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

    def _search(self, beams: int, score: Scorer | None) -> Any:
        """Returns what finds the `labels` of one sound."""
        raise NotImplementedError

    def _hear(self, searches: list[Any], heard: list[Tensor]) -> None:  # each n …
        """Lets searches go on with the next tokens of their sounds."""
        for search, scores in zip(searches, heard, strict=True):
            search.hear(scores)

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

    def _search(self, beams: int, score: Scorer | None) -> Any:
        blank = self.config.blank
        return CTCGreedy(blank) if beams == 1 else CTCBeam(blank, beams, score)

    def _align(self, scores: Tensor, labels: list[int]) -> list[Label]:
        return ctc_align(scores, labels, self.config.blank)


class TransducerVerbs(SpeechVerbs):
    """Decoding reads what the joint hears (n p)."""

    project: Any
    prediction: Any
    joint: Any

    def _scores(self, hidden: Tensor) -> Tensor:
        return self.project(hidden)

    def _search(self, beams: int, score: Scorer | None) -> Any:
        device = next(self.prediction.parameters()).device
        if beams == 1:
            return TransducerGreedy(self, device)
        if self.config.durations:
            raise ConfigError("beams: with durations, transducers are searched greedily; take 1.")
        return TransducerBeam(self, device, beams, score)

    def _hear(self, searches: list[Any], heard: list[Tensor]) -> None:  # each n p
        if isinstance(searches[0], TransducerBeam):
            return super()._hear(searches, heard)
        lengths = [len(one) for one in heard]
        hear_together(searches, pad_sequence(heard, batch_first=True), lengths)

    def _align(self, scores: Tensor, labels: list[int]) -> list[Label]:
        if self.config.durations:
            raise ConfigError("align: this transducer has durations; align with an RNN-T or CTC.")
        said = torch.tensor([[self.config.blank, *labels]], device=scores.device)
        predicted, _ = self.prediction(said)
        logits = self.joint(scores[:, None], predicted)  # n u+1 v
        return transducer_align(logits.float().log_softmax(-1), labels, self.config.blank)
