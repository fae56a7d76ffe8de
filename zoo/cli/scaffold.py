"""`zoo plugins new NAME`: writes a working plugin to start from.

What is written is a copy of `templates/plugin`, which is a working plugin itself, called acme.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from zoo.errors import PluginError
from zoo.registry.plugins import check_namespace, plugins

__all__ = ["main", "write_plugin"]

TEMPLATE = Path(__file__).parent / "templates" / "plugin"


def main(argv: list[str]) -> int:
    """Runs `zoo plugins new` on its words and returns the exit code."""
    parser = argparse.ArgumentParser(prog="zoo plugins new", description=__doc__)
    parser.add_argument("name", help="its namespace: names are then NAME/…")
    parser.add_argument("--dir", default=".", help="folder to write it to (default: this one)")
    arguments = parser.parse_args(argv)
    folder = write_plugin(arguments.name, Path(arguments.dir))
    name = arguments.name
    print(
        f"Wrote {folder}. Next:\n"
        f"  pip install -e {folder}\n"
        f"  zoo plugins\n"
        f"  zoo train model={name}/tiny data={name}/squares trainer.steps=100\n"
        f"  pytest {folder}\n"
        f"Its README.md says what goes where."
    )
    return 0


def write_plugin(name: str, parent: Path) -> Path:
    """Writes the distribution `zoo-NAME` to `parent` and returns its folder.

    Raises: PluginError when the name cannot be a namespace or is taken, or the folder is there.
    """
    check_namespace(name)
    if name in plugins():
        raise PluginError(
            f"A plugin {name!r} is installed already ({plugins()[name].distribution}); "
            "take another name."
        )
    folder = parent / f"zoo-{name}"
    if folder.exists():
        raise PluginError(f"{folder} is there already; take another name or folder.")
    parent.mkdir(parents=True, exist_ok=True)
    # Written beside and renamed, so that an interrupted call leaves nothing that looks whole.
    with tempfile.TemporaryDirectory(dir=parent, prefix=".zoo-new-") as scratch:
        for source in sorted(TEMPLATE.rglob("*")):
            if source.is_file() and "__pycache__" not in source.parts:
                target = Path(scratch, "it", _renamed(str(source.relative_to(TEMPLATE)), name))
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(_renamed(source.read_text("utf-8"), name), "utf-8")
        shutil.move(Path(scratch, "it"), folder)
    return folder


def _renamed(text: str, name: str) -> str:
    """Returns the template's text for another name; a package is a word that Python can import."""
    word = name.replace("-", "_")
    return (
        text.replace("zoo_acme", f"zoo_{word}")
        .replace("test_acme", f"test_{word}")
        .replace("acme", name)
    )
