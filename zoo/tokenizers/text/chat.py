"""Chat templates: Jinja of strangers, rendered in a sandbox (see sandbox.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, DataError
from zoo.registry.suggest import hint

__all__ = ["ChatTemplate"]

_FOLDER = Path(__file__).parents[2] / "assets" / "chat"
_REASONING = ("reasoning_content", "thinking", "reasoning")


class ChatTemplate:
    """A conversation to the text that a chat model was trained on.

    `ChatTemplate.named("vicuna-v1.5")` gives one that ships with zoo, `ChatTemplate.names()` what
    there is.
    """

    def __init__(self, source: str) -> None:
        self.source = source

    @staticmethod
    def names() -> list[str]:
        """Returns the names of the templates that ship with zoo."""
        return sorted([*(file.stem for file in _FOLDER.glob("*.jinja")), *_aliases()])

    @classmethod
    def named(cls, name: str) -> ChatTemplate:
        """Returns a template that ships with zoo; raises ConfigError with the nearest name."""
        if name not in cls.names():
            known = ", ".join(cls.names())
            raise ConfigError(
                f"Unknown chat template {name!r}.{hint(name, cls.names(), f'Known: {known}.')}"
            )
        name = _aliases().get(name, name)
        return cls((_FOLDER / f"{name}.jinja").read_text(encoding="utf-8"))

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        answer: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Returns the text of a conversation.

        Args:
            messages: `{"role": "system" | "user" | "assistant" | …, "content": …}` each, at least
                one.
            answer: whether the assistant's turn is opened at the end, for it to answer.
            tools, documents: JSON schemas and texts, for templates that know what to do with them.
            variables: more names that the template may read, such as bos_token.
        Raises: DataError when the template is no Jinja, refuses the conversation, or tries what it
        may not.
        """
        if not messages or not all(isinstance(message, Mapping) for message in messages):
            raise DataError(
                "A conversation is a list of {'role': …, 'content': …}, with at least one entry."
            )
        compiled = _compile(self.source)
        return compiled.render(
            {
                **_plain(variables or {}),
                "messages": [_message(message) for message in messages],
                "tools": _plain(tools),
                "documents": _plain(documents),
                "add_generation_prompt": answer,
            }
        )


@cache
def _aliases() -> dict[str, str]:
    """Returns name -> name of the template that it shares."""
    return json.loads((_FOLDER / "aliases.json").read_text(encoding="utf-8"))


@lru_cache(64)
def _compile(source: str) -> Any:
    from zoo.tokenizers.text.sandbox import SandboxedTemplate

    return SandboxedTemplate(source)


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a plain message without the keys that are null; a thought is found under each of its
    usual names."""
    plain = _plain({key: value for key, value in message.items() if value is not None})
    thought = next((plain[key] for key in _REASONING if key in plain), None)
    if thought is not None:
        plain = {"thinking": thought, **plain, "reasoning_content": thought}
    return plain


def _plain(value: Any) -> Any:
    """Rebuilds a value of JSON's types, so that a template never gets hold of an object with
    methods of its own."""
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value) if kind is not str else str.__str__(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return (
        f"<{type(value).__name__}>"  # a picture, an array: templates ask only whether it is there
    )
