"""Conversations about pictures: what was asked, as a template writes it, as tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zoo.errors import ConfigError, DataError

__all__ = ["MARK", "Asked", "conversation", "encoded", "question_about"]

MARK = "<image>"  # where a picture stands in a text


@dataclass
class Asked:
    """A conversation whose texts have a mark for each of the pictures."""

    messages: list[dict[str, str]]
    pictures: list[Any] = field(default_factory=list)

    def render(self, tokenizer: Any, answer: bool = True) -> str:
        """Returns the text of the conversation in the tokenizer's own template.

        Templates of ours take a text with marks; those that came in a public folder take the parts
        of a message one by one, as transformers' processors give them to them.
        """
        if tokenizer.config.chat is not None:
            return tokenizer.chat(self.messages, answer=answer)
        parted = [{**m, "content": _parts(m["content"])} for m in self.messages]
        return tokenizer.chat(parted, answer=answer)


def question_about(pictures: Any, question: str) -> Asked:
    """Returns a conversation of one question about a picture, a list of them or None. Pictures
    stand where the question has marks, before it when it has none, each on a line of its own."""
    given = as_pictures(pictures)
    if MARK not in question:
        question = f"{MARK}\n" * len(given) + question
    return Asked([{"role": "user", "content": question}], given)


def conversation(messages: Sequence[Mapping[str, Any]], pictures: Any = None) -> Asked:
    """Returns a conversation of texts with marks, or of parts; raises DataError for other content.

    `pictures` stand at the marks of texts, in order; a part of type "image" brings its own.
    """
    waiting = as_pictures(pictures)
    plain, found = [], []
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            count = min(content.count(MARK), len(waiting))
            found += waiting[:count]
            del waiting[:count]
        elif isinstance(content, Sequence):
            content = "".join(_text_of(part, found) for part in content)
        else:
            raise DataError("A message's content is a text, or a list of texts and images.")
        plain.append({"role": str(message.get("role")), "content": content})
    return Asked(plain, found + waiting)


def as_pictures(pictures: Any) -> list[Any]:
    """Returns a list of pictures: of none, of one, or the list itself."""
    if pictures is None:
        return []
    return list(pictures) if isinstance(pictures, (list, tuple)) else [pictures]


def _text_of(part: Any, found: list[Any]) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        return str(part.get("text", ""))
    if kind == "image" and part.get("image") is not None:
        found.append(part["image"])
        return f"{MARK}\n"
    raise DataError(
        'A part of a message is {"type": "text", "text": …} or {"type": "image", "image": picture}.'
    )


def _parts(content: str) -> list[dict[str, str]]:
    """Returns a text with marks as a list of parts."""
    parts: list[dict[str, str]] = []
    for number, text in enumerate(content.split(MARK)):
        if number:
            parts.append({"type": "image"})
            text = text.removeprefix("\n")  # templates write their own
        if text:
            parts.append({"type": "text", "text": text})
    return parts


def encoded(
    tokenizer: Any,
    text: str,
    image_token: int,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
) -> list[int]:
    """Returns the ids of a text, for each mark `image_token` between the tokens `before` and
    `after`.

    A vocabulary that has the mark as a token splits the text by itself; with any other, what stands
    between marks is tokenised alone, as LLaVA's own code does. Raises ConfigError when it lacks one
    of the tokens around pictures.
    """
    ids: list[int] = []
    start, end = (_numbers(tokenizer, names) for names in (before, after))
    for token in _encoded(tokenizer, text, image_token):
        ids += [*start, token, *end] if token == image_token else [token]
    return ids


def _numbers(tokenizer: Any, names: Sequence[str]) -> list[int]:
    numbers = [tokenizer.engine.number(name) for name in names]
    if None in numbers:
        lacking = names[numbers.index(None)]
        raise ConfigError(f"before: the tokenizer has no token {lacking!r} to stand at pictures.")
    return numbers


def _encoded(tokenizer: Any, text: str, image_token: int) -> list[int]:
    if tokenizer.engine.number(MARK) == image_token:
        return tokenizer.encode(text, special=False)
    first, *rest = text.split(MARK)
    ids = list(tokenizer.encode(first, special=False)) if first else []
    for piece in rest:
        ids += [image_token, *(tokenizer.encode(piece, special=False) if piece else ())]
    return ids
