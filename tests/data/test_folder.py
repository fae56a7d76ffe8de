"""Folders of pictures: classes by folder, a held-out share by name, bad files by name."""

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.errors import DataError
from zoo.registry import build, resolve


def picture(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 30), value, np.uint8)).save(path)


@pytest.fixture(scope="module")
def model():
    return zoo.create("vit-digits", "backbone.depth=0", seed=0)


def folder_data(path, **keys):
    return build(resolve("data", {"name": "image-folder", "folder": str(path), **keys}))


def test_divided_folders(tmp_path, model):
    for split, count in (("train", 3), ("test", 2)):
        for label, value in (("cat", 0), ("dog", 255)):
            for number in range(count):
                picture(tmp_path / split / label / f"{number}.png", value)
    (tmp_path / "train" / "dog" / "notes.txt").write_text("no picture")
    data = folder_data(tmp_path)
    assert data.labels == ["cat", "dog"]
    train, test = data.split("train", model), data.split("test", model)
    assert (len(train), len(test)) == (6, 4)
    batch = train.batch([0, 5])
    assert batch["labels"].tolist() == [0, 1] and batch["pixels"].shape == (2, 1, 32, 32)
    assert batch["pixels"][0].max() == -1 and batch["pixels"][1].min() == 1


def test_a_share_is_held_out_by_name(tmp_path, model):
    for number in range(60):
        picture(tmp_path / "ab"[number % 2] / f"{number}.png", number)
    data = folder_data(tmp_path, held_out=0.3)
    names = {s: {f.name for f in data.split(s, model).files} for s in ("train", "test")}
    assert not names["train"] & names["test"] and len(names["train"] | names["test"]) == 60
    assert 8 <= len(names["test"]) <= 28
    picture(tmp_path / "a" / "new.png", 3)  # moves no other picture to the other side
    again = {f.name for f in folder_data(tmp_path, held_out=0.3).split("test", model).files}
    assert again - {"new.png"} == names["test"]


def test_a_bad_file_is_named(tmp_path, model):
    picture(tmp_path / "train" / "a" / "1.png", 1)
    bad = tmp_path / "train" / "a" / "2.png"
    bad.write_bytes(b"\x89PNG no more")
    dataset = folder_data(tmp_path).split("train", model)
    with pytest.raises(DataError, match=r"train/a/2\.png is not a picture") as error:
        dataset.batch([0, 1])
    assert str(error.value).count("2.png") == 1


def test_what_is_missing_is_said(tmp_path, model):
    with pytest.raises(DataError, match=r"say where the pictures lie, as in data\.folder="):
        build(resolve("data", "image-folder"))
    with pytest.raises(DataError, match="nowhere is not a folder"):
        folder_data(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no folders"):
        folder_data(tmp_path)
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no pictures for train"):
        folder_data(tmp_path).split("train", model)
    with pytest.raises(DataError, match="has a folder train and no test"):
        folder_data(tmp_path).split("test", model)
    picture(tmp_path / "test" / "b" / "1.png", 0)
    with pytest.raises(DataError, match="test/b is a class that the training pictures lack"):
        folder_data(tmp_path).split("test", model)


def test_pictures_from_files_need_a_model(tmp_path):
    picture(tmp_path / "train" / "a" / "1.png", 1)
    with pytest.raises(DataError, match="need a model with a tokenizer"):
        folder_data(tmp_path).split("train").batch([0])
