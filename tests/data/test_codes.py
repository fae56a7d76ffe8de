"""Codes on disk: what went in comes out, and codes of something else are not mistaken for it."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.data.codes import CodesFile, encode_split, fingerprint, write_codes
from zoo.errors import ConfigError, DataError
from zoo.registry import build, resolve


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    zoo.save(zoo.create("fsq-digits", seed=0), folder)
    return f"dir:{folder}"


class Few:
    """The first eight samples of each split."""

    labels: list[str] = []

    def __init__(self, data):
        self.data = data

    def split(self, name, model=None):
        whole = self.data.split(name, model)

        class Part:
            batch = staticmethod(whole.batch)

            def __len__(self):
                return 8

        return Part()


def source(name="colour-digits", **keys):
    return Few(build(resolve("data", {"name": name, **keys})))


def test_codes_and_everything_beside_them_come_back(tokenizer, tmp_path):
    model, data = zoo.load(tokenizer), source()
    made = encode_split(data, "test", model, tmp_path / "test.safetensors", batch=3)
    assert len(made) == 8 and made.grid == (8, 8) and made.codebook_size == 128
    assert made.tensors["codes"].dtype == torch.uint8
    again = CodesFile(tmp_path / "test.safetensors")
    batch, original = again.batch([5, 1, 5]), data.split("test").batch([5, 1, 5])
    with torch.no_grad():
        assert torch.equal(batch["codes"], model.encode(original["pixels"]).ids)
    assert batch["codes"].dtype == torch.int64
    assert batch["captions"] == original["captions"]
    for key in ("digits", "colours", "unseen"):
        assert torch.equal(batch[key], original[key])
    assert "pixels" not in batch and again.about["weights"] == fingerprint(model)


def test_passes_draw_other_changes(tmp_path):
    model = zoo.create("cvivit-digits", seed=0).eval()
    data = source("moving-digits", frames=[3])
    made = encode_split(data, "train", model, tmp_path / "a.safetensors", passes=2)
    assert len(made) == 16 and made.grid == (2, 8, 8)
    first, second = made.batch(range(8)), made.batch(range(8, 16))
    assert first["captions"] == second["captions"]
    assert not torch.equal(first["codes"], second["codes"])  # another place to start from
    with pytest.raises(DataError, match="several sizes"):
        batches = ({"pixels": torch.rand(1, 3, frames, 32, 32)} for frames in (1, 3))
        write_codes(tmp_path / "b.safetensors", model, batches, {})
    assert not (tmp_path / "b.safetensors").exists()


def test_the_smallest_type_that_holds_the_codebook(tmp_path):
    for bits, dtype in ((8, torch.uint8), (9, torch.int16), (16, torch.int32)):
        model = zoo.create("fsq-digits", "quantizer=lfq", f"quantizer.bits={bits}", seed=0).eval()
        batch = {"pixels": torch.rand(2, 3, 8, 8)}
        made = write_codes(tmp_path / f"{bits}.safetensors", model, [batch], {})
        assert made.tensors["codes"].dtype == dtype


def test_a_data_set_is_encoded_once(tokenizer, tmp_path, monkeypatch):
    from zoo.data import codes as module

    config = resolve("data", {"name": "codes", "tokenizer": tokenizer, "folder": str(tmp_path)})
    monkeypatch.setattr(module, "build", lambda part: source())
    first = build(config).split("test")
    written = (tmp_path / "test.safetensors").stat().st_mtime_ns
    second = build(config).split("test")
    assert (tmp_path / "test.safetensors").stat().st_mtime_ns == written
    assert torch.equal(first.tensors["codes"], second.tensors["codes"])


def test_codes_of_something_else_are_refused(tokenizer, tmp_path, monkeypatch):
    from zoo.data import codes as module

    monkeypatch.setattr(module, "build", lambda part: source())
    base = {"name": "codes", "tokenizer": tokenizer, "folder": str(tmp_path)}
    build(resolve("data", base)).split("test")
    other = resolve("data", {**base, "source": {"name": "colour-digits", "unseen": True}})
    with pytest.raises(ConfigError, match="made with another source"):
        build(other).split("test")
    zoo.save(zoo.create("fsq-digits", seed=1), tokenizer.removeprefix("dir:"))
    with pytest.raises(ConfigError, match="made with another weights"):
        build(resolve("data", base)).split("test")
    zoo.save(zoo.create("fsq-digits", seed=0), tokenizer.removeprefix("dir:"))

    class Model:
        class config:
            codebook = 256

    with pytest.raises(ConfigError, match="has 128 codes, and the model counts 256"):
        build(resolve("data", base)).split("test", Model())


def test_what_is_no_file_of_codes_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        CodesFile(tmp_path / "none.safetensors")
    zoo.save(zoo.create("fsq-digits", seed=0), tmp_path)
    with pytest.raises(DataError, match="holds no codes of version 1"):
        CodesFile(tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"ends in \.safetensors"):
        write_codes(tmp_path / "x.pt", zoo.create("fsq-digits"), [], {})
    with pytest.raises(ConfigError, match="makes no codes"):
        write_codes(tmp_path / "x.safetensors", torch.nn.Linear(1, 1), [], {})
