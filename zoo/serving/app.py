"""The routes: who asks, whether there is room, and the way of an answer back to its client."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from zoo.errors import ZooError
from zoo.generation.schema import DecodingOptions
from zoo.serving.answers import Answer, ChatAnswer, CompletionAnswer, sse
from zoo.serving.engine import Engine, Event, Job
from zoo.serving.errors import Refusal, body
from zoo.serving.schema import ChatRequest, CompletionRequest, Limits, read_request

__all__ = ["Service"]

BODY_SECONDS = 30  # that a client may take to send its request


class Service:
    """One model behind routes. `app` is the ASGI application."""

    def __init__(self, model: Any, name: str, limits: Limits, key: str | None = None) -> None:
        """`name` is what clients call the model; with a `key` they must send it."""
        self.model, self.name, self.limits, self.key = model, name, limits, key
        self.tokenizer = model.tokenizer
        self.engine = Engine(model, limits)
        self.created = int(time.time())
        self.open: set[Writing] = set()
        self.closing = False
        self._news: list[tuple[asyncio.Queue[tuple[int, Event]], int, Event]] = []
        self.app = Starlette(
            routes=[
                Route("/health", self.health),
                Route("/v1/models", self.models),
                Route("/v1/models/{name:path}", self.one_model),
                Route("/v1/completions", self.completions, methods=["POST"]),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
            ],
            exception_handlers={
                ZooError: refused,
                HTTPException: refused,
                ClientDisconnect: refused,
                Exception: failed,
            },
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        self.engine.flush = lambda: self._flush(loop)
        self.engine.start()
        try:
            yield
        finally:
            self.engine.stop()

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hands a step's events over to the loop, in the engine's thread."""
        if not self._news:
            return
        news, self._news = self._news, []

        def deliver() -> None:
            for waiting, index, event in news:
                waiting.put_nowait((index, event))

        loop.call_soon_threadsafe(deliver)

    def drain(self) -> None:
        """Takes no new requests; those that are open go on."""
        self.closing = True

    def abandon(self) -> None:
        """Ends every open request with an error."""
        for writing in list(self.open):
            writing.fail("The server is shutting down; try again later.")

    # -- routes ------------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        """200 while requests are taken on, 503 otherwise; with how busy it is."""
        well = self.engine.alive and not self.closing
        status = "ok" if well else "closing" if self.closing else "failed"
        state = {"status": status, "requests": len(self.open), **self.engine.counts()}
        return JSONResponse(state, 200 if well else 503)

    async def models(self, request: Request) -> Response:
        self._admit(request)
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def one_model(self, request: Request) -> Response:
        self._admit(request)
        self._check_name(request.path_params["name"])
        return JSONResponse(self._described())

    async def completions(self, request: Request) -> Response:
        asked = await self._read(request, CompletionRequest)
        prompts = await asyncio.to_thread(self._encoded, asked.prompts)
        return await self._answer(request, CompletionAnswer, asked, prompts)

    async def chat(self, request: Request) -> Response:
        asked = await self._read(request, ChatRequest)
        if self.tokenizer.chat_template is None:
            raise Refusal(f"{self.name} has no chat template; use /v1/completions.")
        prompt = await asyncio.to_thread(self.tokenizer.encode_chat, asked.turns)
        return await self._answer(request, ChatAnswer, asked, [prompt])

    # -- what a request must be --------------------------------------------------------------------

    def _described(self) -> dict[str, Any]:
        known = {"id": self.name, "object": "model", "created": self.created, "owned_by": "zoo"}
        return {**known, "max_model_len": self.engine.context}

    def _check_name(self, name: str | None) -> None:
        if name not in (None, self.name):
            raise Refusal(
                f"The model {name!r} is not served here; {self.name!r} is.", 404, "model_not_found"
            )

    def _admit(self, request: Request) -> None:
        if self.key is None:
            return
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(key.encode(), self.key.encode()):
            raise Refusal("This server wants its key as a bearer token.", 401, "invalid_api_key")

    async def _read(self, request: Request, schema: type) -> Any:
        """Returns what is asked, once it is clear that there is room for it."""
        self._admit(request)
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            # also keeps web pages out, which may send text to this machine but no JSON
            raise Refusal("Send application/json.", 415)
        data = await asyncio.wait_for(self._body(request), BODY_SECONDS)
        try:
            given = json.loads(data)
        except (ValueError, RecursionError):
            raise Refusal("The body is not JSON.") from None
        asked = read_request(schema, given)
        self._check_name(asked.model)
        self._check_room()
        return asked

    def _check_room(self) -> None:
        if self.closing:
            raise Refusal("The server is shutting down.", 503, wait=10)
        if len(self.open) >= self.limits.requests:
            wait = 1 + self.engine.counts()["waiting"] // self.limits.running
            raise Refusal(
                f"{len(self.open)} requests are open already; try again in {wait} s.",
                429,
                "rate_limit_exceeded",
                wait,
            )

    async def _body(self, request: Request) -> bytes:
        most, data = self.limits.body, bytearray()
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) <= most:
            async for part in request.stream():
                data += part
                if len(data) > most:
                    break
            else:
                return bytes(data)
        raise Refusal(f"A request may have {most} bytes.", 413)

    def _encoded(self, prompts: list[str | list[int]]) -> list[list[int]]:
        rows = []
        for prompt in prompts:
            tokens = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
            wrong = [t for t in tokens if not 0 <= t < self.model.config.vocabulary]
            if wrong:
                raise Refusal(f"prompt: token {wrong[0]} is not in the vocabulary.")
            rows.append(tokens)
        return rows

    def _options(self, asked: Any, prompt: list[int], index: int) -> DecodingOptions:
        """Returns how answer `index` to a prompt is decoded."""
        room = self.engine.context - len(prompt)
        most = min(self.limits.prompt or self.engine.context - 1, self.engine.context - 1)
        if not prompt:
            raise Refusal("The prompt is empty.")
        if len(prompt) > most:
            raise Refusal(
                f"The prompt has {len(prompt)} tokens and may have {most}.",
                code="context_length_exceeded",
            )
        tokens = asked.max_tokens
        if tokens is None:
            tokens = min(asked.DEFAULT or self.limits.tokens, self.limits.tokens, room)
        if tokens > min(room, self.limits.tokens):
            raise Refusal(
                f"max_tokens: {tokens}, and after this prompt {min(room, self.limits.tokens)} "
                "are possible.",
                code="context_length_exceeded",
            )
        wanted = asked.decoding(tokens, index)
        wanted.stop = asked.stops
        wanted.end = [] if asked.ignore_eos else self.model.ends(wanted)
        return wanted

    # -- the answer --------------------------------------------------------------------------------

    async def _answer(
        self, request: Request, shape: type[Answer], asked: Any, prompts: list[list[int]]
    ) -> Response:
        count = len(prompts) * asked.n
        if count > self.limits.choices:
            raise Refusal(f"{count} answers are asked for and {self.limits.choices} are possible.")
        wanted = [self._options(asked, prompt, i) for prompt in prompts for i in range(asked.n)]
        self._check_room()  # others may have come in while this one was read
        writing = Writing(self, shape(asked, self.name, self.tokenizer, prompts), wanted)
        if asked.stream:
            return EventStream(writing)
        try:
            return await writing.whole(request)
        finally:
            writing.close()


class Writing:
    """An answer being written: its jobs in the engine, and the events that they send."""

    def __init__(self, service: Service, answer: Answer, wanted: list[DecodingOptions]) -> None:
        self.service, self.answer = service, answer
        self.events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self.deadline = time.monotonic() + service.limits.seconds
        self.jobs = []
        for index, options in enumerate(wanted):
            prompt = answer.prompts[index // answer.asked.n]

            def tell(event: Event, index: int = index) -> None:
                service._news.append((self.events, index, event))

            self.jobs.append(Job(service.engine, prompt, options, answer.asked.best, tell))
        service.open.add(self)
        for job in self.jobs:
            service.engine.submit(job)

    def close(self) -> None:
        """Lets go of whatever is left of it."""
        for job in self.jobs:
            job.cancel()
        self.service.open.discard(self)

    def fail(self, text: str) -> None:
        """Ends it with an error, from the loop."""
        self.events.put_nowait((0, Event(reason="error", error=text)))

    async def chunks(self) -> AsyncIterator[Any]:
        """Yields the answer as it comes; raises Refusal when it ends with an error."""
        while not self.answer.complete:
            left = self.deadline - time.monotonic()
            try:
                index, event = await asyncio.wait_for(self.events.get(), max(left, 0.0))
            except asyncio.TimeoutError:
                seconds = self.service.limits.seconds
                raise Refusal(f"The answer took longer than {seconds:g} s.", 504) from None
            if event.error is not None:
                raise Refusal(event.error, 503 if self.service.closing else 500)
            yield self.answer.take(index, event)

    async def whole(self, request: Request) -> Response:
        """Returns the whole answer, or stops when the client goes away."""

        async def collect() -> Response:
            async for _ in self.chunks():
                pass
            return JSONResponse(self.answer.full())

        async def gone() -> Response:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            raise ClientDisconnect

        tasks = [asyncio.create_task(collect()), asyncio.create_task(gone())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return tasks[0].result() if tasks[0] in done else tasks[1].result()
        finally:
            for task in tasks:
                task.cancel()

    async def stream(self) -> AsyncIterator[bytes]:
        """Yields the answer as server-sent events; an error is the last of them."""
        for chunk in self.answer.opening():
            yield sse(chunk)
        try:
            async for chunk in self.chunks():
                yield sse(chunk)
        except Refusal as error:
            yield sse(body(str(error), error.status, error.code))
            return
        for chunk in self.answer.closing():
            yield sse(chunk)


class EventStream(StreamingResponse):
    """Streams an answer and closes it, however the stream ends: also when the client has gone
    before the first event, or does not read."""

    def __init__(self, writing: Writing) -> None:
        super().__init__(
            writing.stream(),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        self.writing = writing

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        left = self.writing.deadline - time.monotonic() + 5  # for the error to be sent
        try:
            await asyncio.wait_for(super().__call__(scope, receive, send), left)
        except asyncio.TimeoutError:
            pass  # nobody reads it
        finally:
            self.writing.close()


async def refused(request: Request, error: Exception) -> Response:
    """Returns a refusal as JSON."""
    if isinstance(error, Refusal):
        found = body(str(error), error.status, error.code)
        return JSONResponse(found, error.status, error.headers)
    if isinstance(error, HTTPException):
        text = f"There is no {request.method} {request.url.path} here."
        return JSONResponse(body(text, error.status_code), error.status_code, error.headers)
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)  # nobody reads it
    return JSONResponse(body(str(error), 400), 400)


async def failed(request: Request, error: Exception) -> Response:
    """Returns what a bug of ours looks like from outside."""
    traceback.print_exception(error)
    return JSONResponse(body("The server failed; its log says why.", 500), 500)
