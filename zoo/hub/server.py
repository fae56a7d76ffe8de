"""A small real hub: the part of the Hugging Face protocol that models need, from one folder.

The unmodified `huggingface_hub` client (and so transformers, timm and `hf`) creates, pushes, tags,
branches, opens and merges pull requests, lists and pulls here, with `HF_ENDPOINT` set to this
server's address.

It is for one person, or for people who trust each other. It listens on this machine only unless
told otherwise, and then it wants a token. One token opens everything: there are no users, no quotas
and no encryption; put a proxy with TLS in front before it crosses a network. Without a token anyone
who reaches the port may read and write, so private repositories are refused. History is kept:
deleting a file does not free its space, deleting the repository does.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from zoo.errors import HubError
from zoo.hub import pushing, reading, repositories
from zoo.hub.protocol import Refusal, Reply, Request
from zoo.hub.repository import Conflict, Missing
from zoo.hub.storage import Storage
from zoo.hub.xet import XetUploads

__all__ = ["Handler", "HubServer", "running_hub", "serve"]

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_CHUNK = 1 << 20
_LINGER_SECONDS, _LINGER_BYTES = 2.0, 64 << 20
_ROUTES = [*repositories.ROUTES, *pushing.ROUTES, *reading.ROUTES]


class Handler(BaseHTTPRequestHandler):
    """HTTP around the routes: who asks, what the body is, how the answer is sent."""

    protocol_version = "HTTP/1.1"
    server_version = "zoo-hub"
    sys_version = ""
    disable_nagle_algorithm = True  # or every small answer waits 40 ms for an acknowledgement
    timeout = 120  # seconds a silent connection is kept
    hub: HubServer  # set by HubServer
    rfile: BufferedReader

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def answer(self) -> None:
        """Find the route, run it and send its reply; a failure is answered with one sentence."""
        self._left: int | None = None  # bytes of the body not read yet, None before it is looked at
        try:
            reply = self.reply()
        except Refusal as error:
            headers = {"X-Error-Message": _header(str(error)), **error.headers}
            if error.code:
                headers["X-Error-Code"] = error.code
            reply = Reply({"error": str(error)}, error.status, headers)
        except Missing as error:
            reply = Reply({"error": str(error)}, 404, {"X-Error-Code": error.code})
        except Conflict as error:
            reply = Reply({"error": str(error)}, error.status)
        except HubError as error:
            reply = Reply({"error": str(error)}, 400)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            return
        except OSError as error:
            full = error.errno in (28, 122)  # ENOSPC, EDQUOT
            text = "The hub's disk is full." if full else "The hub cannot read or write its folder."
            self.hub.say(f"{text} {error.strerror}: {error.filename}")
            reply = Reply({"error": text}, 507 if full else 500)
        except Exception as error:
            self.hub.say(f"{self.command} {urlsplit(self.path).path} failed: {error!r}")
            reply = Reply({"error": "The hub failed; its log says why."}, 500)
        try:
            self.send(reply)
        except OSError:  # the client left, or the file went with its repository
            self.close_connection = True

    def reply(self) -> Reply:
        """The route's answer."""
        self._guard()
        url = urlsplit(self.path)
        request = Request(
            self.hub,
            self.command,
            url.path,
            parse_qs(url.query),
            self.headers,
            f"{self._scheme()}://{self.headers.get('Host')}",
            self.hub.admits(self.headers.get("Authorization")),
            self._chunks,
        )
        for methods, pattern, route in _ROUTES:
            match = pattern.fullmatch(url.path)
            if match and self.command in methods:
                wrong = self.hub.token and self.headers.get("Authorization") and not request.open
                if wrong:
                    raise Refusal(401, "Invalid credentials in Authorization header")
                return route(request, *(unquote(part or "") for part in match.groups()))
        raise Refusal(404, f"This hub does not know {self.command} {url.path}.")

    def send(self, reply: Reply) -> None:
        """Send an answer; after a body not read to its end, close, or it reads as a request."""
        data = b""
        kind = "application/octet-stream"
        if reply.file is None and isinstance(reply.value, str):
            data, kind = reply.value.encode(), "text/plain; charset=utf-8"
        elif reply.file is None:
            data, kind = json.dumps(reply.value).encode(), "application/json"
        first, end = reply.part or (0, reply.file.stat().st_size if reply.file else len(data))
        if self._left is None:
            with contextlib.suppress(Refusal):
                self._left = self._length()
        if self._left != 0:
            self.close_connection = True
        self.send_response(reply.status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(end - first))
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            pass
        elif reply.file is None:
            self.wfile.write(data)
        elif end > first:
            with open(reply.file, "rb") as file:
                self.wfile.flush()
                self.connection.sendfile(file, first, end - first)
        if self._left != 0:
            self._linger()

    def _linger(self) -> None:
        """Read on for a while: closing at once would tear the answer away from who still sends."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(_LINGER_SECONDS)
        left = _LINGER_BYTES
        while left > 0 and (piece := self.rfile.read1(_CHUNK)):
            left -= len(piece)

    def log_message(self, format: str, *args: Any) -> None:
        """One line per request, without the query string (it may carry a signature)."""
        line = re.sub(r"\?\S*", "", format % args)
        self.hub.log("".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line))

    def _scheme(self) -> str:
        """How the client reached us: a proxy in front may speak TLS."""
        return "https" if self.headers.get("X-Forwarded-Proto") == "https" else "http"

    def _guard(self) -> None:
        """Refuse web pages: a page open in a browser can send requests to this machine, too."""
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        if self.hub.local and host not in _LOOPBACK:
            raise Refusal(403, f"This hub answers on this machine only, not as {host!r}.")
        if self.headers.get("Origin") or self.headers.get("Sec-Fetch-Site") == "cross-site":
            raise Refusal(403, "This hub does not answer web pages.")

    def _chunks(self) -> Iterator[bytes]:
        """The body in pieces, whether its length is announced or it comes chunked."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            self._left = 1
            while size := _number(self.rfile.readline(100).split(b";")[0].strip(), 16):
                while size:
                    piece = self._read(min(size, _CHUNK))
                    size -= len(piece)
                    yield piece
                self.rfile.readline(100)
            while self.rfile.readline(1000).strip():
                pass
            self._left = 0
            return
        self._left = self._length()
        while self._left:
            piece = self._read(min(self._left, _CHUNK))
            self._left -= len(piece)
            yield piece

    def _length(self) -> int:
        return _number((self.headers.get("Content-Length") or "0").encode(), 10)

    def _read(self, size: int) -> bytes:
        piece = self.rfile.read1(size)
        if not piece:
            raise ConnectionError("the client stopped in the middle of a request")
        return piece


def _number(text: bytes, base: int) -> int:
    """A length as HTTP writes it: digits and nothing else."""
    if not re.fullmatch(rb"[0-9a-fA-F]{1,15}" if base == 16 else rb"[0-9]{1,18}", text):
        raise Refusal(400, "The request's length is not a number.")
    return int(text, base)


def _header(text: str) -> str:
    return text.encode("ascii", "replace").decode().replace("\n", " ").replace("\r", " ")[:500]


class HubServer:
    """The hub as an object: `start()`, `url`, `stop()`; also a context manager.

    Args:
        root: the folder that holds everything.
        host, port: where to listen; port 0 takes a free one.
        token: what clients must send as HF_TOKEN to write, and to read what is private.
        xet: let clients on this machine upload by Xet (see `zoo.hub.xet`); None: if possible.
        handler: answers requests; tests put faults into it.
        say: called with a line when something is wrong; `log`: with a line per request.

    Raises:
        HubError: the folder is in use or not writable, the address is taken, or there is no token
            while the hub would listen beyond this machine.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        *,
        xet: bool | None = None,
        handler: type[Handler] = Handler,
        say: Callable[[str], None] = print,
        log: Callable[[str], None] = lambda line: None,
    ):
        self.local = host in _LOOPBACK
        if not self.local and not token:
            raise HubError(
                f"A hub on {host} can be reached from other machines and needs a token: "
                "give it one, or listen on 127.0.0.1."
            )
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
            raise HubError("The hub's token must be printable ASCII without spaces.")
        self.token, self.say, self.log = token or None, say, log
        self.storage = Storage(root)
        self.xet = XetUploads(self.storage) if self.local and xet is not False else None
        if self.xet and not self.xet.works():
            self.xet = None
        self._secret = secrets.token_bytes(32)
        bound = type("BoundHandler", (handler,), {"hub": self})
        try:
            server = type("Server", (_Server,), {"address_family": _family(host)})
            self._http = server((host, port), bound)
        except OSError as error:
            self.storage.close()
            raise HubError(
                f"{host}:{port} cannot be listened on: {error.strerror or error}."
            ) from None
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self._http.server_port}"
        self._thread: threading.Thread | None = None

    def admits(self, authorization: str | None) -> bool:
        """Whether a request with this Authorization header may do everything."""
        if self.token is None:
            return True
        given = (authorization or "").removeprefix("Bearer ").encode()
        return hmac.compare_digest(given, self.token.encode())

    def sign(self, text: str) -> str:
        """A signature for an address that is used without the token, until the hub stops."""
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()

    def start(self) -> HubServer:
        """Answer in a background thread."""
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def run(self) -> None:
        """Answer in this thread until Ctrl-C."""
        with contextlib.suppress(KeyboardInterrupt):
            self._http.serve_forever()
        self.stop()

    def stop(self) -> None:
        """Stop answering and let go of the folder."""
        if self._thread is not None:
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()
        self.storage.close()

    def __enter__(self) -> HubServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, *args: Any):
        self._connections: set[socket.socket] = set()
        super().__init__(*args)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Also end the connections that clients keep open, or a stopped hub goes on answering."""
        super().server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is the client's affair; the default prints a traceback."""


def serve(
    root: str | os.PathLike[str],
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    *,
    say: Callable[[str], None] = print,
    log: Callable[[str], None] = lambda line: None,
) -> None:
    """Serve the hub in `root` until Ctrl-C; `zoo hub serve` is this.

    Raises:
        HubError: see `HubServer`.
    """
    server = HubServer(root, host, port, token, say=say, log=log)
    say(f"Hub at {server.url} from {server.storage.root}; use it with HF_ENDPOINT={server.url}")
    if token is None:
        say("It has no token: whoever reaches this port may read and write; nothing is private.")
    if server.xet is None:
        say("It takes uploads by LFS only: clients other than zoo set HF_HUB_DISABLE_XET=1.")
    server.run()


@contextlib.contextmanager
def running_hub(
    root: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    xet: bool | None = None,
    handler: type[Handler] = Handler,
) -> Iterator[str]:
    """A hub in the background for the length of a `with` block; gives its address."""
    with HubServer(root, host, port, token, xet=xet, handler=handler) as server:
        yield server.url
