"""`python -m tools.bench [CASE …] --against PEER …`"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil

from tools.bench import cases
from tools.bench.measure import interleave, report

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: ratios need one thread that is ours


def main() -> None:
    """Parses the command line, runs the cases, prints ratios."""
    found = sorted(module.name for module in pkgutil.iter_modules(cases.__path__))
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("case", nargs="*", help=f"which: {', '.join(found)}, or all")
    parser.add_argument("--against", nargs="*", help="peers; those installed when not given")
    parser.add_argument("--repeats", type=int, help="interleaved runs")
    parser.add_argument("--json", help="file that collects the figures")
    chosen = parser.parse_args()
    wanted = found if chosen.case == ["all"] else chosen.case
    if not wanted:
        for name in found:
            module = importlib.import_module(f"tools.bench.cases.{name}")
            print(f"{name:<10} {module.DOC} (peers: {', '.join(module.PEERS)})")
        return
    for name in wanted:
        if name not in found:
            parser.error(f"unknown case {name!r}; there are: {', '.join(found)}")
        module = importlib.import_module(f"tools.bench.cases.{name}")
        peers = module.PEERS if chosen.against is None else chosen.against
        unknown = set(peers) - set(module.PEERS)
        if unknown:
            parser.error(f"{name} knows the peers {', '.join(module.PEERS)}, not {unknown.pop()!r}")
        for title, prepared in module.prepare(peers):
            prepared.repeats = chosen.repeats or prepared.repeats
            report(title, prepared, interleave(prepared), chosen.json)


if __name__ == "__main__":
    main()
