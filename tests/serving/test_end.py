"""SIGTERM: open answers are finished, for as long as the grace lasts; the process ends in bounded
time."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time

import httpx2
import pytest

import zoo
from tests.serving.test_limits import until
from tools.load_server import cases_of, hammer
from zoo.serving.schema import Limits
from zoo.serving.server import running_server


def lines_of(answer):
    return [line.removeprefix("data: ") for line in answer.iter_lines() if line]


def test_the_command_serves_and_sigterm_lets_answers_finish(tiny, tmp_path):
    zoo.save(tiny, tmp_path / "tiny")
    words = ["serve", f"dir:{tmp_path / 'tiny'}", "--port", "0", "--grace", "20", "--as", "mine"]
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo", *words], stdout=subprocess.PIPE, text=True
    )
    try:
        name, _, url = process.stdout.readline().split()
        assert name == "mine" and httpx2.get(f"{url}/models").json()["data"][0]["id"] == "mine"
        body = {"prompt": "x", "max_tokens": 200, "stream": True, "temperature": 0}
        with httpx2.stream("POST", f"{url}/completions", json=body, timeout=30) as answer:
            process.send_signal(signal.SIGTERM)
            lines = lines_of(answer)
        assert lines[-1] == "[DONE]"
        text = "".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1])
        assert text == tiny.generate("x", max_new_tokens=200)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.stdout.close()


@pytest.fixture
def ending(tiny, monkeypatch):
    """A server that stops before each step, and with it a stream that has begun; then it is told
    to end."""
    gate = threading.Event()
    with running_server(tiny, "tiny", Limits(grace=0.5)) as server:
        batcher = server.service.engine.batcher
        step = batcher.step
        monkeypatch.setattr(batcher, "step", lambda: gate.wait(0.05) and step())
        yield server
        gate.set()


def test_after_the_grace_what_is_open_ends_with_an_error(ending):
    url, service = ending.url, ending.service
    found = []

    def read():
        with httpx2.stream(
            "POST", f"{url}/v1/completions", json={"prompt": "x", "stream": True}
        ) as a:
            found.extend(lines_of(a))

    thread = threading.Thread(target=read)
    thread.start()
    with httpx2.Client() as late:  # a connection that was there before
        assert late.get(f"{url}/health").status_code == 200
        assert until(lambda: len(service.open) == 1)
        service.drain()
        refused = late.post(f"{url}/v1/completions", json={"prompt": "x"})
        assert refused.status_code == 503 and "Retry-After" in refused.headers
        assert late.get(f"{url}/health").json()["status"] == "closing"
    began = time.monotonic()
    ending.should_exit = True
    thread.join(5)
    assert time.monotonic() - began < 3
    assert "shutting down" in json.loads(found[-1])["error"]["message"]
    assert until(lambda: not service.engine.alive)


def test_many_streams_with_clients_that_leave_lose_nothing(tiny):
    with running_server(tiny, "tiny", Limits(grace=2)) as server:
        service = server.service
        tally = asyncio.run(hammer(server.url, cases_of(tiny), seconds=3.0, streams=50))
        assert tally.wrong == []
        assert tally.counts["left"] > 10 and tally.counts["whole"] > 20
        assert tally.counts["left"] + tally.counts["whole"] == tally.counts["started"]
        assert until(lambda: service.engine.counts()["running"] == 0 and not service.open)
        counts = service.engine.counts()
        assert counts["pages_used"] == counts["pages_kept"] and counts["waiting"] == 0
    assert service.engine.pool.used == 0
