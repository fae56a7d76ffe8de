"""Sockets and signals around the application: it listens, says where, and ends in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from zoo.errors import ConfigError
from zoo.serving.schema import Limits

try:
    import uvicorn

    from zoo.serving.app import Service
except ImportError as error:  # the extra is not there
    raise ConfigError(
        f"Serving needs {error.name or 'starlette'}; pip install 'multimodal-zoo[serve]'."
    ) from None

__all__ = ["running_server", "serve"]

LAST_SECONDS = 5  # from the end of the grace to the end of the process


class Server(uvicorn.Server):
    """uvicorn's, that lets open answers finish for the grace and then tells the others."""

    def __init__(self, service: Service, url: str) -> None:
        grace = service.limits.grace
        config = uvicorn.Config(
            service.app,
            http="h11",
            ws="none",
            loop="asyncio",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=round(grace + LAST_SECONDS),
        )
        super().__init__(config)
        self.service, self.url = service, url

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begins the end on a first signal; a second one makes it immediate."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuses what is new, waits for what is open, and gives up on it after the grace."""
        self.service.drain()
        if self.force_exit:
            self.service.abandon()
        loop = asyncio.get_running_loop()
        last = loop.call_later(self.service.limits.grace, self.service.abandon)
        await super().shutdown(sockets)
        last.cancel()
        self.service.engine.stop()


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=512)


def address(bound: socket.socket) -> str:
    """Returns the http address of a socket."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(
    model: Any,
    name: str,
    limits: Limits,
    host: str = "127.0.0.1",
    port: int = 8000,
    key: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serves a model until SIGINT or SIGTERM; says the address when it listens."""
    with listen(host, port) as bound:
        service = Service(model, name, limits, key)
        say(f"{name} at {address(bound)}/v1")
        Server(service, address(bound)).run([bound])


@contextlib.contextmanager
def running_server(
    model: Any, name: str = "model", limits: Limits | None = None, key: str | None = None
) -> Iterator[Server]:
    """Serves a model in a thread, at a free port of this machine; yields the server, whose `url`
    is its address."""
    with listen("127.0.0.1", 0) as bound:
        server = Server(Service(model, name, limits or Limits(), key), address(bound))
        thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.should_exit = True
            thread.join(server.service.limits.grace + LAST_SECONDS + 5)
