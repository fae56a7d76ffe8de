"""Many streams at once against `zoo serve`, from clients that go away at random: is anything lost,
does a page stay behind, does memory grow?

    python -m tools.load_server --seconds 60 --streams 50

Serves a tiny model of new weights in a process of its own, on this machine only. Every answer that
is read to its end is compared with what the model gives alone. Exit code 1 when something is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

__all__ = ["Tally", "cases_of", "hammer", "tiny_model"]

PROMPTS = [
    "import os",
    "def f(x):",
    "class",
    "for i in range(10):\n    print(",
    "x",
    "return self.",
]


@dataclass
class Tally:
    """What became of the requests."""

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    pieces: int = 0
    wrong: list[str] = field(default_factory=list)  # what was lost or changed


def tiny_model() -> Any:
    """Returns a small language model whose choices are no near-ties, with a shipped tokenizer."""
    import torch

    from zoo.models.base import build_empty, initialise
    from zoo.registry import resolve

    backbone = {"depth": 2, "width": 32, "length": 256, "position": "learned"}
    config = {
        "kind": "causal-lm",
        "tokenizer": {"name": "stdlib-bpe", "chat": "chatml"},
        "vocabulary": 4096,
        "tied": False,
        "backbone": {**backbone, "attention": {"heads": 4}},
    }
    model = initialise(build_empty(resolve("model", config)), 0).eval()
    with torch.no_grad():  # far from uniform: small differences must not change a choice
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(12)
    return model


def cases_of(model: Any) -> list[tuple[dict[str, Any], str]]:
    """Returns (request, text that it must give): greedy and sampled, short and long."""
    found = []
    for index in range(24):
        tokens, prompt = 4 + 5 * (index % 10), PROMPTS[index % len(PROMPTS)]
        asked: dict[str, Any] = {"prompt": prompt, "max_tokens": tokens, "temperature": 0}
        given: dict[str, Any] = {"max_new_tokens": tokens}
        if index % 3 == 2:
            asked |= {"temperature": 2.0, "seed": index}
            given |= {"temperature": 2.0, "seed": index}
        found.append((asked, model.generate(prompt, **given)))
    return found


async def hammer(
    url: str, cases: list[tuple[dict[str, Any], str]], seconds: float, streams: int, seed: int = 0
) -> Tally:
    """Keeps so many requests open for so long; a third of them are left half read."""
    import httpx2

    tally, end = Tally(), time.monotonic() + seconds
    limits = httpx2.Limits(max_connections=streams, max_keepalive_connections=streams)

    async def one(client: httpx2.AsyncClient, chance: random.Random) -> None:
        asked, expected = chance.choice(cases)
        leave = chance.randrange(12) if chance.random() < 0.35 else None  # after so many pieces
        body = {**asked, "stream": leave is not None or chance.random() < 0.8}
        address = f"{url}/v1/completions"
        if not body["stream"]:
            answer = (await client.post(address, json=body)).json()
            _compare(tally, answer["choices"][0]["text"], expected)
            return
        text, over = "", False
        async with client.stream("POST", address, json=body) as answer:
            async for line in answer.aiter_lines():
                if line == "data: [DONE]":
                    over = True
                elif line:
                    choice = json.loads(line.removeprefix("data: "))["choices"][0]
                    text += choice["text"]
                    tally.pieces += 1
                if leave is not None and (leave := leave - 1) < 0 and not over:
                    tally.counts["left"] += 1
                    return
        if not over:
            tally.wrong.append("a stream ended without [DONE]")
        _compare(tally, text, expected)

    async def worker(client: httpx2.AsyncClient, chance: random.Random) -> None:
        while time.monotonic() < end:
            tally.counts["started"] += 1
            try:
                await one(client, chance)
            except (httpx2.HTTPError, KeyError, ValueError) as error:
                tally.wrong.append(f"{type(error).__name__}: {error}")

    async with httpx2.AsyncClient(limits=limits, timeout=60) as client:
        await asyncio.gather(*(worker(client, random.Random(seed + i)) for i in range(streams)))
    return tally


def _compare(tally: Tally, text: str, expected: str) -> None:
    tally.counts["whole"] += 1
    if text != expected:
        tally.wrong.append(f"{text!r} instead of {expected!r}")


def _memory(process: int) -> float:
    """Returns the resident MB of a process."""
    with open(f"/proc/{process}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1000 for line in file if line.startswith("VmRSS"))


async def _watched(process: int, seconds: float, run: Any) -> tuple[Tally, list[float]]:
    task, memory = asyncio.create_task(run), []
    while not task.done():
        await asyncio.wait([task], timeout=seconds / 20)
        memory.append(_memory(process))
    return task.result(), memory


def main() -> int:
    """Serves, hammers, reports."""
    import httpx2

    import zoo

    parser = argparse.ArgumentParser(prog="python -m tools.load_server", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--streams", type=int, default=50)
    chosen = parser.parse_args()
    model = tiny_model()
    with tempfile.TemporaryDirectory() as folder:
        zoo.save(model, folder)
        words = ["serve", f"dir:{folder}", "--port", "0", "--grace", "5"]
        process = subprocess.Popen(
            [sys.executable, "-m", "zoo", *words], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1].removesuffix("/v1")
            run = hammer(url, cases_of(model), chosen.seconds, chosen.streams)
            tally, memory = asyncio.run(_watched(process.pid, chosen.seconds, run))
            time.sleep(0.5)
            health = httpx2.get(f"{url}/health").json()
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(30)
    settled = memory[len(memory) // 4 :]
    growth = settled[-1] - settled[0]
    idle = not (health["requests"] or health["running"] or health["waiting"])
    leaked = health["pages_used"] - health["pages_kept"]
    speed = tally.pieces / chosen.seconds
    print(f"{dict(tally.counts)}, {speed:.0f} pieces/s, wrong: {len(tally.wrong)}")
    for fault, times in collections.Counter(tally.wrong).most_common(5):
        print(f"  {times} x {fault}")
    print(f"memory {settled[0]:.1f} MB after a quarter of the time, {settled[-1]:.1f} at the end")
    print(f"idle afterwards: {idle}, pages left behind: {leaked}, exit code after SIGTERM: {code}")
    return int(
        bool(tally.wrong) or leaked != 0 or not idle or code != 0 or growth > 0.03 * settled[0]
    )


if __name__ == "__main__":
    sys.exit(main())
