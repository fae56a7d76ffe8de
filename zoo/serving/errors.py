"""Refusals, in the shape that OpenAI's clients understand. Torch-free."""

from __future__ import annotations

from typing import Any

from zoo.errors import ZooError

__all__ = ["Refusal", "body"]


class Refusal(ZooError):
    """A request that is not answered, with its HTTP status."""

    def __init__(
        self, text: str, status: int = 400, code: str | None = None, wait: int | None = None
    ) -> None:
        """`wait` is in how many seconds trying again makes sense."""
        super().__init__(text)
        self.status, self.code, self.wait = status, code, wait

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that go with it."""
        return {} if self.wait is None else {"Retry-After": str(self.wait)}


KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


def body(text: str, status: int, code: str | None = None) -> dict[str, Any]:
    """Returns the JSON of an error."""
    kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    message = " ".join(text.split())
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
