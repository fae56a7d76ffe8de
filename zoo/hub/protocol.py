"""What the hub's routes are written in: requests, replies, refusals and the table of routes."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import HubError
from zoo.hub.repository import Missing, Repository
from zoo.hub.storage import KINDS

if TYPE_CHECKING:
    from zoo.hub.server import HubServer

__all__ = ["API", "FILES", "USER", "Refusal", "Reply", "Request", "Table", "parse_object"]

USER = "local"  # the one user there is
JSON_LIMIT = 16 << 20
LINE_LIMIT = 48 << 20  # one regular file of a commit, in base64

_REPO = "((?!(?:api|datasets)/)[^/]+/[^/]+)"
API = f"/api/({'|'.join(KINDS)})/{_REPO}"
FILES = f"/(?:({'|'.join(k for k in KINDS if k != 'models')})/)?{_REPO}"


class Refusal(HubError):
    """An answer other than success: status, protocol code and one sentence."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


@dataclass
class Reply:
    """What a route answers: JSON, text, or a file (in full or `part` = first, last + 1)."""

    value: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    file: Path | None = None
    part: tuple[int, int] | None = None


@dataclass
class Request:
    """A request as a route sees it. `open` is true when it may do everything."""

    hub: HubServer
    method: str
    path: str
    query: dict[str, list[str]]
    headers: Any
    base: str
    open: bool
    chunks: Callable[[], Iterator[bytes]]

    def flag(self, name: str) -> bool:
        """A query parameter such as `?recursive=true`."""
        return self.query.get(name, [""])[0].lower() in ("1", "true", "yes")

    def body(self, limit: int = JSON_LIMIT) -> bytes:
        """The whole body, refused beyond `limit` bytes."""
        data = bytearray()
        for chunk in self.chunks():
            data += chunk
            if len(data) > limit:
                raise Refusal(413, f"The request is larger than {limit >> 20} MiB.")
        return bytes(data)

    def json(self) -> dict:
        """The body as a JSON object."""
        return parse_object(self.body() or b"{}")

    def lines(self) -> Iterator[bytes]:
        """The body line by line, each at most `LINE_LIMIT` bytes."""
        rest = bytearray()
        for chunk in self.chunks():
            rest += chunk
            if b"\n" in chunk:
                *whole, tail = rest.split(b"\n")
                yield from (bytes(line) for line in whole if line.strip())
                rest = bytearray(tail)
            if len(rest) > LINE_LIMIT:
                raise Refusal(413, "A file sent inside a commit is too large; send it by LFS.")
        if rest.strip():
            yield bytes(rest)

    def repository(self, kind: str, name: str) -> Repository:
        """The repository asked for; a private one looks missing to who may not read it."""
        with contextlib.suppress(Missing):
            repository = self.hub.storage.repository(kind or "models", name)
            if self.open or not repository.settings()["private"]:
                return repository
        message = f"There is no repository {name} here, or it is private and needs the hub's token."
        raise Refusal(404 if self.open else 401, message, "RepoNotFound")

    def writable(self, kind: str, name: str) -> Repository:
        """The repository asked for, by someone who may change it."""
        repository = self.repository(kind, name)
        self.must_be_open()
        return repository

    def must_be_open(self) -> None:
        """Refuse who may not write."""
        if not self.open:
            raise Refusal(401, "Writing to this hub needs its token; set HF_TOKEN.")

    def page(self, kind: str, name: str) -> str:
        """The address of a repository for people."""
        return f"{self.base}/{'' if kind == 'models' else kind + '/'}{name}"


def parse_object(data: bytes) -> dict:
    """A JSON object out of a request.

    Raises:
        Refusal: 400, it is not one.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Refusal(400, "The request is not a JSON object.")
    return value


Route = Callable[..., Reply]


class Table(list[tuple[tuple[str, ...], re.Pattern[str], Route]]):
    """Routes in the order they are tried."""

    def route(self, methods: str, pattern: str) -> Callable[[Route], Route]:
        """Add a function for methods and a path, whose groups become its arguments."""

        def add(function: Route) -> Route:
            self.append((tuple(methods.split()), re.compile(pattern), function))
            return function

        return add
