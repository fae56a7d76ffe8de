"""zoo doctor: what it sees, and that it keeps secrets."""

import json
import sys
import types
from importlib.metadata import PackageNotFoundError

import pytest

from zoo.doctor import hub as hub_section
from zoo.doctor import libraries, names, system, weights
from zoo.doctor.report import SECTIONS, Finding, examine

TOKEN = "hf_" + "s3cr3t" * 6


def by_name(findings):
    return {finding.name: finding for finding in findings}


@pytest.fixture
def quick(monkeypatch):
    """The report without starting another interpreter."""
    monkeypatch.setattr(libraries, "_loads_together", lambda: iter(()))


def test_every_section_reports(quick):
    findings = [*examine()]
    assert [*dict.fromkeys(f.section for f in findings)] == [
        section for section in SECTIONS if section in {f.section for f in findings}
    ]
    assert {"system", "libraries", "accelerator", "hub", "names"} <= {f.section for f in findings}


def test_core_libraries_are_seen_with_their_versions(quick):
    import torch

    found = by_name(libraries.look())
    assert found["torch"].state == "ok"
    assert torch.__version__.startswith(found["torch"].text)
    assert "soundfile [audio]" in found and "pytest" not in " ".join(found)


def test_a_version_outside_the_bounds_is_broken(quick, monkeypatch):
    real = libraries.version
    monkeypatch.setattr(libraries, "version", lambda n: "2.15.0" if n == "torch" else real(n))
    found = by_name(libraries.look())["torch"]
    assert found.state == "broken" and found.text.startswith("2.15.0 is outside ")
    assert found.advice.startswith("pip install 'torch")


def test_what_is_missing_is_broken_in_the_core_and_absent_as_an_extra(quick, monkeypatch):
    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(libraries, "version", version)
    found = by_name(libraries.look())
    assert found["timm"].state == "broken"
    assert found["soundfile [audio]"].state == "absent"
    assert found["soundfile [audio]"].advice == "pip install 'multimodal-zoo[audio]'"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "nms does not exist"),
        ("import os; os._exit(139)", "ended the process (exit code 139)"),
    ],
)
def test_a_library_that_does_not_load_has_a_name(code, said, tmp_path, monkeypatch):
    (tmp_path / "whole.py").write_text("")
    (tmp_path / "halved.py").write_text(code)
    monkeypatch.setattr(libraries, "COMPILED", ("whole", "halved"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (found,) = libraries._loads_together()
    assert (found.name, found.state) == ("import halved", "broken")
    assert said in found.text


def test_libraries_that_load(monkeypatch):
    monkeypatch.setattr(libraries, "COMPILED", ("json", "math"))
    (found,) = libraries._loads_together()
    assert found.state == "ok" and found.text == "json, math load beside each other"


def test_a_broken_torch_is_not_imported_again(monkeypatch):
    def look():
        yield Finding("libraries", "import torch", "broken", "crashed")

    monkeypatch.setattr(libraries, "look", look)
    sections = {finding.section for finding in examine()}
    assert "accelerator" not in sections and "hub" in sections


def test_a_section_that_fails_is_a_finding(monkeypatch):
    def look():
        raise RuntimeError("what now")

    monkeypatch.setattr(system, "look", look)
    (found,) = examine(("system",))
    assert (found.state, found.text) == ("broken", "RuntimeError: what now")


def test_an_old_python_is_broken(monkeypatch):
    monkeypatch.setattr(system, "OLDEST", (9, 0))
    assert by_name(system.look())["python"].state == "broken"


# -- the hub -------------------------------------------------------------------------------------


def test_the_token_is_present_and_never_shown(monkeypatch, capsys, quick):
    from zoo.cli import main

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    found = by_name(hub_section.look())["token"]
    assert (found.state, found.text) == ("ok", "present (from HF_TOKEN)")
    for words in (["doctor"], ["doctor", "--json"]):
        main(words)
        assert "s3cr3t" not in "".join(capsys.readouterr())


def test_no_token_is_absent(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert by_name(hub_section.look())["token"].state == "absent"


def test_endpoint_without_its_password(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://me:secret@hub.example.com")
    assert by_name(hub_section.look())["endpoint"].text == "https://hub.example.com"


def test_cache_is_where_it_will_be(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "not" / "yet"))
    found = by_name(hub_section.look())["cache"]
    assert found.state in ("ok", "note") and found.text.startswith(str(tmp_path / "not" / "yet"))
    monkeypatch.setattr(hub_section.os, "access", lambda *_: False)
    assert by_name(hub_section.look())["cache"].state == "broken"


def test_little_room_is_worth_a_note(monkeypatch, tmp_path):
    usage = types.SimpleNamespace(free=1e9)
    monkeypatch.setattr(hub_section.shutil, "disk_usage", lambda _: usage)
    found = by_name(hub_section.look())["cache"]
    assert found.state == "note" and "1.0 GB free" in found.text and found.advice


# -- names and weights ---------------------------------------------------------------------------


@pytest.fixture
def no_plugins(monkeypatch):
    """Without the plugins that happen to be installed."""
    from zoo.registry import forget

    monkeypatch.setenv("ZOO_PLUGINS", "off")
    forget()
    yield
    monkeypatch.undo()
    forget()


@pytest.fixture
def more_names(monkeypatch, tmp_path):
    from zoo.registry import forget

    (tmp_path / "norm").mkdir()
    monkeypatch.setenv("ZOO_CONF_PATH", str(tmp_path))
    forget()
    yield tmp_path
    monkeypatch.undo()
    forget()


def test_names_of_ours_read(more_names):
    found = by_name(names.look())
    assert found["of zoo"].state == "ok" and int(found["of zoo"].text.split()[0]) > 20
    assert not [f for f in found.values() if f.state == "broken"]


def test_a_misspelt_key_in_a_file_is_found(more_names):
    (more_names / "norm" / "mine.yaml").write_text("kind: rms\nepz: 1e-5\n")
    found = by_name(names.look())["norm mine"]
    assert found.state == "broken" and "'eps'" in found.text


def test_a_name_that_stands_twice_is_found(more_names):
    (more_names / "norm" / "rms.yaml").write_text("kind: rms\n")
    found = by_name(names.look())["norm rms"]
    assert found.state == "broken" and "Two places provide norm 'rms'" in found.text


def test_a_broken_plugin_is_found(monkeypatch, no_plugins):
    module = sys.modules["zoo.registry.plugins"]  # zoo.registry.plugins is also a function
    plugin = module.Plugin("acme", "zoo_acme", "zoo-acme 0.1", error="SyntaxError: line 3")
    monkeypatch.setattr(module, "plugins", lambda: {"acme": plugin})
    found = by_name(names.look())["plugin acme"]
    assert found.state == "broken" and "SyntaxError: line 3" in found.text
    assert found.advice == "mend it, or: pip uninstall zoo-acme"


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    import hashlib

    content = b"weights"
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.safetensors").write_bytes(content)
    sums = {"tiny/model.safetensors": hashlib.sha256(content).hexdigest()}
    (tmp_path / "checksums.json").write_text(json.dumps(sums))
    monkeypatch.setattr(weights.shipped, "ASSETS", tmp_path)
    monkeypatch.setattr(weights.shipped, "shipped_models", lambda: {"tiny-model": "tiny"})
    return tmp_path / "tiny" / "model.safetensors"


def test_whole_weights(shipped):
    assert [*weights.look()] == [Finding("weights", "tiny-model", "ok", "1 files are whole")]


def test_a_flipped_bit_is_found(shipped):
    shipped.write_bytes(b"weightt")
    (found,) = weights.look()
    assert found.state == "broken" and found.text == "tiny/model.safetensors is damaged"


def test_missing_weights_are_found(shipped):
    shipped.unlink()
    (found,) = weights.look()
    assert found.state == "broken" and found.text == "tiny/model.safetensors is missing"
    (shipped.parent.parent / "checksums.json").unlink()
    (found,) = weights.look()
    assert found.state == "broken" and "no checksums" in found.text


# -- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("absent", 0), ("note", 0), ("broken", 1)])
def test_exit_code(state, code, monkeypatch, capsys):
    from zoo.cli import main
    from zoo.doctor import report

    found = Finding("system", "python", state, "3.11", "advice")
    monkeypatch.setattr(report, "examine", lambda: iter([found]))
    assert main(["doctor"]) == code
    assert f"system\tpython\t{state}\t3.11 (advice)\n" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == code
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"ok": state != "broken", "findings": [vars(found)]}


def test_on_a_terminal(monkeypatch, capsys):
    from zoo.cli import main
    from zoo.cli.commands import doctor
    from zoo.doctor import report

    findings = [Finding("hub", "token", "broken", "[text]", "[advice]")]
    monkeypatch.setattr(report, "examine", lambda: iter(findings))
    monkeypatch.setattr(doctor, "is_terminal", lambda: True)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "✗" in out and "[text]" in out and "[advice]" in out and "1 broken: token" in out


@pytest.mark.parametrize(
    ("there", "setting", "state", "text"),
    [
        (True, "auto", "ok", "zoo's own"),
        (False, "auto", "absent", "without a C compiler"),
        (False, "torch", "note", "ZOO_LINEAR=torch"),
    ],
)
def test_kernels_are_there_or_it_says_why(there, setting, state, text, monkeypatch):
    monkeypatch.setattr("zoo.nn.native.library", lambda: object() if there else None)
    monkeypatch.setenv("ZOO_LINEAR", setting)
    found = next(f for f in examine(("accelerator",)) if f.name == "kernels")
    assert found.state == state and text in found.text
    assert bool(found.advice) == (state == "absent")
