"""The thread that decodes. Only it touches the batcher; jobs come in by a queue, events go out to
whoever waits for them."""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from zoo.errors import ConfigError, ZooError
from zoo.generation.batching import Batcher, Request, Score
from zoo.generation.pieces import Pieces
from zoo.generation.schema import DecodingOptions
from zoo.models.text.steps import CausalSteps, page_pool
from zoo.serving.schema import Limits

__all__ = ["Engine", "Event", "Job"]


class Event(NamedTuple):
    """News of one answer: more of it, or its end."""

    text: str = ""
    count: int = 0  # type: ignore[assignment]  # tokens so far; hides tuple's method
    token: int | None = None
    score: Score | None = None
    reason: str | None = None  # why it ended: "stop", "length" or "error"
    error: str | None = None


class Job:
    """One answer being written. `tell` is called in the engine's thread, with events in order; the
    last one has a reason, unless the job is cancelled."""

    def __init__(
        self,
        engine: Engine,
        prompt: Sequence[int],
        options: DecodingOptions,
        best: int | None,
        tell: Callable[[Event], None],
    ) -> None:
        self.request = Request(list(prompt), options, options.end or (), self._take, best)
        self.pieces = Pieces(
            engine.tokenizer.stream(skip_special=True), options.stop, options.end or ()
        )
        self.tell = tell

    def cancel(self) -> None:
        """Stops it before the next step, which gives its pages back. From any thread."""
        self.request.cancelled = True

    def fail(self, text: str) -> None:
        """Ends it with an error."""
        self.tell(Event(reason="error", error=text))

    def _take(self, token: int) -> bool:
        """Takes the next token in; returns whether that was the last one."""
        request = self.request
        if request.cancelled:
            return True
        try:
            text = self.pieces.feed(token)
            full = len(request.tokens) == request.options.max_new_tokens
            reason = "stop" if self.pieces.over else "length" if full else None
            if reason == "length":
                text += self.pieces.end()
        except ZooError as error:  # an id that is only padding of the vocabulary
            self.fail(str(error))
            return True
        if text or reason or request.best is not None:
            score = None if request.best is None else request.scores[-1]
            self.tell(Event(text, len(request.tokens), token, score, reason))
        return reason is not None


class Engine:
    """Decodes jobs together until it is stopped.

    Raises ConfigError for a model whose keys and values cannot lie in pages.
    """

    def __init__(self, model: Any, limits: Limits) -> None:
        self.model, self.tokenizer, self.limits = model, model.tokenizer, limits
        known = model.config.backbone.length
        self.context: int = known or limits.tokens + (limits.prompt or limits.tokens)
        self.pool = page_pool(
            model, self.context * limits.running, limits.page, limits.memory << 20
        )
        whole = model.config.prefix_lm  # a prompt that is read in both directions cannot be split
        self.batcher = Batcher(
            lambda cache: CausalSteps(model, cache=cache),
            self.pool,
            limits.running,
            chunk=None if whole else limits.chunk,
            keep=None if whole else limits.keep,
        )
        room = len(self.pool.holders) * limits.page
        self.context = min(self.context, room)
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._jobs: dict[Request, Job] = {}  # of requests in the batcher
        self._counts = self._counted()
        self._thread = threading.Thread(target=self._run, name="zoo-engine", daemon=True)
        self.flush: Callable[[], None] = lambda: None  # called after each step's events

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Ends the thread after the step that runs; what is not finished is dropped, and all pages
        are free."""
        self._inbox.put(None)
        self._thread.join(seconds)

    @property
    def alive(self) -> bool:
        """Whether it decodes."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Takes a job on. From any thread."""
        self._inbox.put(job)

    def counts(self) -> dict[str, int]:
        """Returns how busy it is, as of the last step; from any thread."""
        waiting = self._counts["waiting"] + self._inbox.qsize()
        return {**self._counts, "waiting": waiting}

    def _counted(self) -> dict[str, int]:
        batcher = self.batcher
        kept = {page for r in batcher.kept if r.pages for page in r.pages.pages}
        return {
            "running": len(batcher.running) + len(batcher.reading),
            "waiting": len(batcher.waiting),
            "pages": len(self.pool.holders),
            "pages_used": self.pool.used,
            "pages_kept": len(kept),  # of finished requests, until others need them
        }

    # -- in the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while self._take_in():
            try:
                self.batcher.step()
            except Exception as error:  # everyone who was in that step is told; the rest goes on
                traceback.print_exc()
                self._fail(f"Decoding failed: {type(error).__name__}: {error}")
            for request in [r for r in self._jobs if r.done]:
                del self._jobs[request]
            self._counts = self._counted()
            self.flush()
        self.batcher.clear()

    def _take_in(self) -> bool:
        """Queues what came in, waiting when there is nothing else to do; returns whether to go
        on."""
        wait = not self.batcher.busy
        while True:
            try:
                job = self._inbox.get(wait)
            except queue.Empty:
                return True
            if job is None:
                return False
            wait = False
            try:
                self._jobs[job.request] = job
                self.batcher.submit(job.request)
            except ConfigError as error:
                del self._jobs[job.request]
                job.fail(str(error))

    def _fail(self, text: str) -> None:
        for request in self.batcher.clear():
            if not request.cancelled:
                self._jobs[request].fail(text)
