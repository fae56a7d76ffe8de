"""The shipped digits: scikit-learn's, with a fixed split, and noticed when they are damaged."""

import numpy as np
import pytest
import torch

from zoo.data import digits
from zoo.data.digits import FILE, checksum, enlarge, load_digits
from zoo.errors import DataError
from zoo.registry import build, resolve


def test_the_values_are_scikit_learns():
    datasets = pytest.importorskip("sklearn.datasets")
    from sklearn.model_selection import train_test_split

    source = datasets.load_digits()
    with np.load(FILE) as file:
        assert np.array_equal(file["images"], source.images)
        assert np.array_equal(file["labels"], source.target)
        rows = np.arange(len(source.target))
        split = {"test_size": 0.2, "stratify": source.target, "random_state": 0}
        assert np.array_equal(file["held_out"], np.sort(train_test_split(rows, **split)[1]))


def test_the_split_is_fixed_and_stratified():
    images, labels = load_digits("train")
    held_images, held_labels = load_digits("test")
    assert images.shape == (1437, 32, 32) and held_images.shape == (360, 32, 32)
    assert images.dtype == np.uint8 and labels.dtype == np.int64
    counts = np.bincount(labels) / np.bincount(held_labels)
    assert counts.min() > 3.8 and counts.max() < 4.25
    everything, _ = load_digits()
    assert everything.shape == (1797, 32, 32) and FILE.stat().st_size < 64_000
    # what is trained on is not what is measured on
    assert not {i.tobytes() for i in images} & {i.tobytes() for i in held_images}


def test_the_enlarged_pictures_are_these_bytes():
    images, labels = load_digits()
    assert checksum(images, labels) == (
        "55d555a5be8a282b192a53259994976b2b366d70dc293f46c415c243ee32abae"
    )


def test_enlarging_is_bilinear():
    images = np.random.default_rng(0).integers(0, 17, (3, 8, 8))
    wide = torch.from_numpy(images[:, None].astype(np.float64))
    wanted = torch.nn.functional.interpolate(wide, size=32, mode="bilinear", align_corners=False)
    got = torch.from_numpy(enlarge(images)).double()
    assert (got - wanted[:, 0] * 255 / 16).abs().max() <= 0.5
    assert enlarge(np.full((1, 8, 8), 16)).min() == 255


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    with np.load(FILE) as file:
        arrays = dict(file)
    arrays["labels"][3] += 1
    monkeypatch.setattr(digits, "FILE", tmp_path / "digits.npz")
    digits._read.cache_clear()
    try:
        np.savez(tmp_path / "digits.npz", **arrays)
        with pytest.raises(DataError, match=r"digits\.npz is damaged"):
            load_digits()
        (tmp_path / "digits.npz").write_bytes(b"PK")
        with pytest.raises(DataError, match=r"digits\.npz cannot be read"):
            load_digits()
    finally:
        digits._read.cache_clear()


def test_batches_are_what_the_models_tokenizer_makes():
    import zoo

    model = zoo.create("vit-digits", "backbone.depth=0", seed=0)
    data = build(resolve("data", "digits"))
    assert data.labels == [str(i) for i in range(10)]
    batch = data.split("test", model).batch([0, 7])
    images, labels = load_digits("test")
    assert torch.equal(batch["pixels"], model.tokenizer.preprocess([images[0], images[7]]))
    assert batch["labels"].tolist() == [labels[0], labels[7]]


def test_without_a_model_pixels_are_grey_in_minus_one_to_one():
    dataset = build(resolve("data", "digits")).split("train")
    pixels = dataset.batch([0, 1, 2])["pixels"]
    assert len(dataset) == 1437 and pixels.shape == (3, 1, 32, 32)
    assert pixels.min() == -1 and pixels.max() <= 1
