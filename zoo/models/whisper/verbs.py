"""What a loaded Whisper does with sound: transcribe, translate, detect_language, stream."""

# m mel filters, t frames, s positions of the encoder, d width

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ConfigError, DataError
from zoo.generation.speculative import Report
from zoo.models.speech.transcript import Segment
from zoo.models.text.verbs import ReadsText
from zoo.models.whisper.decode import Hypothesis, decode_windows, detect
from zoo.models.whisper.draft import Drafting
from zoo.models.whisper.layout import language_code
from zoo.models.whisper.longform import LongForm
from zoo.models.whisper.options import SpeechOptions, speech_options
from zoo.models.whisper.rules import not_first, suppressed
from zoo.tokenizers.audio.read import as_list

__all__ = ["WhisperVerbs"]


class WhisperVerbs(ReadsText):
    """Verbs of Whisper. Every verb takes one raw sound (path, bytes, array, (array, rate)) or a
    list of them and answers in kind.

    Raises: DataError for what is no sound, ConfigError for options that do not exist or that the
    model cannot follow.
    """

    @torch.inference_mode()
    def transcribe(
        self,
        sounds: Any,
        *,
        batch_size: int = 8,
        progress: Callable[[float, float], None] | None = None,
        draft: Any = None,
        **given: Any,
    ) -> Any:
        """Returns a Transcript of any length of sound, or a list of them.

        Args:
            batch_size: sounds whose windows are decoded together; the answer is that of one by one.
            progress: called with (seconds done, seconds of all sounds opened so far).
            draft: a smaller Whisper of the same vocabulary (a distilled one) that guesses what this
                one writes, which then checks many tokens in a pass, window by window; the answer
                stays the same, and `self.report` says what was gained.
            given: options of `zoo.models.whisper.options.SpeechOptions`: language, task, words,
                beams, temperatures, prompt, …
        """
        wanted = self._checked(given)
        drafting = self._drafting(draft, wanted)
        if batch_size < 1:
            raise ConfigError("batch_size must be at least 1.")
        listed, several = as_list(sounds)
        found: list[Any] = [None] * len(listed)
        waiting = list(enumerate(listed))[::-1]
        running: dict[int, LongForm] = {}
        done = total = 0.0
        while waiting or running:
            while waiting and len(running) < batch_size:
                index, sound = waiting.pop()
                running[index] = self._opened(sound, wanted)
                total += running[index].seconds
            for _ in self._round(list(running.values()), wanted, drafting):
                pass
            for index, state in list(running.items()):
                if not state.more():
                    found[index] = running.pop(index).transcript()
                    done += state.seconds
            if progress is not None:
                progress(done + sum(state.done for state in running.values()), total)
        return found if several else found[0]

    def translate(self, sounds: Any, **given: Any) -> Any:
        """Returns a Transcript in English of speech in another language, or a list of them; options
        as for `transcribe`."""
        return self.transcribe(sounds, **{**given, "task": "translate"})

    def stream(self, sound: Any, *, draft: Any = None, **given: Any) -> Iterator[Segment]:
        """Yields the segments of one sound as they are heard; options as for `transcribe`."""
        wanted = self._checked(given)
        drafting = self._drafting(draft, wanted)
        with torch.inference_mode():
            state = self._opened(sound, wanted)
        while state.more():
            with torch.inference_mode():
                new = list(self._round([state], wanted, drafting))
            yield from (segment for segment in new if segment.text)

    @torch.inference_mode()
    def detect_language(self, sounds: Any) -> Any:
        """Returns {code: probability} of what is spoken in the first window of a sound, likeliest
        first, or a list of them."""
        listed, several = as_list(sounds)
        self._needs_languages()
        features = self.sound.windows(listed)  # type: ignore[attr-defined]
        found = detect(self, self._memory(features))
        return found if several else found[0]

    # -- text --------------------------------------------------------------------------------------

    def text_of(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, times and other special ones left out."""
        end = self.config.layout.end
        return self.tokenizer.decode([token for token in tokens if token < end])

    def writing_keys(self) -> dict[str, list[int]]:
        """Returns what an export says of the tokens that are not written, in the words of
        generation_config.json: to other libraries the vocabulary does not tell."""
        try:
            tokenizer = self.tokenizer
        except DataError:  # weights came without one
            return {}
        layout = self.config.layout
        return {
            "suppress_tokens": suppressed(layout, tokenizer, [-1]),
            "begin_suppress_tokens": not_first(layout, tokenizer),
        }

    # -- windows -----------------------------------------------------------------------------------

    def _checked(self, given: dict[str, Any]) -> SpeechOptions:
        wanted = speech_options(given)
        layout = self.config.layout
        if wanted.task == "translate" and not layout.multilingual:
            raise ConfigError("task: this model writes what is said and translates nothing.")
        if wanted.language is not None:
            known = layout.codes if layout.multilingual else ["en"]
            wanted.language = language_code(wanted.language, known)
        self._text_fits()
        return wanted

    def _drafting(self, smaller: Any, wanted: SpeechOptions) -> Drafting | None:
        if smaller is None:
            return None
        if wanted.beams > 1:
            raise ConfigError("draft: guessing takes no beams; leave one of the two out.")
        self.report = Report()
        return Drafting(self, smaller, self.report)

    def _text_fits(self) -> None:
        if self.tokenizer.vocabulary < self.config.layout.end:
            raise DataError(
                f"The tokenizer has {self.tokenizer.vocabulary} tokens and the model writes "
                f"{self.config.layout.end}; it belongs to another model."
            )

    def _needs_languages(self) -> None:
        if not self.config.layout.multilingual:
            raise ConfigError("This model knows one language, and cannot tell others.")

    def _memory(self, features: Tensor) -> Tensor:  # b m t -> b s d
        weight = self.sound.conv1.weight  # type: ignore[attr-defined]
        return self.encode(features.to(weight.device, weight.dtype))  # type: ignore[attr-defined]

    def _opened(self, sound: Any, wanted: SpeechOptions) -> LongForm:
        """Returns a sound's state, its language told by its first window unless given."""
        features = self.sound.file(sound)  # type: ignore[attr-defined]
        language = wanted.language
        if language is None and self.config.multilingual:
            first = features[None, :, : self.config.sound.frames].contiguous()
            language = next(iter(detect(self, self._memory(first))[0]))
        return LongForm(self, features, language or "en", wanted)

    def _round(
        self, states: list[LongForm], wanted: SpeechOptions, drafting: Drafting | None
    ) -> Iterator[Segment]:
        """Decodes one window of every sound and yields the new segments."""
        states = [state for state in states if state.more()]
        if not states:
            return
        windows = torch.stack([state.window() for state in states])
        memory = self._memory(windows)
        draft = None if drafting is None else drafting.beside(windows, memory)
        found: list[Hypothesis | None] = [None] * len(states)
        for temperature in wanted.temperatures:
            open = [i for i, one in enumerate(found) if one is None or not states[i].good(one)]
            for rows in _groups(states, open, temperature):
                prompts = [states[i].prompt() for i in rows]
                chosen, guessing = memory, draft
                if len(rows) < len(states):
                    chosen = memory[rows]
                    guessing = draft and replace(draft, memory=draft.memory[rows])
                better = decode_windows(
                    self, chosen, prompts, wanted, temperature, wanted.seed, guessing
                )
                for i, one in zip(rows, better, strict=True):
                    found[i] = one
        for i, state in enumerate(states):
            best = found[i]
            assert best is not None
            yield from state.take(best, memory[i : i + 1])


def _groups(states: list[LongForm], rows: list[int], temperature: float) -> list[list[int]]:
    """Returns rows that are decoded together: with prompts of one length, and, where samples are
    drawn, each alone, so that what is drawn for a sound does not depend on its neighbours."""
    if temperature > 0:
        return [[row] for row in rows]
    by_length: dict[int, list[int]] = {}
    for row in rows:
        by_length.setdefault(len(states[row].prompt()), []).append(row)
    return list(by_length.values())
