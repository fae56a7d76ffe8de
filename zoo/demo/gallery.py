"""Running the demo: which models ship, who shows them, and the page that comes of it."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from zoo.demo import page
from zoo.errors import UnknownName
from zoo.models import shipped
from zoo.registry.suggest import hint

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Gallery", "modalities", "run"]


@dataclass
class Gallery:
    """Where a modality puts its pictures, and how it talks to the person at the terminal."""

    folder: Path
    say: Callable[[str], None] = print
    pictures: list[Path] = field(default_factory=list)

    def picture(self, image: Image, name: str) -> str:
        """Writes a PNG and returns its address for the page."""
        from zoo.plot import save

        self.pictures.append(save(image, self.folder / f"{name}.png"))
        return f"{name}.png"

    def clip(self, frames: list[Any], name: str, scale: int = 1) -> str:
        """Writes frames as a GIF and returns its address for the page."""
        from zoo.models.generator.pictures import save_clip

        path = self.folder / f"{name}.gif"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.pictures.append(save_clip(frames, path, scale=scale))
        return f"{name}.gif"


def run(
    folder: Path, names: list[str] | None = None, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Loads each shipped model by name, lets its modality show it, and writes index.html.

    Returns what was done: `{"page": …, "models": {name: seconds}, "pictures": count}`.
    Raises: UnknownName when a name is given that does not ship with zoo.
    """
    import zoo

    chosen = _chosen(names)
    gallery = Gallery(folder, say)
    sections: dict[str, str] = {}
    seconds: dict[str, float] = {}
    say(f"Shipped models: {', '.join(chosen) or 'none'}. They need no network and no GPU.")
    import torch  # noqa: F401  # before anything is timed

    for name in chosen:
        config = zoo.config(name)
        modality = next((m for m in modalities() if m.shows(config)), None)
        say(f"\n{_headline(name, config)}")
        if modality is None:
            say(f"  no file in zoo/demo shows {config.zoo_kind} models yet")
            continue
        start = time.perf_counter()
        model = zoo.load(name)
        say(f"  loaded by name in {time.perf_counter() - start:.2f} s")
        blocks = modality.show(name, model, gallery)
        seconds[name] = round(time.perf_counter() - start, 3)
        title, summary = config.card.title or name, config.card.summary or ""
        intro = page.text(f'zoo.load("{name}")'.join("``"))
        sections[name] = page.section(name, modality.TITLE, title, summary, [intro, *blocks])
    index = folder / "index.html"
    index.parent.mkdir(parents=True, exist_ok=True)
    index.write_text(page.page("zoo gallery", _LEAD, sections, _foot()), encoding="utf-8")
    say(f"\n{index}: {len(gallery.pictures)} pictures; open it in a browser.")
    return {"page": str(index), "models": seconds, "pictures": len(gallery.pictures)}


_LEAD = "Models that ship with zoo, loaded by name, on data that ships too. Made by zoo demo."


def modalities() -> Iterator[ModuleType]:
    """Yields the files of this folder that show models, in the order of their names."""
    for file in sorted(Path(__file__).parent.glob("*.py")):
        module = importlib.import_module(f"zoo.demo.{file.stem}") if file.stem[0] != "_" else None
        if module is not None and hasattr(module, "shows"):
            yield module


def _chosen(names: list[str] | None) -> list[str]:
    known = shipped.shipped_models()
    for name in names or []:
        if name not in known:
            near = hint(name, known, f"They are: {', '.join(known) or 'none'}.")
            raise UnknownName(f"No model {name!r} ships with zoo.{near}")
    return names or [*known]


def _headline(name: str, config: Any) -> str:
    from zoo.api.describe import parameter_counts

    count = parameter_counts().get(name)
    size = f" · {count:,} parameters" if count else ""
    return f"{name} · {config.card.title or config.zoo_kind}{size}"


def _foot() -> str:
    import torch

    from zoo import __version__

    return f"zoo {__version__} · torch {torch.__version__} · {torch.get_num_threads()} threads"
