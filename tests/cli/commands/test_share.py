"""zoo push, pull, verify, hub serve: a round trip through a real hub, from the command line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.hub.server import running_hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of our own; every command of the test talks to it."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with running_hub(tmp_path / "hub") as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        yield url


def test_push_pull_verify(hub, tiny, zoo_command, zoo_json, picture):
    planned = zoo_json("push", tiny, "acme/tiny", "--dry-run")
    assert planned["changed"] and {f[0] for f in planned["files"]} >= {"config.json"}

    code, out, _ = zoo_command("push", tiny, "acme/tiny")
    assert code == 0 and "model.safetensors\tnew\n" in out
    assert out.splitlines()[-1].startswith(f"pushed {hub}/acme/tiny/commit/")
    code, out, _ = zoo_command("push", tiny, "acme/tiny")
    assert code == 0 and out.startswith("nothing to push: ")

    code, out, _ = zoo_command("pull", "hf:acme/tiny")
    folder = Path(out.rstrip("\n"))
    assert code == 0 and (folder / "model.safetensors").is_file()
    assert zoo_json("pull", "hf:acme/tiny")["folder"] == str(folder)

    code, out, _ = zoo_command("verify", "hf:acme/tiny")
    assert code == 0 and out.splitlines()[-1].startswith("whole: ")

    ours = zoo_json("classify", f"dir:{tiny}", picture)
    assert zoo_json("classify", "hf:acme/tiny", picture) == ours


def test_verify_notices_a_flipped_bit(hub, tiny, zoo_command, zoo_json):
    zoo_command("push", tiny, "acme/tiny")
    folder = Path(zoo_json("pull", "hf:acme/tiny")["folder"])
    weights = (folder / "model.safetensors").resolve()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    report = zoo_json("verify", "hf:acme/tiny", code=1)
    assert not report["ok"]
    assert {f["path"]: f["state"] for f in report["files"]}["model.safetensors"] == "damaged"
    code, out, _ = zoo_command("verify", folder)
    assert code == 1 and "model.safetensors\tdamaged\t" in out


def test_verify_a_folder(tiny, zoo_command, hub):
    code, out, _ = zoo_command("verify", tiny)
    assert code == 0 and "model.safetensors\tok\t" in out
    zoo_command("push", tiny, "acme/tiny")
    _, out, _ = zoo_command("verify", tiny, "--against", "acme/tiny")
    assert "model.safetensors\tok\t" in out and "(compared with acme/tiny at " in out


def test_verify_by_name_takes_its_weights_tag(zoo_command, monkeypatch, tmp_path):
    from zoo.registry import forget

    node = "kind: vit\nweights: {hub: {repo: acme/never-pulled}}\n"
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "pulled.yaml").write_text(node)
    monkeypatch.setenv("ZOO_CONF_PATH", str(tmp_path / "conf"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    forget()
    try:
        code, _, err = zoo_command("verify", "pulled", "--offline")
        assert code == 2 and "acme/never-pulled at main is not in the cache" in err
        code, _, err = zoo_command("verify", "vit-base-16.nope")
        assert code == 2 and "'nope'" in err
    finally:
        monkeypatch.undo()
        forget()


def test_push_says_what_is_wrong(hub, zoo_command, tmp_path):
    code, _, err = zoo_command("push", tmp_path / "nowhere", "acme/x")
    assert code == 2 and "no such folder" in err
    (tmp_path / "empty").mkdir()
    code, _, err = zoo_command("push", tmp_path / "empty", "acme/x")
    assert code == 2 and "holds no config.json" in err


def test_options_reach_the_hub(hub, tiny, zoo_json):
    done = zoo_json("push", tiny, "acme/tiny", "--revision", "draft", "--message", "Try it")
    assert done["changed"]
    pulled = zoo_json("pull", "hf:acme/tiny@draft")
    assert Path(pulled["folder"]).name == done["oid"]
    again = zoo_json("pull", "hf:acme/tiny@draft", "--offline")
    assert again == pulled


def test_hub_serve_answers_until_control_c(tmp_path, tiny):
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo", "hub", "serve", "--root", tmp_path / "hub", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "ZOO_HUB_TOKEN": "hf_for_this_test_only"},
    )
    try:
        url = process.stdout.readline().split()[2]
        words = [sys.executable, "-m", "zoo", "push", tiny, "acme/tiny", "--private", "--json"]
        environment = {**os.environ, "HF_ENDPOINT": url, "HF_TOKEN": "hf_for_this_test_only"}
        push = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert push.returncode == 0, push.stderr
        assert json.loads(push.stdout)["changed"]
        environment["HF_TOKEN"] = "hf_wrong_token"
        push = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert push.returncode == 2 and push.stderr.count("\n") == 1
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode in (0, 130) and "Traceback" not in err
    assert "hf_for_this_test_only" not in out + err
