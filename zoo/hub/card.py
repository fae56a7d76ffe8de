"""Model cards: a README.md whose first lines, between `---`, are YAML that hubs read.

A card belongs to the person who wrote it. What zoo knows better than anyone (what library loads the
model, what it measured) is kept current in the YAML; every other line of the YAML, and the body,
byte for byte, stays.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.errors import HubError

__all__ = [
    "LIMIT",
    "Card",
    "draft",
    "eval_results",
    "merge",
    "model_index",
    "parse",
    "plain",
    "render",
    "stamp",
]

LIMIT = 1 << 20  # characters; a longer card is not a card
_FRONT_LIMIT = 1 << 19
_DEPTH = 64  # of brackets or dashes: reading YAML takes time quadratic in it
OWNED = ("library_name", "model-index", "zoo")  # keys that a push keeps current
UNITED = ("tags",)  # lists to which a push adds


@dataclass(frozen=True)
class Card:
    """A card taken apart: `front` is the YAML's text (None without one), `meta` its values."""

    front: str | None
    body: str
    meta: dict[str, Any] = field(default_factory=dict)
    newline: str = "\n"


def parse(text: str) -> Card:
    """Take a card apart; `front` and `body` keep every character.

    Raises:
        HubError: the YAML is not a plain mapping, or the card is longer than 1 MiB.
    """
    import yaml

    if len(text) > LIMIT:
        raise HubError("README.md is longer than 1 MiB; a model card should be shorter.")
    opening = re.match(r"\s*---[ \t]*(\r?\n)", text)
    if opening is None:
        return Card(None, text)
    closing = re.compile(r"^---[ \t]*(?:\r?\n|\Z)", re.MULTILINE).search(text, opening.end())
    if closing is None:
        return Card(None, text)  # a rule at the top, not a block
    newline = opening[1]
    front, body = text[opening.end() : closing.start()], text[closing.end() :]
    if len(front) > _FRONT_LIMIT or _is_deep(front):
        raise HubError("README.md begins with metadata too long or too deeply nested; shorten it.")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(front, Loader=_loader())):
            raise HubError("README.md uses YAML aliases in its metadata; write the values out.")
        meta = yaml.load(front, Loader=_loader())  # a safe loader: it makes plain values only
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 2})" if where else ""
        raise HubError(f"README.md begins with metadata that is not YAML{line}; mend it.") from None
    if meta is not None and not isinstance(meta, dict):
        raise HubError("README.md begins with metadata that is not `key: value` lines; mend it.")
    return Card(front, body, {str(k): v for k, v in (meta or {}).items()}, newline)


def render(meta: Mapping[str, Any], body: str) -> str:
    """A card from its metadata and its body."""
    return f"---\n{_dump(meta)}---\n{body}"


def merge(theirs: str, ours: str) -> tuple[str, bool]:
    """The card on the hub brought up to date with ours; and whether our body was left out.

    The YAML keeps their lines, except for the keys zoo owns; tags and keys they lack are added. The
    body is theirs, unless it is still what the last push of zoo wrote (its sha256 stands in the
    metadata): only then does it follow ours.

    Raises:
        HubError: one of the two has metadata that cannot be read.
    """
    there, here = parse(theirs), parse(ours)
    known = _mapping(there.meta.get("zoo"))
    ours_is_newer = there.body == here.body or known.get("body") == body_digest(there.body)
    body = here.body if ours_is_newer else there.body
    meta = {**here.meta, **{k: v for k, v in there.meta.items() if k not in OWNED}}
    for key in UNITED:
        if key in here.meta:
            meta[key] = _united(there.meta.get(key), here.meta[key])
    for key in OWNED:
        if key in there.meta and key not in here.meta:
            meta[key] = there.meta[key]
    if "model-index" in there.meta and "model-index" in here.meta:
        meta["model-index"] = _merged_index(there.meta["model-index"], here.meta["model-index"])
    meta["zoo"] = {**known, **_mapping(here.meta.get("zoo"))}
    meta["zoo"].pop("body", None)
    # Whoever edited the body on the hub keeps it: without a digest that fits, it stays theirs.
    digest = body_digest(body) if ours_is_newer else known.get("body")
    if digest:
        meta["zoo"]["body"] = digest
    if not meta["zoo"]:
        del meta["zoo"]
    return _replace(there, meta, body), not ours_is_newer


def stamp(text: str) -> str:
    """Record the body's sha256 in the metadata: by it the next push sees an edit."""
    there = parse(text)
    own = {**_mapping(there.meta.get("zoo")), "body": body_digest(there.body)}
    return _replace(there, {**there.meta, "zoo": own}, there.body)


def body_digest(body: str) -> str:
    """What `stamp` records: line ends and space at the ends do not count."""
    text = body.replace("\r\n", "\n").strip()
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def draft(
    title: str,
    description: str = "",
    meta: Mapping[str, Any] | None = None,
    measured: Mapping[str, Mapping[str, float]] | None = None,
    task: str = "",
) -> str:
    """A new card: metadata, a title, a text and a table of measured numbers."""
    meta = {"library_name": "multimodal-zoo", **(meta or {})}
    meta["tags"] = list(dict.fromkeys([*(meta.get("tags") or []), "zoo"]))
    lines = [f"# {title}", ""]
    if description:
        lines += [description.strip(), ""]
    if measured:
        meta["model-index"] = model_index(title, measured, task)
        lines += ["| measured on | what | value |", "|---|---|---|"]
        for data, numbers in measured.items():
            lines += [
                f"| {data} | {what} | {_number(value):g} |" for what, value in numbers.items()
            ]
        lines.append("")
    return render(meta, "\n" + "\n".join(lines))


def model_index(name: str, measured: Mapping[str, Mapping[str, float]], task: str = "") -> list:
    """The `model-index` of a card from `{data set: {metric: value}}`.

    Raises:
        HubError: a value is not a finite number.
    """
    results = []
    for data, numbers in measured.items():
        metrics = [
            {"type": what, "name": what, "value": _number(value, f"{data} {what}")}
            for what, value in numbers.items()
        ]
        result = {"dataset": {"name": data, "type": data}, "metrics": metrics}
        results.append({"task": {"type": task or "other"}, **result})
    return [{"name": name, "results": results}]


def eval_results(measured: Mapping[str, Mapping[str, float]], task: str = "default") -> str:
    """`.eval_results/zoo.yaml`, the newer form, for data sets of the hub (`owner/name`)."""
    rows = [
        {"dataset": {"id": data, "task_id": task}, "value": _number(value), "notes": what}
        for data, numbers in measured.items()
        if data.count("/") == 1
        for what, value in numbers.items()
    ]
    return _dump(rows) if rows else ""


def plain(value: Any) -> Any:
    """YAML's dates and the like as JSON can hold them."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _loader() -> Any:
    """The safe loader in C if PyYAML was built with it: ten times faster."""
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _is_deep(front: str) -> bool:
    level = 0
    for match in re.finditer(r"[\[\]{}]", front):
        level = level + 1 if match.group() in "[{" else max(0, level - 1)
        if level > _DEPTH:
            return True
    return re.search(rf"(?:[-?]\s+){{{_DEPTH}}}", front) is not None


def _number(value: Any, what: str = "a measured value") -> float | int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise HubError(
            f"{what} is {value!r}, which is not a finite number and cannot be in a card."
        )
    return value


def _united(theirs: Any, ours: Any) -> list:
    both = [v if isinstance(v, list) else [] if v is None else [v] for v in (theirs, ours)]
    return [*both[0], *(v for v in both[1] if v not in both[0])]


def _mapping(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def _merged_index(theirs: Any, ours: Any) -> Any:
    """Results of the same task and data set are ours; others, and other models, stay."""
    if not isinstance(theirs, list) or not isinstance(ours, list):
        return ours or theirs
    merged = []
    waiting = {entry.get("name"): entry for entry in ours if isinstance(entry, dict)}
    for entry in theirs:
        new = waiting.pop(entry.get("name"), None) if isinstance(entry, dict) else None
        if new is not None:
            fresh = list(new.get("results") or [])
            kept = [r for r in entry.get("results") or [] if _about(r) not in map(_about, fresh)]
            entry = {**entry, "results": [*kept, *fresh]}
        merged.append(entry)
    return [*merged, *waiting.values()]


def _about(result: Any) -> Any:
    task, data = (_mapping(_mapping(result).get(key)) for key in ("task", "dataset"))
    return task.get("type"), data.get("type") or data.get("name")


def _replace(card: Card, meta: Mapping[str, Any], body: str) -> str:
    """The card with new values: lines of keys that do not change stay as they were written."""
    import yaml

    if card.front is None:
        return render(meta, body) if meta else body
    # The places where YAML itself begins a new line, so that its line numbers fit.
    breaks = r"(?<=[\n\x85\u2028\u2029])|(?<=\r)(?!\n)"
    lines = [line for line in re.split(breaks, card.front) if line]
    node = yaml.compose(card.front, Loader=_loader())
    if node is not None and getattr(node, "flow_style", False):
        return render(meta, body)  # `{a: b}` on one line has no lines to keep
    out: list[str] = []
    keys = [] if node is None else [(str(k.value), k.start_mark.line) for k, _ in node.value]
    starts = [line for _, line in keys] + [len(lines)]
    out += lines[: starts[0]]
    for (key, start), end in zip(keys, starts[1:]):
        if key in meta and meta[key] == card.meta.get(key):
            out += lines[start:end]
            continue
        if key in meta:
            out.append(_dump({key: meta[key]}).replace("\n", card.newline))
        # Comments and empty lines between this key and the next one belong to the person.
        last = max((i for i in range(start, end) if _says_something(lines[i])), default=start)
        out += lines[last + 1 : end]
    if out and not out[-1].endswith("\n"):
        out.append(card.newline)
    new = {key: value for key, value in meta.items() if key not in card.meta}
    out.append(_dump(new).replace("\n", card.newline) if new else "")
    return f"---{card.newline}{''.join(out)}---{card.newline}{body}"


def _says_something(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _dump(value: Any) -> str:
    import yaml

    return yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True, width=100)
