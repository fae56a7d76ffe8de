"""The `datasets` library: from a folder on disk, with class names or plain classes."""

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.errors import DataError
from zoo.registry import build, resolve

datasets = pytest.importorskip("datasets")


def rows(labels, column="image"):
    pictures = [Image.fromarray(np.full((32, 32), 25 * i, np.uint8)) for i in range(len(labels))]
    return datasets.Dataset.from_dict({column: pictures, "label": labels})


def saved(path, train, test):
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(path)
    return str(path)


@pytest.fixture(scope="module")
def model():
    return zoo.create("vit-digits", "backbone.depth=0", seed=0)


def hub_data(folder, **keys):
    return build(resolve("data", {"name": "hf-image", "folder": folder, **keys}))


def test_named_classes_from_disk(tmp_path, model):
    names = datasets.ClassLabel(names=["zero", "one", "two"])
    train = rows([2, 0, 1]).cast_column("label", names)
    data = hub_data(saved(tmp_path / "set", train, rows([1]).cast_column("label", names)))
    assert data.labels == ["zero", "one", "two"]
    batch = data.split("train", model).batch([2, 0])
    assert batch["labels"].tolist() == [1, 2]
    means = (batch["pixels"].mean((1, 2, 3)) + 1) * 127.5
    assert [round(float(m)) for m in means] == [50, 0]
    assert len(data.split("test", model)) == 1


def test_written_classes_are_sorted_and_strange_ones_refused(tmp_path, model):
    folder = saved(tmp_path / "set", rows(["dog", "cat", "dog"]), rows(["owl"]))
    data = hub_data(folder)
    assert data.labels == ["cat", "dog"]
    assert data.split("train", model).labels.tolist() == [1, 0, 1]
    with pytest.raises(DataError, match="class 'owl' is not in the training split"):
        data.split("test", model)


def test_a_broken_picture_is_named_by_its_row(tmp_path, model):
    image = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    broken = {"image": [{"bytes": b"no picture", "path": None}], "label": [0]}
    table = datasets.Dataset.from_dict(broken, features=image)
    dataset = hub_data(saved(tmp_path / "set", table, table)).split("train", model)
    with pytest.raises(DataError, match="row 0: The picture is not a picture"):
        dataset.batch([0])


def test_wrong_words_get_the_nearest_right_one(tmp_path):
    folder = saved(tmp_path / "set", rows([0, 1]), rows([0]))
    with pytest.raises(DataError, match=r"no column 'imag'. Did you mean 'image'"):
        hub_data(folder, image="imag")
    with pytest.raises(DataError, match=r"no split 'tests'. Did you mean 'test'"):
        hub_data(folder, test="tests").split("test")
    with pytest.raises(DataError, match="say which data set"):
        build(resolve("data", "hf-image"))
    with pytest.raises(DataError, match="cannot be loaded"):
        hub_data(str(tmp_path / "nowhere"))
