"""Processes killed with SIGKILL at bad moments; what they leave, and how the next one goes on."""

import os
import signal
import subprocess
import sys
import time

import pytest

from zoo.errors import HubError
from zoo.hub.client import pull, push
from zoo.hub.storage import Storage


def run(script, **env):
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


DIE = "os.kill(os.getpid(), signal.SIGKILL)"


def titles(hub):
    repository = hub.server.storage.repository("models", "acme/m")
    return [c.title for c in repository.history("main")]


def test_a_push_killed_after_its_uploads_goes_on(hub, make_model):
    folder = make_model()
    done = run(
        f"""
import os, signal
from huggingface_hub import _commit_api
def die(**_): {DIE}
_commit_api._send_commit = die
from zoo.hub.client import push
push({str(folder)!r}, "acme/m")
"""
    )
    assert done.returncode == -signal.SIGKILL
    assert titles(hub) == ["initial commit"] and hub.count("PUT") == 1
    assert push(folder, "acme/m").changed
    assert titles(hub) == ["Push with zoo", "initial commit"]
    assert hub.count("PUT") == 1  # the content was there


def test_a_push_killed_after_its_commit_is_done(hub, make_model):
    folder = make_model()
    done = run(
        f"""
import os, signal
from huggingface_hub import _commit_api
real = _commit_api._send_commit
def send(**options):
    real(**options)
    {DIE}
_commit_api._send_commit = send
from zoo.hub.client import push
push({str(folder)!r}, "acme/m")
"""
    )
    assert done.returncode == -signal.SIGKILL
    assert titles(hub) == ["Push with zoo", "initial commit"]
    assert not push(folder, "acme/m").changed
    assert titles(hub) == ["Push with zoo", "initial commit"]


def test_a_pull_killed_half_way_is_not_loaded_and_goes_on(hub, make_model, cache):
    """The hub sends half of the weights and waits; the puller is killed there."""
    data = (make_model(numbers=1_000_000) / "model.safetensors").read_bytes()
    push(make_model(numbers=1_000_000), "acme/m")
    ranges = []

    def half(handler):
        if handler.command == "GET" and handler.path.endswith("model.safetensors"):
            ranges.append(handler.headers.get("Range"))
            if len(ranges) == 1:
                handler.send_response(200)
                handler.send_header("Content-Length", str(len(data)))
                handler.end_headers()
                handler.wfile.write(data[: len(data) // 2])
                handler.wfile.flush()
                time.sleep(30)
        return False

    hub.faults.append(half)
    script = "from zoo.hub.client import pull; pull('acme/m')"
    puller = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    blobs = cache / "models--acme--m/blobs"
    limit = time.time() + 30
    while time.time() < limit:
        partial = list(blobs.glob("*.zoo.incomplete"))
        if partial and partial[0].stat().st_size > 1_000_000:
            break
        time.sleep(0.02)
    puller.kill()
    puller.wait()
    with pytest.raises(HubError, match=r"incomplete .*missing: .*model\.safetensors"):
        pull("acme/m", offline=True)
    folder = pull("acme/m")
    assert (folder / "model.safetensors").read_bytes() == data
    assert ranges[1].startswith("bytes=") and int(ranges[1][6:-1]) > 1_000_000
    assert not list(blobs.glob("*incomplete"))


@pytest.mark.parametrize("delay", [0.02, 0.15])
def test_a_hub_killed_while_it_takes_pushes_serves_a_whole_state(tmp_path, make_model, delay):
    """Pushes run until the hub is killed; then every commit in the history can be read in full."""
    script = f"""
from zoo.hub.server import HubServer
server = HubServer({str(tmp_path / "hub")!r}, token=None, xet=False)
print(server.url, flush=True)
server.run()
"""
    hub = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    url = hub.stdout.readline().strip()
    pusher = subprocess.Popen(
        [
            sys.executable,
            "-c",
            """
import itertools, json, urllib.request, base64, os, sys
url = sys.argv[1]
def post(path, data):
    request = urllib.request.Request(url + path, data=data, method="POST")
    return urllib.request.urlopen(request, timeout=5).read()
post("/api/repos/create", json.dumps({"name": "m", "organization": "acme"}).encode())
print("go", flush=True)
for number in itertools.count():
    lines = [{"key": "header", "value": {"summary": f"n{number}"}}]
    for name in ("a", "b"):
        content = base64.b64encode(f"{name}{number}".encode() * 1000).decode()
        value = {"path": name, "content": content, "encoding": "base64"}
        lines.append({"key": "file", "value": value})
    post("/api/models/acme/m/commit/main", b"\\n".join(json.dumps(x).encode() for x in lines))
""",
            url,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert pusher.stdout.readline().strip() == "go"
    time.sleep(delay)
    hub.kill()
    hub.wait()
    pusher.kill()
    pusher.wait()
    storage = Storage(tmp_path / "hub")  # the dead one holds no lock
    repository = storage.repository("models", "acme/m")
    history = list(repository.history("main"))
    assert history[-1].title == "initial commit"
    for commit in history[:-1]:
        for name, entry in commit.files.items():
            assert repository.read(entry) == f"{name}{commit.title[1:]}".encode() * 1000
    storage.close()
