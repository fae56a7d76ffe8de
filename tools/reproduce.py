"""Trains what tools/reproduce.yaml lists, from nothing, and compares it with its numbers.

    python -m tools.reproduce                        all of them
    python -m tools.reproduce digits_vit             one
    python -m tools.reproduce digits_vit --seed 1    with another seed than its experiment says
    python -m tools.reproduce --list                 what there is, and how long it takes

Runs lie in runs/reproduce/NAME, the results in runs/reproduce/results.json. The verdict is `ok`,
`missed` (a number) or `slow` (the clock; compare with the CPU time, the machine may have been
busy), and the exit code 1 unless all are `ok`.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.generated import ROOT
from zoo.cli.output import print_table
from zoo.registry.yaml import read_yaml

FILE = Path(__file__).with_suffix(".yaml")
RUNS = ROOT / "runs" / "reproduce"


@dataclass(frozen=True)
class Bar:
    """A number that a metric of zoo eval must reach."""

    metric: str
    bound: float
    at_least: bool  # otherwise: at most

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound}"

    def holds(self, value: float) -> bool:
        """Whether a number reaches it; what is no number does not."""
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A run and the numbers that it must reach."""

    name: str
    train: str  # words of zoo train
    minutes: float  # that training may take
    at_least: dict[str, float] = field(default_factory=dict)  # metric of zoo eval -> number
    at_most: dict[str, float] = field(default_factory=dict)

    @property
    def bars(self) -> list[Bar]:
        """All that must hold."""
        lowest = [Bar(metric, bound, True) for metric, bound in self.at_least.items()]
        return lowest + [Bar(metric, bound, False) for metric, bound in self.at_most.items()]


def read_proofs(file: Path = FILE) -> dict[str, Proof]:
    """Returns name -> proof; every one has a bar."""
    proofs = {name: Proof(name=name, **entry) for name, entry in read_yaml(file).items()}
    for proof in proofs.values():
        assert proof.bars, f"{proof.name} needs a bar"
    return proofs


def run(proof: Proof, folder: Path, seed: int | None = None) -> dict[str, Any]:
    """Trains and measures one; returns what came of it, and which metrics `missed` their bar."""
    shutil.rmtree(folder, ignore_errors=True)
    zoo = [sys.executable, "-m", "zoo"]
    start, used = time.perf_counter(), _cpu_seconds()
    told = [] if seed is None else [f"seed={seed}"]
    subprocess.run([*zoo, "train", *proof.train.split(), *told, f"run.dir={folder}"], check=True)
    minutes, cpu = (time.perf_counter() - start) / 60, (_cpu_seconds() - used) / 60
    words = [*zoo, "eval", str(folder), "--json"]
    metrics = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    missed = [bar.metric for bar in proof.bars if not bar.holds(metrics[bar.metric])]
    verdict = "missed" if missed else "slow" if minutes > proof.minutes else "ok"
    times = {"minutes": round(minutes, 2), "cpu_minutes": round(cpu, 2)}
    return {**times, "metrics": metrics, "missed": missed, "verdict": verdict}


def _cpu_seconds() -> float:
    """Returns the CPU time of finished children, which a busy machine does not stretch."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(argv: list[str] | None = None, file: Path = FILE, runs: Path = RUNS) -> int:
    """Runs the proofs and prints a table; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="which (default: all)")
    parser.add_argument("--seed", type=int, help="instead of those of the experiments")
    parser.add_argument("--list", action="store_true", help="say what there is instead")
    arguments = parser.parse_args(argv)
    proofs = read_proofs(file)
    unknown = [name for name in arguments.names if name not in proofs]
    if unknown:
        parser.error(f"no proof is called {unknown[0]!r}; there are: {', '.join(proofs)}")
    chosen = [proofs[name] for name in arguments.names or proofs]
    if arguments.list:
        columns = ["proof", "metric", "bar", "minutes", "zoo train"]
        rows = [
            [proof.name, bar.metric, str(bar), f"{proof.minutes:g}", proof.train]
            for proof in chosen
            for bar in proof.bars
        ]
        print_table(columns, rows)
        return 0
    results = {}
    for proof in chosen:
        print(
            f"{proof.name}: zoo train {proof.train} (up to {proof.minutes:g} minutes)", flush=True
        )
        results[proof.name] = run(proof, runs / proof.name, arguments.seed)
    runs.mkdir(parents=True, exist_ok=True)
    (runs / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    columns = ["proof", "metric", "value", "bar", "minutes", "of CPU", "verdict"]
    print_table(columns, _rows(chosen, results))
    return 0 if all(result["verdict"] == "ok" for result in results.values()) else 1


def _rows(proofs: list[Proof], results: dict[str, Any]) -> list[list[str]]:
    """Returns a row for each bar; the clock's verdict stands beside every one that holds."""
    rows = []
    for proof in proofs:
        result = results[proof.name]
        slow = result["minutes"] > proof.minutes
        times = [f"{result['minutes']:.1f} of {proof.minutes:g}", f"{result['cpu_minutes']:.1f}"]
        for bar in proof.bars:
            value = f"{result['metrics'][bar.metric]:.4f}"
            missed = bar.metric in result["missed"]
            verdict = "missed" if missed else "slow" if slow else "ok"
            rows.append([proof.name, bar.metric, value, str(bar), *times, verdict])
    return rows


if __name__ == "__main__":
    sys.exit(main())
