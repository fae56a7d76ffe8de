"""Folders of names and plugins made of a few files, seen by this process for one test."""

import sys
from pathlib import Path

import pytest

from zoo.registry import forget
from zoo.registry.schema import KINDS

SCHEMA = """
from dataclasses import dataclass
from zoo.nn.schema import NormConfig
from zoo.registry import kind, setting


@kind("norm", "{name}/half", builds="{package}.code:Half")
@dataclass(kw_only=True)
class HalfConfig(NormConfig):
    factor: float = setting(0.5, "what everything is multiplied by", above=0.0)
"""


@pytest.fixture(autouse=True)
def _fresh_registry(monkeypatch):
    """Nothing that a test adds is there in the next one, and no plugin of this machine is here."""
    modules = set(sys.modules)
    monkeypatch.setenv("ZOO_PLUGINS", "off")
    monkeypatch.delenv("ZOO_CONF_PATH", raising=False)
    forget()
    yield
    monkeypatch.undo()
    for key, schema in list(KINDS.items()):
        if not schema.__module__.startswith(("zoo.", "zoo_timm.")):
            del KINDS[key]
    for name in set(sys.modules) - modules:
        if name.startswith("zoo_") and not name.startswith("zoo_timm"):
            del sys.modules[name]
    forget()


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """conf({"norm/soft.yaml": "kind: layer"}) adds nodes, as a user does by ZOO_CONF_PATH."""

    def add(files: dict[str, str], folder: str = "my-names") -> Path:
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        monkeypatch.setenv("ZOO_CONF_PATH", str(write(root, files)))
        forget()
        return root

    return add


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """plugin("acme", {"schema.py": ...}) puts a distribution with one package on sys.path."""

    added: list[str] = []

    def add(
        name: str = "acme",
        files: dict[str, str] | None = None,
        *,
        distribution: str | None = None,
        package: str | None = None,
        entry: str | None = None,
    ) -> Path:
        distribution, package = distribution or f"zoo-{name}", package or f"zoo_{name}"
        if files is None:
            files = {
                "schema.py": SCHEMA.format(name=name, package=package),
                f"conf/norm/{name}/half.yaml": f"kind: {name}/half\n",
            }
        site = tmp_path / f"site-{distribution}"
        write(site / package.replace(".", "/"), {"__init__.py": "", **files})
        info = f"{distribution.replace('-', '_')}-0.1.dist-info"
        write(
            site / info,
            {
                "METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1\n",
                "entry_points.txt": f"[zoo.plugins]\n{name} = {entry or package}\n",
            },
        )
        monkeypatch.syspath_prepend(str(site))
        added.append(name)
        monkeypatch.setenv("ZOO_PLUGINS", ",".join(added))
        forget()
        return site / package.replace(".", "/")

    return add
