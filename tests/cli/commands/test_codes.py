"""zoo codes: pictures and data sets to codes, and back."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.data.codes import CodesFile


@pytest.fixture
def tokenizer(tmp_path):
    zoo.save(zoo.create("fsq-digits", seed=0), tmp_path / "tokenizer")
    return f"dir:{tmp_path / 'tokenizer'}"


def test_a_picture_becomes_rows_of_codes(zoo_command, zoo_json, tokenizer, picture):
    code, out, err = zoo_command("codes", "encode", tokenizer, picture)
    assert code == 0, err
    file, *rows = out.splitlines()
    assert file == str(picture) and len(rows) == 8
    (row,) = zoo_json("codes", "encode", tokenizer, picture)
    assert [[int(word) for word in line.split()] for line in rows] == row["codes"]


def test_pictures_go_to_a_file_and_come_back(zoo_command, tokenizer, picture, tmp_path):
    file, folder = tmp_path / "codes.safetensors", tmp_path / "back"
    code, out, err = zoo_command("codes", "encode", tokenizer, picture, picture, "--out", file)
    assert code == 0, err
    assert out == f"{file}: 2 samples of 8 x 8 codes of 128\n"
    assert CodesFile(file).batch([0])["files"] == [str(picture)]
    code, out, err = zoo_command("codes", "decode", tokenizer, file, "--out", folder)
    assert code == 0, err
    assert out == f"{folder}: 2 pictures\n"
    assert sorted(path.name for path in folder.iterdir()) == ["00000.png", "00001.png"]
    model = zoo.load(tokenizer)
    expected = model.pictures(model.decode(model.encode(model.preprocess([picture])).ids))[0]
    assert np.array_equal(np.asarray(Image.open(folder / "00000.png")), expected)


def test_clips_come_back_as_animations(zoo_command, tmp_path):
    zoo.save(zoo.create("cvivit-digits", seed=0), tmp_path / "t")
    import torch

    from zoo.data.codes import write_codes

    model = zoo.load(f"dir:{tmp_path / 't'}")
    write_codes(tmp_path / "c.safetensors", model, [{"pixels": torch.rand(3, 3, 5, 32, 32)}], {})
    words = [f"dir:{tmp_path / 't'}", tmp_path / "c.safetensors", "--out", tmp_path / "o"]
    code, _, err = zoo_command("codes", "decode", *words, "--count", "2")
    assert code == 0, err
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["00000.gif", "00001.gif"]
    assert Image.open(tmp_path / "o" / "00000.gif").n_frames == 5


def test_what_does_not_fit_is_said(zoo_command, tokenizer, picture, tmp_path):
    code, _, err = zoo_command("codes", "encode", tokenizer, "colour-digits")
    assert code and "which folder the codes of the data set go to" in err
    zoo_command("codes", "encode", tokenizer, picture, "--out", tmp_path / "c.safetensors")
    words = [tokenizer, tmp_path / "c.safetensors", "--out", tmp_path / "o"]
    code, _, err = zoo_command(
        "codes", "decode", *words, "--set", "quantizer.levels=[8, 8]", "--set", "x=1"
    )
    assert code and "x" in err
    code, _, err = zoo_command("codes", "decode", "vit-digits", *words[1:])
    assert code and "cannot decode" in err
