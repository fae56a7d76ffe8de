"""A real hub on loopback, faults to put into it, and model folders to push."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # or the client asks huggingface.co for it

from huggingface_hub import HfApi, constants

from zoo.hub import remote
from zoo.hub.protocol import Reply
from zoo.hub.server import Handler, HubServer

TOKEN = "hf_aVerySecretToken0123456789"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token, cache or endpoint of the person who runs the tests, and no long waits."""
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("HF_HUB_DISABLE_XET", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "home/token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(remote, "WAIT", 0.01)
    # Nothing here cuts the power; syncing would make the tests wait for everyone's disk.
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class Faulty(Handler):
    """The hub's handler with faults in front: each may answer by itself (true) or let it pass."""

    faults: list[Callable[[Faulty], bool]]
    requests: list[str]

    def answer(self) -> None:
        self.change = None
        self.requests.append(f"{self.command} {self.path.split('?')[0]}")
        if not any(fault(self) for fault in self.faults):
            super().answer()

    def send(self, reply: Reply) -> None:
        super().send(self.change(reply) if self.change else reply)

    def refuse(self, status: int, **headers: str) -> bool:
        """Answer with an error."""
        self._left = None
        self.send(Reply({"error": "a fault"}, status, headers))
        return True


class Hub:
    """A running hub, its address, what it was asked, and the faults put into it."""

    def __init__(self, root: Path, **options: object):
        self.faults: list[Callable[[Faulty], bool]] = []
        self.requests: list[str] = []
        handler = type("F", (Faulty,), {"faults": self.faults, "requests": self.requests})
        self.server = HubServer(root, handler=handler, **options)
        self.url, self.root = self.server.url, root

    def count(self, start: str, part: str = "") -> int:
        """How many requests began with `start` and held `part`."""
        return sum(r.startswith(start) and part in r for r in self.requests)

    def fail(self, part: str, status: int, times: int = 1, **headers: str) -> list[int]:
        """Answer the next requests that hold `part` with an error; gives the list of those met."""
        met: list[int] = []

        def fault(handler: Faulty) -> bool:
            if part not in f"{handler.command} {handler.path}" or len(met) >= times:
                return False
            met.append(status)
            return handler.refuse(status, **headers)

        self.faults.append(fault)
        return met

    def change(self, part: str, change: Callable[[Faulty, Reply], Reply]) -> None:
        """Change the answers to requests that hold `part`."""

        def fault(handler: Faulty) -> bool:
            if part in f"{handler.command} {handler.path}":
                handler.change = lambda reply: change(handler, reply)
            return False

        self.faults.append(fault)


@pytest.fixture
def start_hub(tmp_path: Path) -> Iterator[Callable[..., Hub]]:
    """Start hubs; they stop after the test."""
    started: list[Hub] = []

    def start(name: str = "hub", **options: object) -> Hub:
        hub = Hub(tmp_path / name, **options)
        hub.server.start()
        started.append(hub)
        return hub

    yield start
    for hub in started:
        hub.server.stop()


@pytest.fixture
def hub(start_hub: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub with a token, in use: HF_ENDPOINT and HF_TOKEN are set. LFS only, which is faster."""
    hub = start_hub(token=TOKEN, xet=False)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """Write model folders as zoo saves them; equal seeds give equal bytes."""

    def make(name: str = "model", seed: int = 0, numbers: int = 5000, card: str = "") -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        values = np.random.default_rng(seed).random(numbers, dtype=np.float32)
        save_file({"head.weight": values}, folder / "model.safetensors")
        config = {"zoo": {"format": 1}, "group": "model", "config": {"kind": "vit"}}
        (folder / "config.json").write_text(json.dumps(config))
        if card:
            (folder / "README.md").write_text(card)
        return folder

    return make


@pytest.fixture
def api(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    """The unmodified client on the same hub, by LFS as that hub wants it."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return HfApi(endpoint=hub.url, token=TOKEN)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The cache's folder."""
    return tmp_path / "cache"


@pytest.fixture
def token() -> str:
    """The hub's token."""
    return TOKEN
