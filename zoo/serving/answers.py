"""What is sent: completions and chat answers, whole and in chunks, as OpenAI's clients read
them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from zoo.generation.batching import Score
from zoo.serving.engine import Event
from zoo.serving.schema import ChatRequest, CompletionRequest

__all__ = ["ChatAnswer", "CompletionAnswer", "sse"]


def sse(value: Any) -> bytes:
    """Returns one server-sent event."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"data: {text}\n\n".encode()


@dataclass
class Choice:
    """One answer, as far as it is there."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)  # characters before each token
    reason: str | None = None


class Answer:
    """What both ways of asking share."""

    whole = chunk = prefix = ""

    def __init__(self, asked: Any, model: str, tokenizer: Any, prompts: list[list[int]]) -> None:
        self.asked, self.model, self.tokenizer = asked, model, tokenizer
        self.prompts = prompts
        self.id, self.created = f"{self.prefix}-{uuid.uuid4().hex}", int(time.time())
        self.counts: dict[int, int] = {}  # tokens of each choice
        self.choices = [Choice() for _ in range(len(prompts) * asked.n)]

    # -- what the two ways do differently ----------------------------------------------------------

    def of_choice(self, index: int, choice: Choice) -> dict[str, Any]:
        """Returns a finished choice."""
        raise NotImplementedError

    def of_piece(self, index: int, text: str, scored: Choice, reason: str | None) -> dict[str, Any]:
        """Returns a choice of a chunk: new text, the tokens that came with it, why it ended."""
        raise NotImplementedError

    def opening(self) -> Iterator[dict[str, Any]]:
        """Yields the chunks before anything is there."""
        return iter(())

    # -- what they share ---------------------------------------------------------------------------

    def take(self, index: int, event: Event) -> dict[str, Any]:
        """Notes news of choice `index`; returns them as a chunk."""
        choice, new = self.choices[index], Choice()
        if event.token is not None and event.score is not None:
            new = Choice("", [event.token], [event.score], [len(choice.text)])
        choice.text += event.text
        choice.reason = event.reason
        for name in ("tokens", "scores", "offsets"):
            getattr(choice, name).extend(getattr(new, name))
        self.counts[index] = event.count
        return self._frame(self.chunk, [self.of_piece(index, event.text, new, event.reason)])

    @property
    def complete(self) -> bool:
        """Whether every choice has ended."""
        return all(choice.reason for choice in self.choices)

    def usage(self) -> dict[str, int]:
        """Returns the tokens read and written; a prompt counts once, however many answers."""
        read, written = sum(map(len, self.prompts)), sum(self.counts.values())
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }

    def full(self) -> dict[str, Any]:
        """Returns the whole answer."""
        choices = [self.of_choice(index, choice) for index, choice in enumerate(self.choices)]
        return {**self._frame(self.whole, choices), "usage": self.usage()}

    def closing(self) -> Iterator[Any]:
        """Yields what comes after the last chunk."""
        if self.asked.usage:
            yield {**self._frame(self.chunk, []), "usage": self.usage()}
        yield "[DONE]"

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def spelt(self, token: int) -> tuple[str, list[int]]:
        """Returns a token's text and bytes, by themselves."""
        spelling = self.tokenizer.id_to_token(token)
        data = self.tokenizer.joining.spell(spelling, False)
        return data.decode("utf-8", "replace"), list(data)


class CompletionAnswer(Answer):
    """The answer to a CompletionRequest; choice i * n + j is answer j to prompt i."""

    whole = chunk = "text_completion"
    prefix = "cmpl"
    asked: CompletionRequest

    def of_choice(self, index: int, choice: Choice) -> dict[str, Any]:
        return self.of_piece(index, choice.text, choice, choice.reason)

    def of_piece(self, index: int, text: str, scored: Choice, reason: str | None) -> dict[str, Any]:
        logs = None
        if self.asked.best is not None:
            logs = {
                "tokens": [self.spelt(token)[0] for token in scored.tokens],
                "token_logprobs": [score.chosen for score in scored.scores],
                "top_logprobs": [
                    {self.spelt(token)[0]: value for token, value in score.best}
                    for score in scored.scores
                ],
                "text_offset": scored.offsets,
            }
        return {"index": index, "text": text, "logprobs": logs, "finish_reason": reason}


class ChatAnswer(Answer):
    """The answer to a ChatRequest."""

    whole, chunk, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"
    asked: ChatRequest

    def opening(self) -> Iterator[dict[str, Any]]:
        for index in range(len(self.choices)):
            delta = {"role": "assistant", "content": ""}
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            yield self._frame(self.chunk, [choice])

    def of_choice(self, index: int, choice: Choice) -> dict[str, Any]:
        message = {"role": "assistant", "content": choice.text, "refusal": None}
        logs, reason = self._logs(choice), choice.reason
        return {"index": index, "message": message, "logprobs": logs, "finish_reason": reason}

    def of_piece(self, index: int, text: str, scored: Choice, reason: str | None) -> dict[str, Any]:
        delta = {"content": text} if text else {}
        logs = self._logs(scored) if scored.tokens else None
        return {"index": index, "delta": delta, "logprobs": logs, "finish_reason": reason}

    def _logs(self, scored: Choice) -> dict[str, Any] | None:
        if self.asked.best is None:
            return None
        content = []
        for token, score in zip(scored.tokens, scored.scores, strict=True):
            best = [self._log(other, value) for other, value in score.best]
            content.append({**self._log(token, score.chosen), "top_logprobs": best})
        return {"content": content, "refusal": None}

    def _log(self, token: int, value: float) -> dict[str, Any]:
        text, data = self.spelt(token)
        return {"token": text, "logprob": value, "bytes": data}
