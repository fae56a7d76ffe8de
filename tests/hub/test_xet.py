"""Uploads that hf_xet writes into a folder become blobs, checked."""

import os
import time

import pytest

from zoo.errors import HubError
from zoo.hub.storage import Storage
from zoo.hub.xet import XetUploads, read_shard

hf_xet = pytest.importorskip("hf_xet", reason="hf_xet is what uploads by Xet")


@pytest.fixture
def storage(tmp_path):
    storage = Storage(tmp_path / "hub")
    yield storage
    storage.close()


def upload(address, *contents):
    """Write contents as hf_xet does; gives `(sha256, Xet hash)` of each."""
    until = int(time.time()) + 3600
    with hf_xet.XetSession().new_upload_commit(
        endpoint=address, token="x", token_expiry_unix_secs=until
    ) as commit:
        handles = [commit.start_upload_bytes(c, sha256=hf_xet.COMPUTE_SHA256) for c in contents]
    return [(h.result().xet_info.sha256, h.result().xet_info.hash) for h in handles]


def test_an_upload_becomes_blobs_and_goes(storage):
    uploads = XetUploads(storage)
    repository, _ = storage.create("models", "acme/m", False)
    contents = [os.urandom(300_000), b"small", os.urandom(2_000_000)]
    named = upload(uploads.open(), *contents)
    assert uploads.unpack(repository, named[0][0])
    for content, (sha256, _) in zip(contents, named):
        assert repository.blob(sha256).read_bytes() == content
    assert not list(uploads.folder.glob("*")) and not list(storage.temporary.iterdir())
    assert not uploads.unpack(repository, "0" * 64)


def test_an_upload_of_several_shards_is_unpacked_as_one(storage):
    uploads = XetUploads(storage)
    repository, _ = storage.create("models", "acme/m", False)
    address, contents = uploads.open(), [os.urandom(200_000), os.urandom(100_000)]
    named = [upload(address, content)[0] for content in contents]
    assert len(list(uploads.folder.rglob("shards/*.mdb"))) == 2
    assert uploads.unpack(repository, named[0][0])
    for content, (sha256, _) in zip(contents, named):
        assert repository.blob(sha256).read_bytes() == content


def test_shards_say_what_they_hold(storage):
    uploads = XetUploads(storage)
    contents = [os.urandom(300_000), os.urandom(150_000)]
    named = upload(uploads.open(), *contents)
    found = {}
    for shard in uploads.folder.rglob("shards/*.mdb"):
        found |= read_shard(shard.read_bytes())
    assert found == {s: (x, len(c)) for c, (s, x) in zip(contents, named)}


@pytest.mark.parametrize("cut", [0, 10, 48, 60, 100, 200, 230])
def test_a_cut_or_foreign_shard_is_not_misread(storage, cut):
    uploads = XetUploads(storage)
    upload(uploads.open(), os.urandom(100_000))
    (shard,) = uploads.folder.rglob("shards/*.mdb")
    assert set(read_shard(shard.read_bytes()[:cut])) <= set(read_shard(shard.read_bytes()))
    assert read_shard(b"\x07" * cut) == {}


def test_an_upload_that_was_bent_is_refused_in_one_sentence(storage):
    uploads = XetUploads(storage)
    repository, _ = storage.create("models", "acme/m", False)
    ((sha256, _),) = upload(uploads.open(), os.urandom(200_000))
    for chunk_file in uploads.folder.rglob("xorbs/default.*"):
        if not chunk_file.name.endswith(".tagset"):
            data = bytearray(chunk_file.read_bytes())
            data[5000] ^= 1
            chunk_file.chmod(0o644)
            chunk_file.write_bytes(data)
    with pytest.raises(HubError):
        uploads.unpack(repository, sha256)
    assert not repository.has_blob(sha256) and not list(storage.temporary.iterdir())


def test_uploads_nobody_committed_are_swept(storage, monkeypatch):
    uploads = XetUploads(storage)
    upload(uploads.open(), b"x" * 1000)
    uploads.sweep()
    assert len(list(uploads.folder.glob("*"))) == 1
    later = time.time() + 7200
    monkeypatch.setattr(time, "time", lambda: later)
    uploads.open()
    assert not list(uploads.folder.glob("*"))


def test_without_hf_xet_the_hub_takes_lfs(tmp_path, monkeypatch, start_hub):
    monkeypatch.setattr(XetUploads, "works", lambda self: False)
    assert start_hub().server.xet is None
