"""Pull brings all of it, checked, or says what is wrong in one sentence."""

import concurrent.futures
import json
import logging
import os
import re
import shutil
import time

import pytest

from zoo.errors import HubError
from zoo.hub import cache as caches
from zoo.hub import remote
from zoo.hub.client import pull, push
from zoo.hub.protocol import Reply


@pytest.fixture
def pushed(hub, make_model):
    """A model on the hub; gives its commit."""
    return push(make_model(), "acme/m", private=True).oid


def sentence(error):
    """One sentence: one line, no dump."""
    text = str(error.value)
    assert "\n" not in text and len(text) < 500 and "Traceback" not in text
    return text


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def weights_blob(folder):
    return (folder / "model.safetensors").resolve()


def flip(file, keep_times=False):
    status, data = file.stat(), bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    if keep_times:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))


def test_what_was_pushed_comes_back(hub, pushed, make_model, cache):
    folder = pull("acme/m")
    found, sent = contents(folder), contents(make_model())
    assert found.pop("README.md") and found == sent
    assert folder == cache / "models--acme--m/snapshots" / pushed
    assert (cache / "models--acme--m/refs/main").read_text() == pushed


def test_the_hubs_own_client_sees_what_was_pulled(hub, pushed, token):
    from huggingface_hub import hf_hub_download, snapshot_download

    folder = pull("acme/m")
    assert snapshot_download("acme/m", local_files_only=True) == str(folder)
    file = hf_hub_download("acme/m", "config.json", local_files_only=True)
    assert file == str(folder / "config.json")
    before = hub.count("GET", "/resolve/")
    assert snapshot_download("acme/m", endpoint=hub.url, token=token) == str(folder)
    assert hub.count("GET", "/resolve/") == before


def test_what_its_client_pulled_is_not_pulled_again(hub, pushed, token):
    from huggingface_hub import snapshot_download

    there = snapshot_download("acme/m", endpoint=hub.url, token=token)
    before = hub.count("GET", "/resolve/")
    assert str(pull("acme/m")) == there
    assert hub.count("GET", "/resolve/") == before


def test_a_second_pull_asks_little_and_a_pinned_one_nothing(hub, pushed, monkeypatch):
    folder = pull("acme/m")
    monkeypatch.setattr(caches.Content, "digest_of", lambda *_: pytest.fail("hashed again"))
    hub.requests.clear()
    assert pull("acme/m") == folder
    assert [r.split()[0] for r in hub.requests] == ["GET", "GET"]  # the revision and its files
    hub.requests.clear()
    assert pull("acme/m", pushed) == folder
    assert hub.requests == []


def test_only_allowed_files_are_pulled(api, pushed, tmp_path):
    for name in ("pytorch_model.bin", "modeling.py", "old/model.safetensors", "x.pkl", "y.zip"):
        api.upload_file(path_or_fileobj=b"evil", path_in_repo=name, repo_id="acme/m")
    assert set(contents(pull("acme/m"))) == {"README.md", "config.json", "model.safetensors"}
    only = pull("acme/m", allow=("config.json",), cache=tmp_path / "other")
    assert set(contents(only)) == {"config.json"}
    nested = pull("acme/m", allow="old/*.safetensors", cache=tmp_path / "third")
    assert set(contents(nested)) == {"old/model.safetensors"}
    with pytest.raises(HubError) as error:
        pull("acme/m", allow=["*.onnx"])
    assert "has none of *.onnx; it holds README.md" in sentence(error)


def test_revisions(api, pushed, make_model):
    api.create_tag("acme/m", tag="v1")
    second = push(make_model(seed=1), "acme/m").oid
    old, new = pull("acme/m", "v1"), pull("acme/m")
    assert (old.name, new.name) == (pushed, second)
    assert contents(old)["model.safetensors"] != contents(new)["model.safetensors"]
    assert contents(pull("acme/m", pushed)) == contents(old)
    with pytest.raises(HubError) as error:
        pull("acme/m", "mian")
    assert "acme/m has no revision mian; the nearest is main." in sentence(error)
    with pytest.raises(HubError) as error:
        pull("acme/m", "zzzzz")
    assert "it has main, v1" in sentence(error)
    with pytest.raises(HubError):
        pull("acme/m", "0" * 40)


def test_private_without_or_with_a_wrong_token(hub, pushed, monkeypatch, token):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError) as error:
        pull("acme/m")
    assert "needs a token (set HF_TOKEN)" in sentence(error)
    monkeypatch.setenv("HF_TOKEN", "hf_wrongTokenOfSomeone")
    with pytest.raises(HubError) as error:
        pull("acme/m")
    assert "refuses the token" in sentence(error) and "hf_wrong" not in sentence(error)


def test_a_misspelt_repository_names_the_nearest(hub, pushed):
    with pytest.raises(HubError) as error:
        pull("acme/n")
    assert "nearest: acme/m" in sentence(error)
    with pytest.raises(HubError, match="owner/name"):
        pull("../../etc")


# what arrives


def tampered(hub, change):
    """Change the content of the weights on their way: same address, same headers, other bytes."""

    def on_the_way(handler, reply):
        if reply.file is None or handler.command != "GET" or reply.status >= 300:
            return reply
        data = reply.file.read_bytes()
        copy = hub.root / "tampered"
        copy.write_bytes(change(data)[slice(*reply.part) if reply.part else slice(None)])
        return Reply(status=reply.status, headers=reply.headers, file=copy)

    hub.change("/model.safetensors", on_the_way)


def flipped(data):
    half = len(data) // 2
    return data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]


def test_one_flipped_bit_on_the_way_is_noticed_and_nothing_is_kept(hub, pushed, cache):
    tampered(hub, flipped)
    for _ in range(2):
        with pytest.raises(HubError) as error:
            pull("acme/m")
        text = sentence(error)
        assert "model.safetensors of acme/m" in text and "zoo pull --force acme/m" in text
    assert not [p for p in cache.rglob("*") if p.name == "model.safetensors"]
    assert not [p for p in (cache / "models--acme--m/blobs").iterdir() if p.stat().st_size > 10_000]
    hub.faults.clear()
    assert (pull("acme/m") / "model.safetensors").is_file()


def test_a_body_longer_than_announced_is_dropped(hub, pushed):
    tampered(hub, lambda data: data + b"more")
    with pytest.raises(HubError) as error:
        pull("acme/m")
    assert "longer than the" in sentence(error)


def test_a_body_that_always_ends_early_is_given_up_and_continued_later(hub, pushed, make_model):
    size = (make_model() / "model.safetensors").stat().st_size

    def cut(handler, reply):
        if reply.file is not None and handler.command == "GET":
            first, end = reply.part or (0, size)
            # Each answer promises all and gives nothing beyond 7000 bytes of the file.
            send_cut(handler, reply, first, min(end, 7000))
            return Reply({}, 200)
        return reply

    def send_cut(handler, reply, first, end):
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(size - first))
        handler.end_headers()
        handler.wfile.write(reply.file.read_bytes()[first:end])
        handler.wfile.flush()
        raise ConnectionError("cut")

    hub.change("GET /acme/m/resolve/" + pushed + "/model", cut)
    with pytest.raises(HubError) as error:
        pull("acme/m")
    text = sentence(error)
    assert "acme/m" in text and "breaks off after 7000 of" in text
    asked = [r for r in hub.requests if r.endswith("model.safetensors")]
    assert len(asked) == remote.ATTEMPTS + 1  # once from the start, then tries without anything new
    hub.faults.clear()
    ranges = []
    hub.change("model.safetensors", lambda h, r: (ranges.append(h.headers.get("Range")), r)[1])
    assert (pull("acme/m") / "model.safetensors").stat().st_size == size
    assert ranges == ["bytes=7000-"]


def test_the_wrong_beginning_of_an_earlier_pull_is_not_blamed_on_the_hub(
    hub, pushed, cache, make_model
):
    import hashlib

    data = (make_model() / "model.safetensors").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    blobs = cache / "models--acme--m/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{digest}.zoo.incomplete").write_bytes(b"x" * 1000)
    assert contents(pull("acme/m"))["model.safetensors"] == data


@pytest.mark.parametrize("size", ["same", "longer"])
def test_a_whole_but_wrong_leftover_is_replaced(hub, pushed, cache, make_model, size):
    import hashlib

    data = (make_model() / "model.safetensors").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    blobs = cache / "models--acme--m/blobs"
    blobs.mkdir(parents=True)
    wrong = flipped(data) if size == "same" else data + b"x"
    (blobs / f"{digest}.zoo.incomplete").write_bytes(wrong)
    assert contents(pull("acme/m"))["model.safetensors"] == data


def test_an_answer_to_another_range_is_refused(hub, pushed, cache, make_model):
    import hashlib

    data = (make_model() / "model.safetensors").read_bytes()
    blobs = cache / "models--acme--m/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(data).hexdigest()}.zoo.incomplete").write_bytes(data[:100])

    def other(handler, reply):
        if reply.part:
            reply.headers["Content-Range"] = "bytes 50-99/20000"
        return reply

    hub.change("model.safetensors", other)
    with pytest.raises(HubError, match="another part than asked"):
        pull("acme/m")


def test_a_hub_without_ranges_sends_all_again(hub, pushed, cache, make_model):
    import hashlib

    data = (make_model() / "model.safetensors").read_bytes()
    blobs = cache / "models--acme--m/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(data).hexdigest()}.zoo.incomplete").write_bytes(data[:100])

    def whole(handler, reply):
        return Reply(headers={}, file=reply.file) if reply.file else reply

    hub.change("model.safetensors", whole)
    assert contents(pull("acme/m"))["model.safetensors"] == data


def test_a_wrong_etag_does_not_matter_and_a_wrong_announcement_does(hub, pushed, cache):
    def etag(handler, reply):
        if "ETag" in reply.headers:
            reply.headers["ETag"] = reply.headers["X-Linked-Etag"] = '"../../../evil"'
        return reply

    hub.change("/resolve/", etag)
    pull("acme/m")
    assert not [p for p in cache.parent.rglob("*") if "evil" in p.name]

    def announced(handler, reply):
        for row in reply.value if isinstance(reply.value, list) else ():
            if "lfs" in row:
                row["lfs"]["oid"] = "0" * 64
        return reply

    hub.change("/tree/", announced)
    with pytest.raises(HubError, match=r"another content than the hub's .*--force|arrived with"):
        pull("acme/m", force=True)


@pytest.mark.parametrize("digest", ["../../../../evil", "", "xyz", None])
def test_a_digest_that_is_none_is_refused(hub, pushed, cache, digest):
    def announced(handler, reply):
        for row in reply.value if isinstance(reply.value, list) else ():
            row["oid"] = digest
            row.pop("lfs", None)
        return reply

    hub.change("/tree/", announced)
    with pytest.raises(HubError, match=r"gives no digest of README\.md"):
        pull("acme/m")
    assert not [p for p in cache.parent.rglob("*") if "evil" in p.name]


EVIL_NAMES = ["../../evil.json", "/tmp/evil.json", "a\\..\\evil.json", "C:evil.json", "con.json"]


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_names_that_leave_the_folder_are_refused(hub, pushed, cache, name):
    def listed(handler, reply):
        if isinstance(reply.value, list):
            reply.value.append({**reply.value[0], "path": name})
        return reply

    hub.change("/tree/", listed)
    with pytest.raises(HubError) as error:
        pull("acme/m", allow=["*.json", "*/*.json", "*/*/*.json"])
    assert "is refused" in sentence(error)
    # What is not asked for does no harm and does not stop a pull.
    assert set(contents(pull("acme/m", allow=["config.json"]))) == {"config.json"}
    assert not [p for p in cache.parent.rglob("*") if "evil" in p.name]


def test_names_that_fall_together_are_refused(hub, pushed):
    def listed(handler, reply):
        if isinstance(reply.value, list):
            reply.value.append({**reply.value[0], "path": "Config.JSON"})
        return reply

    hub.change("/tree/", listed)
    with pytest.raises(HubError, match=r"both Config.JSON and config.json"):
        pull("acme/m", allow=["*.json", "*.JSON"])


@pytest.mark.parametrize("sha", ["main", "../../../evil", None, "0" * 39])
def test_a_commit_that_is_none_is_refused(hub, pushed, cache, sha):
    hub.change("/revision/", lambda handler, reply: Reply({**reply.value, "sha": sha}))
    with pytest.raises(HubError, match="names no commit"):
        pull("acme/m")
    assert not [p for p in cache.parent.rglob("*") if "evil" in p.name]


def test_a_link_in_the_repository_is_only_its_text(api, pushed):
    """Git keeps a symbolic link as a file holding its target; that is all that arrives."""
    api.upload_file(path_or_fileobj=b"/etc/passwd", path_in_repo="vocab.txt", repo_id="acme/m")
    folder = pull("acme/m")
    assert (folder / "vocab.txt").read_bytes() == b"/etc/passwd"


def test_a_link_out_of_the_cache_is_refused(hub, pushed, tmp_path):
    folder = pull("acme/m")
    (tmp_path / "elsewhere").write_bytes((folder / "config.json").read_bytes())
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HubError, match="leads out of the cache"):
        pull("acme/m")


# what is there already


def test_a_flipped_bit_on_the_disk_is_noticed_and_force_mends_it(hub, pushed, make_model):
    folder = pull("acme/m")
    flip(weights_blob(folder))
    for options in ({}, {"revision": pushed}, {"offline": True}):
        with pytest.raises(HubError) as error:
            pull("acme/m", **options)
        text = sentence(error)
        assert "model.safetensors of acme/m" in text and "zoo pull --force acme/m" in text
    folder = pull("acme/m", force=True)
    assert contents(folder)["model.safetensors"] == contents(make_model())["model.safetensors"]
    assert pull("acme/m", offline=True) == folder


def test_a_cut_file_on_the_disk_is_noticed(hub, pushed):
    folder = pull("acme/m")
    os.truncate(weights_blob(folder), 1000)
    with pytest.raises(HubError, match=r"has 1000 bytes instead of \d+; run `zoo pull --force"):
        pull("acme/m", pushed)


def test_a_small_file_changed_on_the_disk_is_noticed(hub, pushed):
    folder = pull("acme/m")
    file = (folder / "config.json").resolve()
    file.write_text(file.read_text().replace("vit", "evi"))
    with pytest.raises(HubError, match=r"config\.json of acme/m"):
        pull("acme/m")


def test_a_deleted_file_is_pulled_again(hub, pushed):
    folder = pull("acme/m")
    (folder / "model.safetensors").unlink()
    assert (pull("acme/m", pushed) / "model.safetensors").is_file()
    weights_blob(folder).unlink()
    assert (pull("acme/m") / "model.safetensors").is_file()


def test_force_that_fails_keeps_what_was_there(hub, pushed):
    folder = pull("acme/m")
    before = contents(folder)
    tampered(hub, flipped)
    with pytest.raises(HubError):
        pull("acme/m", force=True)
    assert contents(pull("acme/m", offline=True)) == before


# no network


def test_offline(hub, pushed, monkeypatch, tmp_path):
    folder = pull("acme/m")
    hub.server.stop()
    assert pull("acme/m", offline=True) == folder
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert pull("acme/m") == folder and pull("acme/m", pushed) == folder
    with pytest.raises(HubError) as error:
        pull("acme/m", cache=tmp_path / "empty")
    assert "not in the cache" in sentence(error) and "zoo pull acme/m" in sentence(error)
    with pytest.raises(HubError, match="without the network"):
        pull("acme/m", force=True)
    monkeypatch.setattr(hub.server, "stop", lambda: None)


def test_offline_what_is_missing_is_named(hub, pushed):
    folder = pull("acme/m")
    (folder / "model.safetensors").unlink()
    for revision in (None, pushed):
        with pytest.raises(HubError) as error:
            pull("acme/m", revision, offline=True)
        text = sentence(error)
        assert "incomplete" in text and "missing: model.safetensors" in text


def test_a_first_pull_that_stopped_half_way_is_never_loaded(hub, pushed):
    hub.fail("model.safetensors", 404, times=99)
    with pytest.raises(HubError):
        pull("acme/m")
    with pytest.raises(HubError, match=r"missing: .*model\.safetensors"):
        pull("acme/m", offline=True)
    hub.faults.clear()
    assert contents(pull("acme/m"))


def test_a_newer_pull_that_stopped_half_way_leaves_the_older_in_use(hub, pushed, make_model):
    old = pull("acme/m")
    push(make_model(seed=5), "acme/m")
    hub.fail("model.safetensors", 404, times=99)
    with pytest.raises(HubError):
        pull("acme/m")
    assert pull("acme/m", offline=True) == old


def test_when_the_hub_is_down_the_last_whole_snapshot_is_used_and_said(hub, pushed, caplog):
    folder = pull("acme/m")
    hub.fail("/api/", 503, times=99)
    with caplog.at_level(logging.WARNING, logger="zoo.hub"):
        assert pull("acme/m") == folder
    assert "error 503" in caplog.text and "pulled before" in caplog.text
    with pytest.raises(HubError, match="error 503"):
        pull("acme/m", force=True)


def test_a_hub_that_is_not_there(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://user:secret@127.0.0.1:9")
    with pytest.raises(HubError) as error:
        pull("acme/m")
    assert "http://127.0.0.1:9 cannot be reached" in sentence(error)
    assert "secret" not in sentence(error)


def test_a_cache_filled_by_another_tool_is_checked_by_its_names(hub, pushed, token, cache):
    from huggingface_hub import hf_hub_download

    for name in ("config.json", "model.safetensors"):
        hf_hub_download("acme/m", name, endpoint=hub.url, token=token)
    assert not (cache / "models--acme--m/trees").exists()
    folder = pull("acme/m", offline=True)
    flip(weights_blob(folder))
    with pytest.raises(HubError, match=r"model\.safetensors .* another content"):
        pull("acme/m", offline=True)


def test_a_cache_filled_by_another_tool_misses_a_shard(hub, api, token):
    from huggingface_hub import hf_hub_download

    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-2.safetensors"}}
    api.create_repo("acme/m")
    name = "model.safetensors.index.json"
    api.upload_file(path_or_fileobj=json.dumps(index).encode(), path_in_repo=name, repo_id="acme/m")
    hf_hub_download("acme/m", name, endpoint=hub.url, token=token)
    with pytest.raises(HubError, match=r"missing: model-00001-of-00002.safetensors, model-2"):
        pull("acme/m", offline=True)


# trying again


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
@pytest.mark.parametrize("part", ["/revision/main", "model.safetensors"])
def test_a_busy_hub_is_asked_again(hub, pushed, status, part):
    met = hub.fail(part, status, times=2)
    assert (pull("acme/m") / "model.safetensors").is_file()
    assert met == [status, status]


@pytest.mark.parametrize("status", [500, 429])
@pytest.mark.parametrize("part", ["/revision/main", "model.safetensors"])
def test_a_hub_that_stays_busy_is_given_up(hub, pushed, status, part):
    met = hub.fail(part, status, times=99)
    with pytest.raises(HubError) as error:
        pull("acme/m")
    assert len(met) == remote.ATTEMPTS
    assert ("slow down" if status == 429 else "error 500") in sentence(error)


def test_a_hub_that_asks_for_a_pause_gets_it(hub, pushed, monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    hub.fail("/revision/main", 429, **{"Retry-After": "7"})
    pull("acme/m")
    assert slept.count(7.0) == 1
    hub.fail("/revision/main", 429, **{"Retry-After": "3600"})
    slept.clear()
    with pytest.raises(HubError, match="slow down"):
        pull("acme/m", force=True)
    assert 3600.0 not in slept


@pytest.mark.parametrize("status", [400, 403, 404, 501])
def test_a_refusal_is_not_asked_again(hub, pushed, status):
    met = hub.fail("/revision/main", status, times=99)
    with pytest.raises(HubError):
        pull("acme/m")
    assert len(met) == 1


def test_a_hub_that_does_not_answer_is_given_up(hub, pushed, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    monkeypatch.setattr(remote, "ATTEMPTS", 2)
    release = concurrent.futures.Future()

    def hang(handler):
        if "model.safetensors" in handler.path:
            release.result(timeout=20)
        return False

    hub.faults.append(hang)
    try:
        with pytest.raises(HubError) as error:
            pull("acme/m")
    finally:
        release.set_result(None)
    assert "does not answer about acme/m" in sentence(error)


# room and company


def test_too_little_room_is_said_before_anything_is_pulled(hub, pushed, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(HubError) as error:
        pull("acme/m")
    assert re.search(r"needs 0\.00 GB in .*/cache and 0\.00 GB are free", sentence(error))
    assert hub.count("GET", "/resolve/") == 0


def test_a_disk_that_fills_up_keeps_what_came(hub, pushed, monkeypatch, cache):
    real = os.replace

    def full(source, target):
        if len(os.path.basename(target)) == 64:  # the weights
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(HubError, match="disk is full"):
            pull("acme/m")
    before = hub.count("GET", "model.safetensors")
    assert (pull("acme/m") / "model.safetensors").is_file()
    assert hub.count("GET", "model.safetensors") == before  # all of it had come


def test_two_processes_pull_at_once(hub, make_model, cache):
    import subprocess
    import sys

    push(make_model(numbers=2_000_000), "acme/big")
    script = "from zoo.hub.client import pull; print(pull('acme/big'))"
    runs = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = {run.communicate(timeout=60)[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0] and len(told) == 1
    assert hub.count("GET", "model.safetensors") == 1  # the second waited for the first
    folder = pull("acme/big", offline=True)
    assert (
        contents(folder)["model.safetensors"]
        == contents(make_model(numbers=2_000_000))["model.safetensors"]
    )
    assert not list(cache.rglob("*incomplete*"))


def test_one_file_that_fails_stops_the_others(hub, make_model, api):
    push(make_model(numbers=3_000_000), "acme/m")
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.model", repo_id="acme/m")
    started = concurrent.futures.Future()

    def slowly(handler):
        if handler.path.endswith("model.safetensors"):
            data = (make_model(numbers=3_000_000) / "model.safetensors").read_bytes()
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            started.done() or started.set_result(None)
            for start in range(0, len(data), 100_000):
                handler.wfile.write(data[start : start + 100_000])
                handler.wfile.flush()
                time.sleep(0.1)
            return True
        if handler.path.endswith("x.model"):
            started.result(timeout=10)
            return handler.refuse(404)
        return False

    hub.faults.append(slowly)
    before = time.time()
    with pytest.raises(HubError):
        pull("acme/m")
    assert time.time() - before < 8  # all of the weights would take 12 seconds


def test_threads_pull_at_once(hub, pushed):
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        folders = set(pool.map(lambda _: pull("acme/m"), range(12)))
    assert len(folders) == 1 and hub.count("GET", "model.safetensors") == 1


def test_a_cache_that_may_only_be_read_serves(hub, pushed, cache, monkeypatch):
    folder = pull("acme/m")
    (cache / "models--acme--m/zoo/checked.json").unlink()

    def refuse(path, *_):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(caches, "write_atomic", refuse)
    assert pull("acme/m", pushed) == folder and pull("acme/m", offline=True) == folder
    with pytest.raises(HubError, match="cannot be used: Read-only file system"):
        pull("acme/m", force=True)


def test_without_links_files_are_copied(hub, pushed, monkeypatch):
    from pathlib import Path

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    folder = pull("acme/m")
    assert not (folder / "config.json").is_symlink() and pull("acme/m", pushed) == folder
