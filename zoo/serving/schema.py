"""What a client may ask, and what a server allows. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from zoo.errors import ConfigError
from zoo.generation.schema import DecodingOptions, options
from zoo.registry import setting
from zoo.registry.typed import validate

__all__ = ["ChatRequest", "CompletionRequest", "Limits", "read_request"]


@dataclass(kw_only=True)
class Limits:
    """What a server takes on. Whatever is more is refused with a reason, never half done."""

    running: int = setting(16, "sequences decoded together", low=1)
    requests: int = setting(64, "requests taken on at a time; more are told to come back", low=1)
    prompt: int | None = setting(
        None, "tokens of a prompt at most; null: the model's context", low=1
    )
    tokens: int = setting(2048, "new tokens of an answer at most", low=1)
    choices: int = setting(16, "answers of a request at most (prompts times n)", low=1)
    body: int = setting(1 << 20, "bytes of a request at most", low=1)
    memory: int = setting(1024, "MiB for keys and values", low=1)
    page: int = setting(16, "tokens of a page of keys and values", low=1)
    chunk: int = setting(256, "prompt tokens read between two steps of the others", low=1)
    keep: int = setting(16, "finished requests whose prompts may go on, while there is room", low=0)
    seconds: float = setting(600.0, "an answer may take so long, waiting included", above=0.0)
    grace: float = setting(20.0, "seconds that answers get to finish after SIGTERM", low=0.0)


@dataclass(kw_only=True)
class _Request:
    """What both ways of asking share. Keys without effect here are taken when they ask for
    nothing."""

    model: str | None = setting(None, "the served model's name; null is it too")
    max_tokens: int | None = setting(None, "new tokens at most", low=1)
    n: int = setting(1, "answers to each prompt", low=1)
    stream: bool = setting(False, "whether the answer comes in pieces")
    stream_options: dict[str, Any] | None = setting(None, "include_usage: true counts at the end")
    stop: str | list[str] | None = setting(None, "texts that end the answer")
    seed: int | None = setting(None, "the same seed draws the same; answer i of n has seed + i")
    temperature: float | None = setting(None, "0 is greedy; 1 unless given", low=0.0, high=10.0)
    top_p: float | None = setting(None, "the most probable tokens that make up p", above=0, high=1)
    # beyond OpenAI's (`extra_body` of its client)
    top_k: int | None = setting(None, "only the k most probable tokens", low=1)
    min_p: float | None = setting(None, "only p times as probable as the best", low=0, high=1)
    typical: float | None = setting(None, "only near the expected surprise", above=0, high=1)
    repetition_penalty: float = setting(1.0, "divides scores of tokens already there", above=0.0)
    min_tokens: int = setting(0, "no end before so many", low=0)
    ignore_eos: bool = setting(False, "go on to max_tokens; for measuring")
    # taken, without effect
    user: str | None = setting(None, "ignored")
    metadata: dict[str, Any] | None = setting(None, "ignored")
    store: bool | None = setting(None, "ignored")
    service_tier: str | None = setting(None, "ignored")
    # known, and refused when they ask for something
    frequency_penalty: float | None = setting(None, "only 0")
    presence_penalty: float | None = setting(None, "only 0")
    logit_bias: dict[str, Any] | None = setting(None, "only empty")

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])

    @property
    def usage(self) -> bool:
        """Whether a stream ends with what it used."""
        return bool((self.stream_options or {}).get("include_usage"))

    def check(self) -> None:
        if len(self.stops) > 16 or any(not 0 < len(stop) <= 256 for stop in self.stops):
            raise ConfigError("stop: at most 16 texts of 1 to 256 characters.")
        for key in sorted(self.neutral):
            if getattr(self, key) not in self.neutral[key]:
                raise ConfigError(f"{key}: this server cannot do it; leave it out.")

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {
        "frequency_penalty": (None, 0),
        "presence_penalty": (None, 0),
        "logit_bias": (None, {}),
    }

    def decoding(self, most: int, index: int) -> DecodingOptions:
        """Returns the options of answer `index`, of `most` tokens."""
        heat = 1.0 if self.temperature is None else self.temperature
        given: dict[str, Any] = {
            "max_new_tokens": most,
            "min_new_tokens": min(self.min_tokens, most),
            "temperature": heat,
            "repetition_penalty": self.repetition_penalty,
        }
        if heat > 0:
            names = ("top_p", "top_k", "min_p", "typical")
            given |= {name: getattr(self, name) for name in names}
        if self.seed is not None:
            given["seed"] = self.seed + index
        return options(given)


@dataclass(kw_only=True)
class CompletionRequest(_Request):
    """POST /v1/completions"""

    prompt: Any = setting(doc="a text, a list of them, a list of tokens, or a list of such lists")
    logprobs: int | None = setting(None, "log-probabilities of so many best", low=0, high=20)
    echo: bool | None = setting(None, "only false")
    suffix: str | None = setting(None, "only null")
    best_of: int | None = setting(None, "only n")

    neutral = {**_Request.neutral, "echo": (None, False), "suffix": (None, "")}

    DEFAULT = 16  # tokens, as OpenAI has it

    def check(self) -> None:
        super().check()
        if self.best_of not in (None, self.n):
            raise ConfigError("best_of: this server draws n answers and returns them all.")

    @property
    def best(self) -> int | None:
        """How many alternatives of each token are asked for; None: not even its own score."""
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts as a list."""
        given = self.prompt
        if isinstance(given, str) or (given and _tokens(given)):
            return [given]
        if (
            isinstance(given, list)
            and given
            and all(isinstance(p, str) or _tokens(p) for p in given)
        ):
            return given
        raise ConfigError("prompt: a text, a list of texts, a list of tokens, or a list of those.")


def _tokens(value: Any) -> bool:
    return isinstance(value, list) and all(type(token) is int for token in value)


@dataclass(kw_only=True)
class ChatRequest(_Request):
    """POST /v1/chat/completions"""

    messages: list[dict[str, Any]] = setting(doc="role and content of each turn")
    max_completion_tokens: int | None = setting(None, "the newer name of max_tokens", low=1)
    logprobs: bool | None = setting(None, "whether log-probabilities are wanted")
    top_logprobs: int | None = setting(None, "and of so many best", low=0, high=20)
    response_format: dict[str, Any] | None = setting(None, 'only {"type": "text"}')
    tools: list[Any] | None = setting(None, "only empty")
    tool_choice: Any = setting(None, "only none or auto")
    parallel_tool_calls: bool | None = setting(None, "ignored")

    neutral = {
        **_Request.neutral,
        "response_format": (None, {"type": "text"}),
        "tools": (None, []),
        "tool_choice": (None, "none", "auto"),
    }

    DEFAULT = None  # tokens: as many as there is room for

    def check(self) -> None:
        super().check()
        if self.max_tokens is None:
            self.max_tokens = self.max_completion_tokens
        if self.top_logprobs and not self.logprobs:
            raise ConfigError("top_logprobs: it needs logprobs=true.")

    @property
    def best(self) -> int | None:
        """How many alternatives of each token are asked for; None: not even its own score."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def turns(self) -> list[dict[str, Any]]:
        """The messages with their text parts joined; pictures and sounds are refused."""
        return [{**m, "content": _text(m, i)} for i, m in enumerate(self.messages)]


def _text(message: Mapping[str, Any], index: int) -> str:
    if not isinstance(message.get("role"), str):
        raise ConfigError(f"messages.{index}.role: must be given (system, user or assistant).")
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts: list[str] = []
    for part in parts:
        says = isinstance(part, Mapping) and part.get("type") == "text"
        text = part.get("text") if says else None
        if not isinstance(text, str):
            raise ConfigError(f"messages.{index}.content: this server reads text only.")
        texts.append(text)
    return "".join(texts)


def read_request(schema: type, given: Any) -> Any:
    """Returns a checked request; raises ConfigError naming the key. A null is as good as
    nothing."""
    if not isinstance(given, Mapping):
        raise ConfigError("The body must be a JSON object.")
    names = {field.name for field in fields(schema)}
    kept = {k: v for k, v in given.items() if v is not None or k not in names}
    return validate(schema, kept)
