"""Trains what tools/reproduce.yaml lists, from nothing, and compares it with its number.

    python -m tools.reproduce               all of them
    python -m tools.reproduce digits_vit    one
    python -m tools.reproduce --list        what there is, and how long it takes

Runs lie in runs/reproduce/NAME, the results in runs/reproduce/results.json. The verdict is `ok`,
`missed` (the number) or `slow` (the clock; compare with the CPU time, the machine may have been
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.generated import ROOT
from zoo.cli.output import print_table
from zoo.registry.yaml import read_yaml

FILE = Path(__file__).with_suffix(".yaml")
RUNS = ROOT / "runs" / "reproduce"


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A run and the number that it must reach."""

    name: str
    train: str  # words of zoo train
    metric: str  # of zoo eval
    minutes: float  # that training may take
    at_least: float | None = None
    at_most: float | None = None

    @property
    def bar(self) -> str:
        """The number in words."""
        return f">= {self.at_least}" if self.at_least is not None else f"<= {self.at_most}"

    def holds(self, value: float) -> bool:
        """Whether a number reaches the bar."""
        return value >= self.at_least if self.at_least is not None else value <= self.at_most


def read_proofs(file: Path = FILE) -> dict[str, Proof]:
    """Returns name -> proof; every one has exactly one bar."""
    proofs = {name: Proof(name=name, **entry) for name, entry in read_yaml(file).items()}
    for proof in proofs.values():
        assert (proof.at_least is None) != (proof.at_most is None), f"{proof.name} needs one bar"
    return proofs


def run(proof: Proof, folder: Path) -> dict[str, Any]:
    """Trains and measures one; returns what came of it."""
    shutil.rmtree(folder, ignore_errors=True)
    zoo = [sys.executable, "-m", "zoo"]
    start, used = time.perf_counter(), _cpu_seconds()
    subprocess.run([*zoo, "train", *proof.train.split(), f"run.dir={folder}"], check=True)
    minutes, cpu = (time.perf_counter() - start) / 60, (_cpu_seconds() - used) / 60
    words = [*zoo, "eval", str(folder), "--json"]
    metrics = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    value = metrics[proof.metric]
    verdict = "missed" if not proof.holds(value) else "slow" if minutes > proof.minutes else "ok"
    times = {"minutes": round(minutes, 2), "cpu_minutes": round(cpu, 2)}
    return {"value": value, **times, "metrics": metrics, "verdict": verdict}


def _cpu_seconds() -> float:
    """Returns the CPU time of finished children, which a busy machine does not stretch."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(argv: list[str] | None = None, file: Path = FILE, runs: Path = RUNS) -> int:
    """Runs the proofs and prints a table; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="which (default: all)")
    parser.add_argument("--list", action="store_true", help="say what there is instead")
    arguments = parser.parse_args(argv)
    proofs = read_proofs(file)
    unknown = [name for name in arguments.names if name not in proofs]
    if unknown:
        parser.error(f"no proof is called {unknown[0]!r}; there are: {', '.join(proofs)}")
    chosen = [proofs[name] for name in arguments.names or proofs]
    if arguments.list:
        columns = ["proof", "metric", "bar", "minutes", "zoo train"]
        rows = [[p.name, p.metric, p.bar, f"{p.minutes:g}", p.train] for p in chosen]
        print_table(columns, rows)
        return 0
    results = {}
    for proof in chosen:
        print(
            f"{proof.name}: zoo train {proof.train} (up to {proof.minutes:g} minutes)", flush=True
        )
        results[proof.name] = run(proof, runs / proof.name)
    runs.mkdir(parents=True, exist_ok=True)
    (runs / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    columns = ["proof", "metric", "value", "bar", "minutes", "of CPU", "verdict"]
    print_table(columns, _rows(chosen, results))
    return 0 if all(result["verdict"] == "ok" for result in results.values()) else 1


def _rows(proofs: list[Proof], results: dict[str, Any]) -> list[list[str]]:
    rows = []
    for proof in proofs:
        result = results[proof.name]
        minutes = f"{result['minutes']:.1f} of {proof.minutes:g}"
        value, cpu = f"{result['value']:.4f}", f"{result['cpu_minutes']:.1f}"
        row = [proof.name, proof.metric, value, proof.bar, minutes, cpu, result["verdict"]]
        rows.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(main())
