"""Wheel and sdist hold every name, and an installed wheel finds them far from a checkout."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import zoo
from zoo.nn import native

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="needs a git checkout"
)


def tracked(*folders):
    """Returns the files that git knows of and that are there."""
    run = subprocess.run(
        ["git", "ls-files", "-z", *folders], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return sorted(path for path in run.stdout.split("\0") if path and (ROOT / path).is_file())


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A clean copy of what git tracks, without a stale build folder."""
    folder = tmp_path_factory.mktemp("source")
    for path in tracked():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path)
    return folder


def build(copy, kind, target):
    """Builds with the installed setuptools (no isolation: no network) and returns the archive."""
    code = f"import setuptools.build_meta as b; print(b.build_{kind}({str(target)!r}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return Path(target) / run.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(copy, tmp_path_factory):
    return build(copy, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel, built from the unpacked source distribution as an index would."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (inside,) = folder.iterdir()
    return build(inside, "wheel", tmp_path_factory.mktemp("wheel"))


def test_wheel_holds_exactly_what_git_tracks(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = [n for n in archive.namelist() if ".dist-info/" not in n]
    compiled = [n for n in inside if n.startswith("zoo/nn/native/kernels.") and n.endswith(".so")]
    assert len(compiled) == (native.library() is not None)
    inside = sorted(set(inside) - set(compiled))
    expected = [re.sub("^conf/", "zoo/conf/", path) for path in tracked("zoo", "conf")]
    assert inside == sorted(expected)


def test_sdist_holds_what_tests_and_tools_need(sdist):
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert set(tracked("zoo", "conf", "tests", "tools", "plugins")) <= inside
    assert {"Makefile", "constraints.txt", "LICENSE", "README.md", "pyproject.toml"} <= inside
    assert not [name for name in inside if "__pycache__" in name]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A function that runs Python code where the wheel is installed and no checkout is in sight."""
    folder = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # The libraries of this environment, but neither its .pth files nor its editable installs.
    Path(site, "libraries.pth").write_text(sysconfig.get_path("purelib"))

    def run(code, *words):
        return subprocess.run(
            [python, "-c", code, *words],
            cwd=folder,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "ZOO_PLUGINS": "off"},
        )

    return run


_READ = """
import json, sys, zoo
from zoo.registry import GROUPS, find_node, read_mapping
names = {g: zoo.list(g) for g in GROUPS}
for group, found in names.items():
    for name in found:
        assert read_mapping(group, name) is not None
        assert "/venv/" in str(find_node(group, name)[1])
for name in names["model"]:
    zoo.info(name)
heavy = [m for m in ("torch", "timm", "torchaudio", "hydra") if m in sys.modules]
print(json.dumps({"file": zoo.__file__, "names": names, "heavy": heavy}))
"""


def test_an_installed_wheel_lists_and_reads_every_name(installed):
    run = installed(_READ)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert "/venv/" in found["file"] and str(ROOT) not in found["file"]
    committed = {}
    for path in tracked("conf"):
        group, _, rest = path.removeprefix("conf/").partition("/")
        if rest.endswith(".yaml") and not re.search(r"(^|/)[_.]", rest):
            committed.setdefault(group, []).append(rest.removesuffix(".yaml"))
    assert {g: n for g, n in found["names"].items() if n} == {
        g: sorted(n) for g, n in committed.items() if g in found["names"]
    }
    assert found["heavy"] == []


def test_an_installed_wheel_builds_a_model(installed):
    run = installed(
        "import zoo; m = zoo.create('vit-digits', 'backbone.depth=1', seed=0);"
        "import PIL.Image as i; print(len(m.classify(i.new('L', (8, 8)), top=3)))"
    )
    assert run.stdout == "3\n", run.stderr


def test_the_command_of_the_wheel(wheel, installed):
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith("entry_points.txt"))
        assert "zoo = zoo.cli:main" in archive.read(name).decode()
    run = installed("import sys; from zoo.cli import main; sys.exit(main(['list']))")
    assert run.returncode == 0 and "vit-digits" in run.stdout.split()


# -- what pyproject.toml says --------------------------------------------------------------------


def project():
    tomllib = pytest.importorskip("tomllib")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_one_version():
    assert project()["version"] == zoo.__version__


def test_constraints_satisfy_the_bounds():
    from packaging.requirements import Requirement

    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            pins[pin.name] = next(iter(pin.specifier)).version
    lists = [project()["dependencies"], *project()["optional-dependencies"].values()]
    for text in {t for each in lists for t in each}:
        wanted = Requirement(text)
        if wanted.name != "multimodal-zoo":
            assert wanted.name in pins, f"{wanted.name} is not pinned; run: make constraints"
            assert wanted.specifier.contains(pins[wanted.name]), text


def test_core_dependencies_are_the_declared_ones():
    from packaging.requirements import Requirement

    assert {Requirement(text).name for text in project()["dependencies"]} == {
        "torch",
        "torchvision",
        "torchaudio",
        "timm",
        "pillow",
        "hydra-core",
        "einops",
        "huggingface-hub",
        "safetensors",
        "numpy",
        "pyyaml",
        "rich",
    }
