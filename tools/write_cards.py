"""Writes MODEL_CARDS.md, and the table of names in README.md, from the nodes and what was measured.

    python -m tools.write_cards [--check]

What was measured lies beside shipped weights, in zoo/assets/NAME/measured.json: a number or a text
by name, or `{"value": …, "note": …}`. Nothing here is typed by hand.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import zoo
from tools.generated import ROOT, run
from tools.write_counts import shipped_models as model_names
from zoo.cli.source import where
from zoo.models import shipped

CARDS, README = ROOT / "MODEL_CARDS.md", ROOT / "README.md"
BEGIN, END = "<!-- names: written by make cards -->", "<!-- end of names -->"

HEAD = """\
# Model cards

Every model that zoo names, from its node in `conf/model/` and from what was measured here. Written
by `make cards`; a test fails when it is stale. Numbers stand only where this project measured them;
the licence is that of the weights.
"""


def files() -> dict[Path, str]:
    """Returns both files and what they should hold."""
    infos = [zoo.info(name) for name in model_names()]
    readme = README.read_text(encoding="utf-8")
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = f"{BEGIN}\n{names_table(infos)}{END}"
    return {CARDS: cards(infos), README: f"{before}{table}{after}" if after else readme}


def main(argv: list[str] | None = None) -> int:
    """Writes or checks the files; returns the exit code."""
    return run(files, argv)


# -- README --------------------------------------------------------------------------------------


def names_table(infos: list[Any]) -> str:
    """Returns a row per kind of model, with its names."""
    kinds: dict[str, list[Any]] = {}
    for info in infos:
        kinds.setdefault(info.kind, []).append(info)
    rows = [
        [f"**{kind}**: {_first_sentence(found[0])}", ", ".join(f"`{i.name}`" for i in found)]
        for kind, found in sorted(kinds.items())
    ]
    return _table(["kind", "names"], rows)


def _first_sentence(info: Any) -> str:
    text = " ".join((type(info.config).__doc__ or "").split())
    text = re.sub(r" \([^()]*\d{4}[^()]*\)", "", text)  # the paper stands on the card
    return re.split(r"(?<=[\w)])[.:] ", text)[0].rstrip(".")


# -- MODEL_CARDS ---------------------------------------------------------------------------------


def cards(infos: list[Any]) -> str:
    """Returns the whole of MODEL_CARDS.md."""
    rows = [
        [
            f"[{info.name}](#{_anchor(info.name)})",
            info.config.card.title,
            f"{info.parameters:,}",
            info.license or "not stated",
            ", ".join(info.weights) or "none",
        ]
        for info in infos
    ]
    columns = ["model", "what it is", "parameters", "licence", "weights"]
    return "\n".join([HEAD, _table(columns, rows, right=2), *map(card, infos)])


def card(info: Any) -> str:
    """Returns the section of one model."""
    about, mib = info.config.card, 2**20
    source = where(info.builds).partition(":")[0]
    rows = [
        ["inputs", info.inputs],
        ["parameters", f"{info.parameters:,}"],
        ["memory", f"{info.bytes / mib:,.1f} MiB in fp32, {info.bytes / 2 / mib:,.1f} in bf16"],
        ["built by", f"`{info.builds.partition(':')[2]}` in `{_inside(source)}`"],
        ["parts", ", ".join(f"{_short(k)} `{v}`" for k, v in _kinds(info.config).items())],
        ["trained on", about.data],
        ["licence", info.license or "not stated"],
        ["paper", _paper(info.paper)],
    ]
    title = f"{about.title}. {about.summary or ''}".strip() if about.title else about.summary or ""
    blocks = [f"## {info.name}\n", f"{title}\n", _table(["", ""], [r for r in rows if r[1]])]
    weights = [_weights(info.name, tag, w) for tag, w in info.config.weights.items()]
    if weights:
        blocks.append(_table(["load by", "weights", "revision", "needs", "licence"], weights))
    else:
        blocks.append(f"No weights: `zoo.create({info.name!r})` gives it new ones.\n")
    measured = _measured(info)
    if measured:
        blocks.append(_table(["measured", "", ""], measured))
    return "\n".join(blocks)


def _weights(name: str, tag: str, weights: Any) -> list[str]:
    place = f"`{weights.repo}`" if weights.repo else "ships with zoo"
    layout = "" if weights.format == "zoo" else f" ({weights.format})"
    needs = ", ".join(f"`{key}={value}`" for key, value in weights.set.items())
    revision = f"`{weights.revision[:12]}`" if weights.revision else ""
    return [f"`{name}.{tag}`", place + layout, revision, needs, weights.license or ""]


def _measured(info: Any) -> list[list[str]]:
    """Returns the rows of measured.json, which lies beside weights that ship, or alone where a run
    was measured whose weights do not."""
    first = next(iter(info.config.weights.values()), None)
    folder = info.name if first is None else first.folder
    if folder is None or "/" in info.name:
        return []
    file = shipped.ASSETS / folder / "measured.json"
    rows = []
    for key, value in (json.loads(file.read_text()) if file.is_file() else {}).items():
        found = value if isinstance(value, dict) else {"value": value}
        rows.append([key.replace("_", " "), str(found.get("value")), str(found.get("note", ""))])
    return rows


def _kinds(config: Any, path: str = "") -> dict[str, str]:
    """Returns dotted key -> kind of every part, from the resolved config."""
    from zoo.registry import to_mapping

    def walk(node: Any, path: str) -> Any:
        if isinstance(node, dict):
            if path and "kind" in node:
                yield path, node["kind"]
            for key, value in node.items():
                yield from walk(value, f"{path}.{key}" if path else key)
        elif isinstance(node, list):
            for value in node:
                yield from walk(value, path)

    return dict(walk(to_mapping(config, omit=("weights",)), path))


def _short(key: str) -> str:
    return key.removeprefix("backbone.")


def _paper(paper: str | None) -> str:
    if paper and re.fullmatch(r"\d{4}\.\d{4,5}", paper):
        return f"[arXiv {paper}](https://arxiv.org/abs/{paper})"
    return paper or ""


def _inside(path: str) -> str:
    return path.removeprefix(f"{ROOT}/")


def _anchor(name: str) -> str:
    """Returns the anchor that Markdown renderers give a heading."""
    return re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-")


def _table(columns: list[str], rows: list[list[Any]], right: int | None = None) -> str:
    rule = ["---:" if index == right else "---" for index in range(len(columns))]
    lines = [columns, rule, *rows]
    return "".join(f"| {' | '.join(str(cell or '') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
