"""Long sounds, window by window: what a window's text means for where the next one begins.

A window of 30 s slides over the sound. Its text is tried at rising temperatures until it is good
enough; it is cut into segments where two times meet, and the next window begins where the last
complete segment ended (Radford et al. 2022, section 4.5). Frames are those of the spectrogram.
"""

# m mel filters, t frames

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from zoo.models.speech.transcript import Segment, Transcript
from zoo.models.whisper.decode import Hypothesis
from zoo.models.whisper.options import SpeechOptions
from zoo.models.whisper.pieces import Piece, cut
from zoo.models.whisper.silence import skip_silence
from zoo.models.whisper.timing import time_words

__all__ = ["LongForm"]

HOT = 0.5  # what was drawn at a higher temperature is put before no other window


class LongForm:
    """One sound being transcribed: `window` says what to decode next, `take` what came of it."""

    def __init__(
        self, model: Any, features: Tensor, language: str | None, options: SpeechOptions
    ) -> None:
        """`features` (m t) are the whole sound's, with a window of silence after it."""
        self.model, self.features, self.options = model, features, options
        self.sound, self.layout = model.config.sound, model.config.layout
        self.language = language
        self.content = features.shape[1] - self.sound.frames  # frames that are sound
        self.begin = self.layout.prompt(language, options.task, options.times)
        self.clips = self._clips(options.clips)
        self.clip, self.seek = 0, self.clips[0][0]
        self.before = self._first_prompt()
        self.first = len(self.before)  # tokens that were given, not heard
        self.forgotten = 0  # tokens of `before` that are put before no window any more
        self.last_word = 0.0  # when the last word ended
        self.segments: list[Segment] = []

    def _clips(self, times: list[float]) -> list[tuple[int, int]]:
        points = [round(time * self.rate) for time in times] or [0]
        if len(points) % 2:
            points.append(self.content)
        return list(zip(points[::2], points[1::2]))

    def _first_prompt(self) -> list[int]:
        if self.options.prompt is None:
            return []
        return self.model.tokenizer.encode(f" {self.options.prompt.strip()}", special=False)

    @property
    def rate(self) -> float:
        """Frames of a second."""
        return self.sound.rate / self.sound.hop

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return self.content / self.rate

    @property
    def done(self) -> float:
        """Seconds that are transcribed."""
        return min(self.seek, self.content) / self.rate

    @property
    def size(self) -> int:
        """Frames of the window that are sound."""
        return min(
            self.sound.frames, self.content - self.seek, self.clips[self.clip][1] - self.seek
        )

    # -- what is decoded next ----------------------------------------------------------------------

    def more(self) -> bool:
        """Goes to the next clip where one is over; returns whether anything is left."""
        while self.clip < len(self.clips):
            start, stop = self.clips[self.clip]
            self.seek = max(self.seek, start)
            if self.seek < min(stop, self.content):
                return True
            self.clip += 1
        return False

    def window(self) -> Tensor:  # m t
        """Returns the features of the window, what is no sound in it filled up."""
        part = self.features[:, self.seek : self.seek + self.size].contiguous()
        value = float(self.features[:, -1].min()) if self.sound.fill == "silence" else 0.0
        return F.pad(part, (0, self.sound.frames - part.shape[1]), value=value)

    def prompt(self) -> list[int]:
        """Returns the tokens that the window's text follows."""
        most = self.model.config.decoder.length // 2 - 1
        given, heard = self.before[: self.first], self.before[self.forgotten :]
        if self.options.keep_prompt and given:
            heard = self.before[max(self.first, self.forgotten) :]
            room = most - len(given)
            heard = given + (heard[-room:] if room else heard)
        heard = heard[-most:]
        return [self.layout.previous, *heard, *self.begin] if heard else self.begin

    def good(self, found: Hypothesis) -> bool:
        """Returns whether a text needs no higher temperature."""
        options = self.options
        unsure = (
            options.log_probability is not None and found.log_probability < options.log_probability
        )
        if unsure and options.no_speech is not None and found.no_speech > options.no_speech:
            return True  # silence, of which no temperature makes speech
        repeats = options.compression is not None and found.compression > options.compression
        return not (unsure or repeats)

    # -- what came of it ---------------------------------------------------------------------------

    def take(self, found: Hypothesis, memory: Tensor) -> list[Segment]:
        """Files the text of the window, moves on, and returns its new segments; `memory` (1 s d) is
        what the encoder made of it."""
        if self._silent(found):
            self.seek += self.size
            return []
        seek, size = self.seek, self.size
        pieces, self.seek, closed = cut(
            found, seek, size, self.layout, self.sound, self.model.text_of
        )
        if self.options.words:
            timed = self._time_words(pieces, memory, seek, size, closed)
            if timed is None:
                return []
            pieces = timed
        for piece in pieces:
            if piece.start == piece.stop or not piece.text.strip():
                piece.text, piece.tokens, piece.words = "", [], []
        self.before += [token for piece in pieces for token in piece.tokens]
        if not self.options.condition or found.temperature > HOT:
            self.forgotten = len(self.before)
        new = [piece.segment(found) for piece in pieces]
        self.segments += new
        return new

    def _silent(self, found: Hypothesis) -> bool:
        options = self.options
        if options.no_speech is None or found.no_speech <= options.no_speech:
            return False
        return options.log_probability is None or found.log_probability <= options.log_probability

    def _time_words(
        self, pieces: list[Piece], memory: Tensor, seek: int, size: int, closed: bool
    ) -> list[Piece] | None:
        """Gives the pieces their words and moves the next window to the end of the last one;
        returns None where the window begins anew behind a silence."""
        prompt = self.layout.prompt(self.language, self.options.task, True)
        time_words(
            self.model, memory, pieces, prompt, size, seek / self.rate, self.last_word,
            self.language, self.options,
        )  # fmt: skip
        last = _end(pieces)
        if not closed and last is not None and last > seek / self.rate:
            self.seek = round(last * self.rate)
        if self.options.silence is not None:
            kept = skip_silence(self, pieces, seek, size, closed, self.options.silence)
            if kept is None:
                return None
            pieces = kept
        last = _end(pieces)
        if last is not None:
            self.last_word = last
        return pieces

    def transcript(self) -> Transcript:
        """Returns everything that was heard."""
        text = self.model.text_of(self.before[self.first :])
        segments = tuple(segment for segment in self.segments)
        return Transcript(text, self.seconds, segments, {}, self.language)


def _end(pieces: list[Piece]) -> float | None:
    """Returns when the last word ends, or else the last piece."""
    for piece in reversed(pieces):
        for word in reversed(piece.words or []):
            return word.stop
    return pieces[-1].stop if pieces else None
