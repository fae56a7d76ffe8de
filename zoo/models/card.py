"""The README.md that goes with stored weights."""

from __future__ import annotations

from typing import Any

__all__ = ["model_card"]


def model_card(config: Any, numbers: dict[str, Any] | None = None) -> str:
    """Returns Markdown with the metadata that hubs read; `numbers` are measured results by name."""
    card = config.card
    lines = ["---", "library_name: zoo"]
    if card.license:
        lines.append(f"license: {card.license}")
    lines += ["tags:", f"- {config.zoo_kind}", "---", "", f"# {card.title or config.zoo_kind}", ""]
    if card.summary:
        lines += [card.summary, ""]
    facts = {"Trained on": card.data, "Paper": card.paper}
    lines += [f"* {key}: {value}" for key, value in facts.items() if value]
    lines += [f"* {key}: {value}" for key, value in (numbers or {}).items()]
    lines += ["", "```python", "import zoo", "", 'model = zoo.load("hf:ORG/NAME")', "```", ""]
    return "\n".join(lines)
