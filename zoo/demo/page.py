"""The gallery as one HTML file: plain tags and a little CSS, no script, nothing from a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

__all__ = ["bars", "card", "facts", "figure", "grid", "heading", "page", "row", "section", "text"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #656d76; --line: #d8dee4; --paper: #fff;
  --panel: #f6f8fa; --good: #1a5fb4; --bad: #c82828; --bar: #b6c9e2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #8d96a0; --line: #30363d;
  --paper: #0d1117; --panel: #161b22; --good: #6cb0ff; --bad: #ff7b72; --bar: #2d4a70; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main, header, footer { max-width: 1120px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 44px; }
header h1 { font-size: 34px; margin: 0; letter-spacing: -0.02em; }
a { color: var(--good); }
header p { color: var(--soft); margin: 4px 0 0; }
section { border-top: 1px solid var(--line); margin-top: 36px; padding-top: 24px; }
h2 { font-size: 22px; margin: 0 0 2px; }
h3 { font-size: 16px; margin: 30px 0 10px; }
p { margin: 6px 0; max-width: 78ch; }
.kicker { color: var(--soft); font-size: 13px; letter-spacing: 0.04em; }
code { font: 0.9em ui-monospace, "DejaVu Sans Mono", monospace; background: var(--panel);
  padding: 1px 5px; border-radius: 4px; }
.facts { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0 6px; padding: 0; }
.facts div { background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: 8px 14px; }
.facts dt { color: var(--soft); font-size: 12px; }
.facts dd { margin: 0; font-size: 18px; font-variant-numeric: tabular-nums; }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(198px, 1fr)); }
.card { border: 1px solid var(--line); border-radius: 10px; padding: 12px; }
.card.bad { border-color: var(--bad); }
.card > .pair { display: flex; gap: 10px; }
.wide { display: flex; flex-wrap: wrap; gap: 16px; align-items: flex-start; }
figure { margin: 0; }
figure img { display: block; max-width: 100%; height: auto; border-radius: 6px;
  border: 1px solid var(--line); }
figure.pixels img { image-rendering: pixelated; }
figcaption { color: var(--soft); font-size: 12.5px; margin-top: 4px; }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: 3px 8px;
  align-items: center; margin-top: 10px; font-size: 13.5px; font-variant-numeric: tabular-nums; }
.bars b { font-weight: 600; }
.bars i { display: block; height: 10px; border-radius: 3px; background: var(--bar);
  min-width: 1px; }
.bars i.right { background: var(--good); }
.bars i.wrong { background: var(--bad); }
footer { color: var(--soft); font-size: 13px; margin-top: 48px; padding-bottom: 40px; }
"""


def page(title: str, lead: str, sections: Mapping[str, str], foot: str) -> str:
    """Returns the whole document; `sections` maps what links to a section to the section."""
    links = " · ".join(f'<a href="#{escape(n, quote=True)}">{escape(n)}</a>' for n in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escape(title)}</h1>\n<p>{escape(lead)}</p>\n"
        f"<p>{links}</p>\n</header>\n<main>\n"
        + "\n".join(sections.values())
        + f"\n</main>\n<footer>{escape(foot)}</footer>\n</body>\n</html>\n"
    )


def section(name: str, kicker: str, title: str, summary: str, blocks: Iterable[str]) -> str:
    """Returns the part of the page that shows one model; `name` is what links to it."""
    head = f'<div class="kicker">{escape(kicker)}</div>\n<h2>{escape(title)}</h2>\n'
    start = f'<section id="{escape(name, quote=True)}">\n{head}{text(summary)}\n'
    return start + "\n".join(blocks) + "\n</section>"


def heading(words: str) -> str:
    """Returns a heading inside a section."""
    return f"<h3>{escape(words)}</h3>"


def text(words: str) -> str:
    """Returns a paragraph; `backticks` become code."""
    parts = escape(words).split("`")
    marked = (f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
    return f"<p>{''.join(marked)}</p>" if words else ""


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Returns a row of small boxes, each a name and its value."""
    boxes = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in pairs)
    return f'<dl class="facts">{boxes}</dl>'


def figure(
    source: str, caption: str = "", *, width: int | None = None, pixels: bool = False
) -> str:
    """Returns a picture with its caption; `pixels` keeps the pixels of a small one visible."""
    size = f' width="{width}"' if width else ""
    under = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    kind = ' class="pixels"' if pixels else ""
    name = escape(caption or source, quote=True)
    return (
        f'<figure{kind}><img src="{escape(source, quote=True)}" alt="{name}"{size}>{under}</figure>'
    )


def bars(shares: Sequence[tuple[str, float]], right: str | None = None) -> str:
    """Returns probabilities as bars, the first being the answer; `right` is what it should be."""
    rows = []
    for index, (label, share) in enumerate(shares):
        tone = "" if index else (" class=right" if right in (None, label) else " class=wrong")
        name = f"<b>{escape(label)}</b>" if label == right else escape(label)
        rows.append(
            f'<span>{name}</span><i{tone} style="width:{100 * share:.1f}%"></i>'
            f"<span>{share:.1%}</span>"
        )
    return f'<div class="bars">{"".join(rows)}</div>'


def card(figures: Sequence[str], *below: str, bad: bool = False) -> str:
    """Returns a box with figures side by side and what stands below them."""
    tone = "card bad" if bad else "card"
    return f'<div class="{tone}"><div class="pair">{"".join(figures)}</div>{"".join(below)}</div>'


def grid(cards: Iterable[str]) -> str:
    """Returns cards in as many columns as fit."""
    return '<div class="grid">\n' + "\n".join(cards) + "\n</div>"


def row(figures: Iterable[str]) -> str:
    """Returns figures side by side."""
    return '<div class="wide">' + "\n".join(figures) + "</div>"
