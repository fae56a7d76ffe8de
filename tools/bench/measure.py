"""Timing: interleaved repeats, medians, spread, ratios pair by pair."""

from __future__ import annotations

import atexit
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

__all__ = ["Bar", "Prepared", "Row", "gemm_peak", "interleave", "report", "subprocess_cost"]


@dataclass
class Bar:
    """A ratio that is asked for: how many times faster `ours` is than `other`; without `other`, the
    figure itself, which is to stay below."""

    label: str
    other: str | None
    ours: str
    must: float | None = None
    aim: float | None = None
    figure: str | None = None  # which of a contender's figures; None: the first


@dataclass
class Prepared:
    """What a case hands over: one callable per contender ("zoo" among them), outputs already
    compared."""

    contenders: dict[str, Callable[[], dict[str, float] | None]]
    repeats: int = 7
    notes: list[str] = field(default_factory=list)
    # Multiply-adds times two per call and the measured peak, to say how close to the limit we are.
    flops: float | None = None
    peak: float | None = None
    bars: list[Bar] = field(default_factory=list)
    found: dict[str, list[float]] = field(default_factory=dict)  # ratios by bar, pair by pair


@dataclass
class Row:
    """One contender's figures."""

    name: str
    figure: str  # "cpu s", "wall s", "peak MB"
    median: float
    low: float
    high: float
    ratio: (
        float | None
    )  # of the peer's to ours, median over pairs: above 1 means that we are better


def interleave(prepared: Prepared) -> list[Row]:
    """Runs A B A B …; each contender returns its own figures or is timed by CPU seconds of the
    process."""
    figures: dict[str, dict[str, list[float]]] = {name: {} for name in prepared.contenders}
    for run in prepared.contenders.values():
        run()  # warm: caches, threads, allocator
    for _ in range(prepared.repeats):
        for name, run in prepared.contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            found = run() or {
                "cpu s": time.process_time() - cpu,
                "wall s": time.perf_counter() - wall,
            }
            for figure, value in found.items():
                figures[name].setdefault(figure, []).append(value)
    for bar in prepared.bars:
        ours, theirs = (
            figures[name][bar.figure or next(iter(figures[name]))] if name else None
            for name in (bar.ours, bar.other)
        )
        prepared.found[bar.label] = (
            [b / a for a, b in zip(ours, theirs, strict=True)] if theirs else ours
        )
    rows = []
    for name, found in figures.items():
        for figure, values in found.items():
            ours = figures["zoo"].get(figure)
            ratio = None
            if name != "zoo" and ours:
                ratio = statistics.median(b / a for a, b in zip(ours, values, strict=True) if a > 0)
            rows.append(
                Row(name, figure, statistics.median(values), min(values), max(values), ratio)
            )
    return rows


def report(case: str, prepared: Prepared, rows: list[Row], path: str | None) -> None:
    """Prints the table, and writes it as JSON."""
    print(f"{case}: medians of {prepared.repeats} interleaved runs, {threads()} thread(s)")
    for note in prepared.notes:
        print(f"  {note}")
    print(f"  {'contender':<20}{'figure':<10}{'median':>10}{'min':>10}{'max':>10}   peer/ours")
    for row in rows:
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else "-"
        print(
            f"  {row.name:<20}{row.figure:<10}{row.median:>10.4g}"
            f"{row.low:>10.4g}{row.high:>10.4g}   {ratio}"
        )
    for bar in prepared.bars:
        values = prepared.found[bar.label]
        middle = statistics.median(values)
        met = "" if bar.must is None else f"  must {bar.must:g}"
        met += "" if bar.aim is None else f", aim {bar.aim:g}"
        if bar.must is not None:
            good = middle <= bar.must if bar.other is None else middle >= bar.must
            met += "" if good else "  MISSED"
        print(f"  {bar.label:<34}{middle:>6.2f}  ({min(values):.2f} to {max(values):.2f}){met}")
    share = None
    if prepared.flops and prepared.peak:
        ours = next(r.median for r in rows if r.name == "zoo" and r.figure == "cpu s")
        share = prepared.flops / ours / prepared.peak
        peak = f"{prepared.peak / 1e9:.0f} GFLOP/s"
        print(f"  ours reaches {share:.0%} of the measured GEMM peak ({peak})")
    if path:
        existing: list[dict[str, Any]] = []
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                existing = json.load(file)
        entry: dict[str, Any] = {"case": case, "rows": [vars(r) for r in rows], "gemm_share": share}
        entry["ratios"] = {k: statistics.median(v) for k, v in prepared.found.items()}
        with open(path, "w", encoding="utf-8") as file:
            json.dump([e for e in existing if e["case"] != case] + [entry], file, indent=1)


def threads() -> int:
    """Returns how many threads torch uses, or 1 when no torch is loaded."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else 1


def gemm_peak(dtype: Any, rows: int, inputs: int, outputs: int) -> float:
    """Returns the best FLOP/s of one matrix product of this shape that any library here reaches."""
    import torch

    from zoo.nn import matmul

    x, weight = torch.randn(rows, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype)
    ways: list[Callable[[], Any]] = [lambda: torch.nn.functional.linear(x, weight)]
    onednn = matmul._onednn(dtype)
    if onednn is not None:
        ways.append(lambda: onednn(x, weight, None, "none", [], ""))
    best = float("inf")
    with torch.inference_mode():
        for way in ways:
            for _ in range(6):
                start = time.process_time()
                way()
                best = min(best, time.process_time() - start)
    return 2 * rows * inputs * outputs / best


@cache
def _bytecode() -> dict[str, str]:
    """Returns what makes Python keep compiled modules, as an installed package has them, wherever
    this runs; the first process compiles."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder.name}


def subprocess_cost(code: str, environment: dict[str, str] | None = None) -> dict[str, float]:
    """Runs Python code in a fresh process; returns its CPU seconds, wall seconds and peak memory
    (MB).

    The code may print a JSON object of figures as its last line; those are taken instead.
    """
    env = {**os.environ, "OMP_NUM_THREADS": "1", **_bytecode(), **(environment or {})}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    wall = time.perf_counter() - wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    last = done.stdout.strip().splitlines()[-1:] or [""]
    if last[0].startswith("{"):
        return json.loads(last[0])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu s": cpu, "wall s": wall}
