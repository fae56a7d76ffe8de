"""What is on disk is whole at every moment."""

import hashlib
import os
import subprocess
import sys

import pytest

from zoo.errors import HubError
from zoo.hub import disk
from zoo.hub.repository import Conflict, Missing
from zoo.hub.storage import Storage


@pytest.fixture
def storage(tmp_path):
    storage = Storage(tmp_path / "hub")
    yield storage
    storage.close()


def put(repository, files, expected=None, title="a push", ref="heads/main"):
    """Push `{path: bytes}` as a client does: contents first, then the commit."""
    entries = {path: repository.add_blob([data]) for path, data in files.items()}
    return repository.push(ref, title, "", lambda now: {**now, **entries}, expected)


def test_a_push_can_be_read_back(storage):
    repository, new = storage.create("models", "acme/m", private=True)
    assert new and repository.settings()["private"]
    commit = put(repository, {"a.txt": b"one", "b/c.txt": b"two"})
    found = storage.repository("models", "acme/m").commit("main")
    assert found == commit and sorted(found.files) == ["a.txt", "b/c.txt"]
    entry = found.files["a.txt"]
    assert entry.sha256 == hashlib.sha256(b"one").hexdigest()
    assert entry.git == hashlib.sha1(b"blob 3\0one").hexdigest()
    assert repository.read(entry) == b"one"
    assert [c.title for c in repository.history("main")] == ["a push", "initial commit"]
    assert storage.create("models", "acme/m", private=False)[1] is False


def test_unchanged_is_no_commit_and_a_repeated_push_is_one(storage):
    repository, _ = storage.create("models", "acme/m", False)
    first = put(repository, {"a": b"1"})
    assert put(repository, {"a": b"1"}) == first
    second = put(repository, {"a": b"2"}, expected=first.oid)
    assert put(repository, {"a": b"2"}, expected=first.oid) == second
    with pytest.raises(Conflict) as caught:
        put(repository, {"a": b"3"}, expected=first.oid)
    assert caught.value.status == 412
    assert repository.resolve("main") == second.oid


def test_revisions_are_found_by_every_name(storage):
    repository, _ = storage.create("models", "acme/m", False)
    oid = put(repository, {"a": b"1"}).oid
    repository.set_ref("tags/v1", oid)
    repository.set_ref("heads/dev/x", oid)
    repository.set_ref("pr/1", oid)
    for name in ("main", "v1", "dev/x", "refs/pr/1", "refs/heads/main", oid, oid[:7]):
        assert repository.resolve(name) == oid
    for name in (
        "dev",
        "pr/1",
        "v2",
        oid[:6],
        "0" * 40,
        "../../repo.json",
        "",
        "refs/../repo.json",
    ):
        with pytest.raises(Missing):
            repository.resolve(name)
    with pytest.raises(Conflict):
        repository.set_ref("heads/dev", oid)
    repository.delete_ref("heads/dev/x")
    repository.set_ref("heads/dev", oid)


@pytest.mark.parametrize(
    "name", ["../x", "a/../../b", "acme", "/etc", "a/b/c", "api/x", "models/x"]
)
def test_repositories_stay_in_the_folder(storage, name):
    with pytest.raises(HubError):
        storage.create("models", name, False)
    with pytest.raises(Missing):
        storage.repository("models", name)


def test_names_that_differ_by_case_only_are_one(storage):
    storage.create("models", "acme/m", False)
    with pytest.raises(Conflict, match="acme/m exists"):
        storage.create("models", "Acme/M", False)


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", ".git/hooks/x", "a\\b", "a/x"])
def test_file_names_stay_in_the_repository(storage, path):
    repository, _ = storage.create("models", "acme/m", False)
    put(repository, {"a": b"1"})
    with pytest.raises(HubError):
        put(repository, {path: b"evil"})
    assert list(repository.commit("main").files) == ["a"]


def test_content_that_is_not_what_was_announced_is_not_kept(storage):
    repository, _ = storage.create("models", "acme/m", False)
    right = hashlib.sha256(b"right").hexdigest()
    with pytest.raises(HubError, match="another sha256"):
        repository.add_blob([b"wrong"], right, 5)
    with pytest.raises(HubError, match="3 bytes arrived where 5"):
        repository.add_blob([b"rig"], right, 5)
    assert not repository.has_blob(right)
    assert not list(storage.temporary.iterdir())
    with pytest.raises(HubError, match="64 hex"):
        repository.blob("../../etc/passwd")


def test_two_hubs_cannot_serve_one_folder(storage, tmp_path):
    script = f"from zoo.hub.storage import Storage; Storage({str(storage.root)!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode and "already served by another hub" in done.stderr


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(HubError, match="cannot hold a hub"):
        Storage(tmp_path / "file" / "hub")


class Stop(BaseException):
    """The process ends here: nothing catches it."""


@pytest.mark.parametrize("at", range(1, 30))
def test_a_push_stopped_at_any_step_leaves_a_whole_state(tmp_path, monkeypatch, at):
    """Stop at the n-th rename or sync of a push: afterwards all of it is there, or nothing."""
    storage = Storage(tmp_path / "hub")
    repository, _ = storage.create("models", "acme/m", False)
    before = put(repository, {"a": b"old", "b": b"same"})
    steps = 0

    def counted(function):
        def step(*args):
            nonlocal steps
            steps += 1
            if steps == at:
                raise Stop
            return function(*args)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(os, "fsync", counted(os.fsync))
        try:
            put(repository, {"a": b"new", "c": b"more"}, expected=before.oid)
            stopped = False
        except Stop:
            stopped = True
    storage.close()
    again = Storage(tmp_path / "hub")
    found = again.repository("models", "acme/m").commit("main")
    contents = {p: again.repository("models", "acme/m").read(e) for p, e in found.files.items()}
    new = {"a": b"new", "b": b"same", "c": b"more"}
    assert contents in ({"a": b"old", "b": b"same"}, new)
    assert stopped or contents == new
    if stopped and contents != new:  # the client tries again
        done = put(again.repository("models", "acme/m"), {"a": b"new", "c": b"more"}, before.oid)
        assert done.parent == before.oid
    history = [c.title for c in again.repository("models", "acme/m").history("main")]
    assert history == ["a push", "a push", "initial commit"]
    assert not list(again.temporary.iterdir())
    again.close()


def test_the_steps_above_cover_a_whole_push(tmp_path, monkeypatch):
    storage = Storage(tmp_path / "hub")
    repository, _ = storage.create("models", "acme/m", False)
    calls = []
    for name in ("replace", "fsync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real: (calls.append(1), real(*a))[1])
    put(repository, {"a": b"new", "c": b"more"})
    assert 8 <= len(calls) < 30
    storage.close()


def test_a_repository_appears_whole_and_goes_whole(tmp_path, monkeypatch):
    storage = Storage(tmp_path / "hub")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            storage.create("models", "acme/m", False)
    assert storage.names("models") == []
    storage.create("models", "acme/m", False)
    storage.delete("models", "acme/m")
    assert storage.names("models") == [] and not (storage.root / "models/acme/m").exists()
    storage.close()


def test_leftovers_of_a_killed_hub_are_swept(tmp_path):
    storage = Storage(tmp_path / "hub")
    (storage.draft()).write_bytes(b"half")
    storage.draft().mkdir()
    storage.close()
    again = Storage(tmp_path / "hub")
    assert not list(again.temporary.iterdir())
    again.close()


def test_an_atomic_write_that_fails_changes_nothing(tmp_path, monkeypatch):
    file = tmp_path / "x"
    disk.write_atomic(file, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        disk.write_atomic(file, b"new")
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]
