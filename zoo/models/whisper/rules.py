"""What Whisper may write next, as callbacks on the scores (Radford et al. 2022, section 4.5)."""

# b sequences, n tokens, k of them new, v vocabulary

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.generation.logits import NEVER
from zoo.generation.schema import LogitsCallback
from zoo.models.whisper.layout import Layout
from zoo.models.whisper.options import SpeechOptions

if TYPE_CHECKING:
    from zoo.tokenizers.text import TextTokenizer

__all__ = ["TimeRules", "non_speech_tokens", "not_first", "rules_of", "suppressed"]

# Speaker tags, brackets, notes: what subtitles hold and nobody says.
SIGNS = [
    *"\"#()*+/:;<=>@[\\]^_`{|}~「」『』",
    "<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))",
    "[[", "]]", "{{", "}}", "♪♪", "♪♪♪",
]  # fmt: skip
# Of these the first token is forbidden also where they have several: it begins nothing else.
NOTES = "♩♪♫♬♭♮♯"


def rules_of(
    layout: Layout, tokenizer: TextTokenizer, options: SpeechOptions, begin: int, step: float
) -> list[LogitsCallback]:
    """Returns the rules for windows whose prompt has `begin` tokens; a time token is `step`
    seconds."""
    rules: list[LogitsCallback] = []
    if options.suppress_blank:
        blank = not_first(layout, tokenizer)
        rules.append(lambda tokens, scores: _forbid_first(tokens, scores, blank, begin))
    if options.suppress:
        never = suppressed(layout, tokenizer, options.suppress)
        rules.append(lambda tokens, scores: _forbid(scores, never))
    if options.times:
        latest = options.max_first_time
        rules.append(TimeRules(layout, begin, None if latest is None else round(latest / step)))
    return rules


def _forbid(scores: Tensor, tokens: Sequence[int]) -> Tensor:
    return scores.index_fill(-1, torch.tensor(tokens, device=scores.device), NEVER)


def _forbid_first(tokens: Tensor, scores: Tensor, never: Sequence[int], begin: int) -> Tensor:
    return _forbid(scores, never) if tokens.shape[1] == begin else scores


def _ids(tokenizer: TextTokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, special=False)


def suppressed(layout: Layout, tokenizer: TextTokenizer, given: Sequence[int]) -> list[int]:
    """Returns the tokens that are never written: the given ones (-1 stands for signs that are no
    speech) and those that only stand in a prompt."""
    tokens = {token for token in given if token >= 0}
    if -1 in given:
        tokens |= non_speech_tokens(tokenizer)
    tokens |= {layout.transcribe, layout.translate, layout.start, layout.previous}
    return sorted(tokens | {layout.text_only, layout.no_speech})


def not_first(layout: Layout, tokenizer: TextTokenizer) -> list[int]:
    """Returns the tokens that would begin a text blank or end it before it begins."""
    return [*_ids(tokenizer, " "), layout.end]


def non_speech_tokens(tokenizer: TextTokenizer) -> set[int]:
    """Returns the tokens of signs that are no speech; hyphen and apostrophe only where a word would
    begin with them."""
    found = {ids[0] for text in (" -", " '") if (ids := _ids(tokenizer, text))}
    for sign in (*SIGNS, *NOTES):
        for text in (sign, f" {sign}"):
            ids = _ids(tokenizer, text)
            if len(ids) == 1 or (ids and sign in NOTES):
                found.add(ids[0])
    return found


class TimeRules:
    """Times begin a window, come in pairs between which a segment ends, and never go back; where
    they are together more probable than any text, one is written."""

    def __init__(self, layout: Layout, begin: int, latest: int | None) -> None:
        """`latest` is the largest time, in tokens, that the first one may have."""
        self.layout, self.begin, self.latest = layout, begin, latest

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:  # b n, b v -> b v
        first, end = self.layout.first_time, self.layout.end
        scores = scores.clone()
        scores[:, self.layout.no_times] = NEVER
        new = tokens[:, self.begin :]  # b k
        if new.shape[1] == 0:
            scores[:, :first] = NEVER
            if self.latest is not None:
                scores[:, first + self.latest + 1 :] = NEVER
        else:
            is_time = new >= first
            last = is_time[:, -1]
            before = is_time[:, -2] if new.shape[1] > 1 else torch.ones_like(last)
            scores[:, first:].masked_fill_((last & before)[:, None], NEVER)
            scores[:, :end].masked_fill_((last & ~before)[:, None], NEVER)
            # the next one is no earlier, and later unless it opens where the last one closed
            least = torch.where(is_time, new + 1, 0).amax(1) - (last & ~before).long()
            times = torch.arange(first, scores.shape[1], device=scores.device)
            scores[:, first:].masked_fill_(times < least[:, None], NEVER)
        logs = scores.float().log_softmax(-1)
        timely = logs[:, first:].logsumexp(-1) > logs[:, :first].amax(-1)
        scores[:, :first].masked_fill_(timely[:, None], NEVER)
        return scores
