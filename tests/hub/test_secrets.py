"""The token is used and never shown: not in output, files, caches, cards or the hub's folder."""

import os
import subprocess
import sys

import pytest

from zoo.errors import HubError
from zoo.hub.client import push


def files_with(folder, secret):
    return [p for p in folder.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]


SCRIPT = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
from zoo.hub import remote
from zoo.hub.client import pull, push, verify
remote.WAIT = 0.01
folder = sys.argv[1]
print(push(folder, "acme/m", private=True))
print(pull("acme/m"), verify("acme/m"), push(folder, "acme/m", create_pr=True))
for wrong in (
    lambda: pull("acme/none"),
    lambda: pull("acme/m", "v9"),
    lambda: pull("acme/m", allow="*.bin"),
    lambda: push(folder, "acme/m", revision="refs/pr/9"),
):
    try:
        wrong()
    except ValueError as error:
        print("refused:", error)
import os
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
try:
    pull("acme/m", force=True)
except ValueError as error:
    print("refused:", error)
raise RuntimeError("a traceback, too")
"""


@pytest.mark.parametrize("xet", [False, True])
def test_no_output_and_no_file_holds_the_token(start_hub, make_model, tmp_path, token, xet):
    lines = []
    hub = start_hub(token=token, xet=xet, log=lines.append, say=lines.append)
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_DEBUG": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(make_model())],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = done.stdout + done.stderr
    assert done.stdout.count("refused:") == 5 and "a traceback, too" in done.stderr, told
    assert "GET" in "".join(lines) and "Authorization" in "".join(told).title()
    assert token not in told
    assert token not in "".join(lines)
    assert files_with(tmp_path, token) == []


def test_a_hub_that_echoes_the_token_does_not_get_it_printed(hub, make_model, token):
    hub.fail("/api/repos/create", 400)
    real = hub.faults.pop()

    def echo(handler):
        if "/api/repos/create" in handler.path:
            return handler.refuse(
                400, **{"X-Error-Message": f"bad {handler.headers['Authorization']}"}
            )
        return False

    assert real
    hub.faults.append(echo)
    with pytest.raises(HubError) as error:
        push(make_model(), "acme/m")
    assert "***" in str(error.value) and token not in str(error.value)


@pytest.mark.parametrize("name", ["README.md", "tokenizer_config.json", "vocab.txt"])
def test_a_file_that_holds_the_token_is_not_pushed(hub, make_model, token, name):
    folder = make_model()
    (folder / name).write_text(f'{{"note": "{token}"}}')
    with pytest.raises(HubError) as error:
        push(folder, "acme/m")
    assert f"{folder / name} holds an access token" in str(error.value)
    assert token not in str(error.value) and hub.server.storage.names("models") == []


def test_what_looks_like_a_token_is_not_pushed_either(hub, make_model):
    other = "hf_" + "aB3" * 11 + "x"
    with pytest.raises(HubError, match="holds an access token"):
        push(make_model(card=f"my token: {other}"), "acme/m")
    assert push(make_model(card="hf_hub_download is a function"), "acme/m").changed


def test_the_token_is_not_sent_to_another_host(start_hub, make_model, monkeypatch, token):
    """A hub may redirect a download to another place; what is there learns no token."""
    from zoo.hub.client import pull
    from zoo.hub.protocol import Reply

    first = start_hub(token=token, xet=False)
    other = start_hub("other", xet=False)
    monkeypatch.setenv("HF_ENDPOINT", first.url)
    monkeypatch.setenv("HF_TOKEN", token)
    data = (make_model() / "model.safetensors").read_bytes()
    push(make_model(), "acme/m")
    heard = []

    def elsewhere(handler):
        heard.append(handler.headers.get("Authorization"))
        handler._left = 0
        (other.root / "file").write_bytes(data)
        handler.send(Reply(file=other.root / "file"))
        return True

    other.faults.append(elsewhere)

    def redirect(handler, reply):
        return Reply({}, 302, {"Location": f"{other.url}/storage/x"})

    first.change("model.safetensors", redirect)
    assert (pull("acme/m") / "model.safetensors").read_bytes() == data
    assert heard == [None]
