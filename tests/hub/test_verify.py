"""Verify lists every file with its state and hashes all of them anew."""

import os

import pytest

from zoo.errors import HubError
from zoo.hub.client import pull, push, verify


@pytest.fixture
def folder(hub, make_model):
    push(make_model(), "acme/m")
    return pull("acme/m")


def states(report):
    return {file.path: file.state for file in report.files}


WHOLE = {"README.md": "ok", "config.json": "ok", "model.safetensors": "ok"}


def test_a_whole_snapshot_by_name_by_folder_and_offline(hub, folder):
    for report in (verify("acme/m"), verify(folder), verify("acme/m", offline=True)):
        assert report.ok and states(report) == WHOLE
        assert report.compared_with == f"acme/m at {folder.name}"
    assert {file.size for file in verify(folder).files} == {
        p.stat().st_size for p in folder.iterdir()
    }


def test_a_flipped_bit_is_found_even_when_nothing_else_changed(hub, folder):
    """Same size, same times: pull trusts its memory, verify does not."""
    file = (folder / "model.safetensors").resolve()
    status, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert pull("acme/m") == folder
    for report in (verify("acme/m"), verify(folder, offline=True)):
        assert not report.ok and states(report)["model.safetensors"] == "damaged"
        assert "sha differs" in next(f for f in report.files if f.state == "damaged").detail
    pull("acme/m", force=True)
    assert verify("acme/m").ok


def test_missing_cut_and_extra_files(hub, folder):
    (folder / "config.json").unlink()
    os.truncate((folder / "model.safetensors").resolve(), 10)
    (folder / "notes.txt").write_text("mine")
    report = verify("acme/m")
    assert not report.ok and states(report) == {
        "README.md": "ok",
        "config.json": "missing",
        "model.safetensors": "damaged",
        "notes.txt": "extra",
    }


def test_only_what_was_asked_for_is_needed(hub, make_model, tmp_path):
    push(make_model(), "acme/m")
    here = {"cache": tmp_path / "other"}
    pull("acme/m", allow=["config.json"], **here)
    assert states(verify("acme/m", **here)) == {"config.json": "ok"}
    pull("acme/m", allow=["model.safetensors"], **here)
    report = verify("acme/m", **here)
    assert report.ok and set(states(report)) == {"config.json", "model.safetensors"}
    (report.folder / "model.safetensors").unlink()
    assert states(verify("acme/m", **here))["model.safetensors"] == "missing"


def test_links_in_a_folder_that_was_not_pulled_are_followed(hub, make_model, tmp_path):
    push(make_model(), "acme/m")
    folder = tmp_path / "linked"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).symlink_to(make_model() / name)
    found = states(verify(folder, against="acme/m"))
    assert found == {**WHOLE, "README.md": "missing"}


def test_what_was_never_pulled(hub, folder):
    for options in ({}, {"offline": True}):
        with pytest.raises(HubError, match=r"run `zoo pull acme/m`|no revision"):
            verify("acme/m", "0" * 40 if options else "v9", **options)
    with pytest.raises(HubError):
        verify("acme/none")


def test_a_folder_against_the_hub(hub, folder, make_model):
    same = make_model()
    report = verify(same, against="acme/m")
    assert states(report) == {**WHOLE, "README.md": "missing"}
    other = make_model(seed=1)
    (other / "extra.json").write_text("{}")
    found = states(verify(other, against="acme/m"))
    assert found["model.safetensors"] == "damaged" and found["extra.json"] == "extra"
    assert found["config.json"] == "ok"


def test_a_folder_alone(make_model):
    folder = make_model(card="# Hi")
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}'
    )
    found = states(verify(folder))
    assert found == {
        "README.md": "unchecked",
        "config.json": "ok",
        "model.safetensors": "ok",
        "model.safetensors.index.json": "ok",
        "model-2.safetensors": "missing",
    }
    os.truncate(folder / "model.safetensors", 1000)
    (folder / "config.json").write_text('{"zoo": {}, "_target_": "os.system"}')
    report = verify(folder)
    assert not report.ok
    assert {f.path for f in report.files if f.state == "damaged"} == {
        "config.json",
        "model.safetensors",
    }
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(HubError, match="holds no model"):
        verify(folder)


def test_right_after_a_push_a_folder_is_whole(hub, make_model):
    """Also with a card of its own: the hub's is brought up to date and is another text."""
    folder = make_model(card="---\nlicense: mit\n---\n# Mine\n")
    push(folder, "acme/m")
    (folder / "README.md").write_text("# Written since\n")
    report = verify(folder, against="acme/m")
    assert report.ok and states(report) == {**WHOLE, "README.md": "unchecked"}
    (card,) = [file for file in report.files if file.path == "README.md"]
    assert card.detail == "the hub has a card of its own"
