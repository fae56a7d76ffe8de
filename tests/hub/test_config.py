"""A configuration from a stranger is plain data or it is refused: one test per known trick."""

import json
import os
import subprocess
import sys

import pytest

from zoo.errors import ConfigError
from zoo.hub.config import read_hub_config

GOOD = {"zoo": {"format": 1}, "config": {"kind": "vit", "depth": 2, "eps": 1e-6, "x": [1, None]}}


@pytest.fixture
def config(tmp_path):
    def write(value):
        file = tmp_path / "config.json"
        text = value if isinstance(value, (str, bytes)) else json.dumps(value)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


def test_plain_data_comes_back_as_it_is(config):
    assert read_hub_config(config(GOOD)) == GOOD
    assert read_hub_config(config(GOOD), foreign=True) == GOOD


def deep(value):
    return {"group": "model", "config": {"blocks": [{"norm": value}]}}


TRICKS = {
    "hydra target": (deep({"_target_": "os.system", "command": "touch MARKER"}), "_target_"),
    "hydra args": (deep({"_args_": ["touch MARKER"]}), "_args_"),
    "hydra partial": ({"_partial_": True}, "_partial_"),
    "lightning": ({"_instantiator": "lightning.pytorch.cli.instantiate_module"}, "_instantiator"),
    "unpickled": ({"_target_": "torch.load", "f": "x.bin", "weights_only": False}, "_target_"),
    "written": ({"_target_": "pathlib.Path.write_text", "data": "x"}, "_target_"),
    "environment": ({"license": "${oc.env:HF_TOKEN}"}, "license"),
    "environment in a list": (deep(["a", "${oc.env:HF_TOKEN}"]), r"config\.blocks\[0\]\.norm\[1\]"),
    "environment in a key": ({"${oc.env:HF_TOKEN}": 1}, "interpolation"),
    "nested interpolation": ({"a": "x${${b}}"}, "a holds"),
    "auto_map": ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
    "auto_map inside": (deep({"auto_map": {"AutoModel": "evil--x.Model"}}), "auto_map"),
    "trust_remote_code": ({"trust_remote_code": True}, "trust_remote_code"),
    "trust_remote_code inside": ({"text_config": {"trust_remote_code": True}}, "text_config.trust"),
    "attention code": ({"_attn_implementation_internal": "evil/kernel"}, "_attn_implementation"),
    "pipelines": ({"custom_pipelines": {"x": {"impl": "evil.P"}}}, "custom_pipelines"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_are_refused_naming_file_and_key(config, trick, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    value, said = TRICKS[trick]
    with pytest.raises(ConfigError, match=said) as caught:
        read_hub_config(config(value))
    text = str(caught.value)
    assert "config.json" in text and text.count("\n") == 0 and len(text) < 300
    assert token not in text


FOREIGN = {
    "hydra target": {"model": {"_target_": "os.system"}},
    "auto_map": {"auto_map": {"AutoModel": "modeling.Model"}},
    "nested auto_map": {"vision_config": {"auto_map": {}}},
    "trust_remote_code": {"text_config": {"trust_remote_code": False}},
    "pipelines": {"custom_pipelines": {}},
    "generation code": {"custom_generate": "evil/decoding"},
    "internal attention": {"_attn_implementation_internal": "sdpa"},
    "kernel from a repository": {"attn_implementation": "evil/kernel"},
    "kernel with underscore": {"_attn_implementation": "evil/kernel@main:f"},
    "kernel per part": {"attn_implementation": {"text": "sdpa", "vision": "evil/kernel"}},
    "experts from a repository": {"_experts_implementation": "evil/experts"},
}


@pytest.mark.parametrize("trick", FOREIGN)
def test_foreign_configurations_may_not_choose_code(config, trick):
    with pytest.raises(ConfigError, match=r"config\.json: .*refused"):
        read_hub_config(config(FOREIGN[trick]), foreign=True)


def test_foreign_configurations_keep_their_harmless_oddities(config, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    value = {
        "_name_or_path": "google/vit",
        "_attn_implementation_autoset": True,
        "_attn_implementation": "sdpa",
        "attn_implementation": {"text_config": "eager", "vision_config": None},
        "template": "${oc.env:HF_TOKEN}",
        "transformers_version": "5.0",
    }
    assert read_hub_config(config(value), foreign=True) == value


BROKEN = {
    "ten megabytes": (b'{"a": "' + b"x" * 10_000_000 + b'"}', "larger than 1 MiB"),
    "depth bomb": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested deeper"),
    "list bomb": (b'{"a":' + b"[" * 33 + b"]" * 33 + b"}", "nested deeper"),
    "unclosed bomb": (b'{"a":' + b"[" * 200_000, "nested deeper"),
    "twice": (b'{"kind": "vit", "kind": "evil"}', "key kind twice"),
    "twice inside": (b'{"a": [{"b": 1, "b": 2}]}', "key b twice"),
    "twice by escape": (b'{"kind": 1, "\\u006bind": 2}', "key kind twice"),
    "not a number": (b'{"eps": NaN}', "NaN"),
    "infinity": (b'{"eps": Infinity}', "Infinity"),
    "minus infinity": (b'{"eps": -Infinity}', "-Infinity"),
    "overflow": (b'{"eps": 1e999}', "not a finite number"),
    "huge number": (b'{"n": ' + b"9" * 100_000 + b"}", "100000 digits"),
    "list": (b"[1, 2]", "not a JSON object"),
    "text": (b'"x"', "not a JSON object"),
    "empty": (b"", "not JSON"),
    "comment": (b'{"a": 1} // x', "not JSON"),
    "yaml": (b"_target_: os.system", "not JSON"),
    "python": (b"{'a': 1}", "not JSON"),
    "pickle": (b"\x80\x04\x95cos\nsystem\n(S'touch MARKER'\ntR.", "not UTF-8"),
    "utf-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    "byte order mark": (b'\xef\xbb\xbf{"a": 1}', "not JSON"),
}


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("broken", BROKEN)
def test_files_that_are_no_configuration_are_refused(config, broken, foreign):
    data, said = BROKEN[broken]
    with pytest.raises(ConfigError, match=said) as caught:
        read_hub_config(config(data), foreign=foreign)
    assert "config.json" in str(caught.value) and len(str(caught.value)) < 300


def test_brackets_inside_of_texts_are_no_depth(config):
    value = {"a": "[" * 1000 + '"\\' + "{" * 1000}
    assert read_hub_config(config(value)) == value


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        read_hub_config(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_hub_config(tmp_path)


def test_an_odd_key_cannot_break_the_message(config):
    with pytest.raises(ConfigError) as caught:
        read_hub_config(config({"_" + "x\n" * 500: 1}))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_reading_runs_and_imports_nothing(config, tmp_path):
    """All tricks in one process: no marker appears, nothing that could run code is imported."""
    tricks = [value for value, _ in TRICKS.values()]
    script = """
import json, sys
from zoo.hub.config import read_hub_config
for value in json.loads(sys.stdin.read()):
    for foreign in (False, True):
        with open("config.json", "w") as file:
            json.dump(value, file)
        try:
            read_hub_config("config.json", foreign=foreign)
        except ValueError as error:
            print(error)
bad = ("omegaconf", "hydra", "torch", "transformers", "yaml", "huggingface_hub")
assert not [name for name in bad if name in sys.modules]
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(tricks),
        text=True,
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "HF_TOKEN": "hf_mustNotAppear", "PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == 0, done.stderr
    assert "hf_mustNotAppear" not in done.stdout + done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json"]
