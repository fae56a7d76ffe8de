"""Checkpoints: found whole or not at all, whatever happens to the disk."""

import errno
import json
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp

from zoo.errors import TrainingError
from zoo.training.checkpoint import Checkpoints, SaveFailed
from zoo.training.distributed import World


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", World(), keep=2)


def tensors(value: float) -> dict:
    return {"model": {"weight": torch.full((3, 4), value)}, "optim": {"state": {"step": value}}}


def value_of(checkpoints) -> float:
    found, _ = checkpoints.newest_whole()
    into = tensors(0.0)
    checkpoints.read(found, into)
    assert into["optim"]["state"]["step"] == float(into["model"]["weight"][0, 0])
    return float(into["model"]["weight"][2, 3])


def test_what_was_saved_is_read(checkpoints):
    assert checkpoints.newest_whole() is None
    folder = checkpoints.save(20, tensors(2.5), {"best": {"value": 0.5}})
    found, state = checkpoints.newest_whole()
    assert (found.step, found.folder) == (20, folder)
    assert state["best"] == {"value": 0.5} and state["step"] == 20
    assert (checkpoints.folder / "last").read_text() == "step_00000020\n"
    assert value_of(checkpoints) == 2.5


def test_the_newest_are_kept(checkpoints):
    for step in (5, 100, 20):
        checkpoints.save(step, tensors(step), {})
    assert [one.step for one in checkpoints.found()] == [100, 20]
    assert value_of(checkpoints) == 100


def test_a_half_written_one_is_not_there(checkpoints):
    checkpoints.save(1, tensors(1), {})
    whole = checkpoints.folder / "step_00000001"
    shutil.copytree(whole, checkpoints.folder / "step_00000002.tmp")
    assert value_of(checkpoints) == 1
    checkpoints.save(2, tensors(2), {})  # and is in nobody's way
    assert value_of(checkpoints) == 2
    assert not list(checkpoints.folder.glob("*.tmp"))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(folder / "__0_0.distcp"),
        lambda folder: (folder / "__0_0.distcp").write_bytes(b""),
        lambda folder: (folder / ".metadata").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "state.json").write_text("{}"),
    ],
    ids=["bit flip", "truncated", "missing", "manifest", "state"],
)
def test_a_damaged_newest_one_is_passed_over(checkpoints, damage):
    checkpoints.save(1, tensors(1), {})
    checkpoints.save(2, tensors(2), {})
    damage(checkpoints.folder / "step_00000002")
    with pytest.warns(
        UserWarning, match=r"step_00000002 is damaged \(.+\); going on from step 1\."
    ):
        assert value_of(checkpoints) == 1


def test_when_all_are_damaged_nothing_is_pretended(checkpoints):
    checkpoints.save(1, tensors(1), {})
    flip(checkpoints.folder / "step_00000001" / "__0_0.distcp")
    with pytest.raises(TrainingError, match=r"No checkpoint in .* is whole"):
        checkpoints.newest_whole()


@pytest.mark.parametrize("where", ["shards", "manifest"])
def test_a_full_disk_leaves_the_old_one(checkpoints, monkeypatch, where):
    from zoo.training import checkpoint

    checkpoints.save(1, tensors(1), {})

    def full(*args, **keys):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if where == "shards":
            patch.setattr(torch, "save", full)
            patch.setattr(dcp.filesystem, "_write_item", full)
        else:
            patch.setattr(checkpoint, "_write_text", full)
        with pytest.raises(SaveFailed) as error:
            checkpoints.save(2, tensors(2), {})
    text = str(error.value)
    assert "step 2 could not be written" in text and "No space left on device" in text
    assert text.endswith("the one of step 1 is intact.") and "\n" not in text
    assert [p.name for p in sorted(checkpoints.folder.iterdir())] == ["last", "step_00000001"]
    assert value_of(checkpoints) == 1


def test_other_tensors_are_refused_in_one_sentence(checkpoints):
    checkpoints.save(1, tensors(1), {})
    found, _ = checkpoints.newest_whole()
    with pytest.raises(TrainingError, match="does not fit this model") as error:
        checkpoints.read(found, {"model": {"other": torch.zeros(2)}})
    assert "\n" not in str(error.value)


def test_a_manifest_holds_every_file(checkpoints):
    folder = checkpoints.save(1, tensors(1), {})
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {*manifest, "manifest.json"} == {path.name for path in folder.iterdir()}
