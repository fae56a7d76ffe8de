"""Weights files: what is read back is what was written, and every defect is named."""

from __future__ import annotations

import json
import os
import random
import resource
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from zoo.errors import WeightsError
from zoo.weights.files import find_nonfinite, open_weights, save_weights
from zoo.weights.lazy import ITEM_SIZES
from zoo.weights.shard import CODES


def random_bits(shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    """Any bit pattern, NaNs included; only booleans must be 0 or 1."""
    if dtype == "bool":
        return torch.randint(0, 2, shape, dtype=torch.bool)
    raw = torch.randint(0, 256, (*shape, ITEM_SIZES[dtype]), dtype=torch.uint8)
    return raw.view(getattr(torch, dtype)).reshape(shape)


def bits(tensor: torch.Tensor) -> tuple[object, bytes]:
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return (tensor.dtype, tuple(tensor.shape)), bytes(flat.numpy())


def write_raw(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """A safetensors file by hand, right or wrong."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def entry(start: int, stop: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {f"layers.{i}.weight": torch.randn(4, 6) for i in range(4)} | {"scale": torch.ones(())}


def test_every_dtype_comes_back_bit_for_bit(tmp_path):
    torch.manual_seed(0)
    state = {dtype: random_bits((3, 5), dtype) for dtype in ITEM_SIZES}
    state |= {"none": torch.zeros(0, 4), "scalar": torch.tensor(3.5)}
    [path] = save_weights(state, tmp_path / "model.safetensors")
    weights = open_weights(path)
    assert set(weights) == set(state)
    for name, tensor in state.items():
        assert weights[name].shape == tuple(tensor.shape)
        assert f"torch.{weights[name].dtype}" == str(tensor.dtype)
        assert bits(weights[name].read()) == bits(tensor), name
        assert bits(weights[name].read(copy=True)) == bits(tensor), name


def test_bytes_are_those_of_the_safetensors_library(tmp_path):
    torch.manual_seed(0)
    state = {f"{dtype}.{i}": random_bits((2, 3), dtype) for i in (1, 0) for dtype in ITEM_SIZES}
    save_weights(state, tmp_path / "ours.safetensors")
    safetensors.torch.save_file(state, tmp_path / "theirs.safetensors", {"format": "pt"})
    ours, theirs = (tmp_path / f"{n}.safetensors" for n in ("ours", "theirs"))
    assert ours.read_bytes() == theirs.read_bytes()
    for name, tensor in safetensors.torch.load_file(ours).items():
        assert bits(tensor) == bits(state[name])


def test_a_tensor_is_a_view_that_never_writes_to_the_file(tmp_path, state):
    [path] = save_weights(state, tmp_path)
    before = path.read_bytes()
    weights = open_weights(tmp_path)
    first, second = weights["layers.0.weight"].read(), weights["layers.0.weight"].read()
    assert first.data_ptr() == second.data_ptr()  # one mapping, no copy
    first.zero_()
    assert path.read_bytes() == before
    assert torch.equal(weights["layers.0.weight"].read(copy=True), state["layers.0.weight"])
    assert torch.equal(weights["layers.1.weight"][1:3, 2], state["layers.1.weight"][1:3, 2])


def test_tensors_outlive_the_closed_file(tmp_path, state):
    save_weights(state, tmp_path)
    with open_weights(tmp_path) as weights:
        loaded = weights.read()
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor)


def test_views_and_other_layouts_are_stored_as_seen(tmp_path):
    base = torch.arange(24.0).view(4, 6)
    state = {
        "t": base.t(),
        "rows": base[1:3],
        "columns": base[:, ::2],
        "wide": base.expand(2, 4, 6),
    }
    save_weights(state, tmp_path)
    for name, tensor in open_weights(tmp_path).read().items():
        assert torch.equal(tensor, state[name]), name


def test_headers_of_every_length(tmp_path):
    """The first bytes are a number, and some numbers look like the beginning of another file."""
    for length in range(8, 1500, 8):
        raw = json.dumps({"__metadata__": {"note": ""}, "a": entry(0, 8, [2])}).encode()
        raw += b" " * (length - len(raw))
        path = write_raw(tmp_path / "a.safetensors", raw, b"\0" * 8)
        assert open_weights(path)["a"].shape == (2,)


def test_unaligned_values_are_read_rightly(tmp_path):
    values = torch.arange(6, dtype=torch.float32)
    header = {"a": entry(0, 1, [1], "U8"), "b": entry(1, 25, [2, 3])}
    raw = json.dumps(header).encode()
    data = b"\x07" + values.numpy().tobytes()
    path = write_raw(tmp_path / "odd.safetensors", raw + b" " * (-len(raw) % 8), data)
    found = open_weights(path)["b"].read()
    assert torch.equal(found, values.view(2, 3)) and found.data_ptr() % 4 == 0
    assert torch.equal(safetensors.torch.load_file(path)["b"], found)


def test_tied_weights_are_stored_once_and_given_back(tmp_path):
    shared = torch.randn(64, 64)
    state = {
        "embedding": shared,
        "norm": torch.ones(3),
        "head": shared,
        "alias": shared.view(64, 64),
    }
    [path] = save_weights(state, tmp_path)
    assert path.stat().st_size < 1.2 * shared.nbytes
    assert set(safetensors.torch.load_file(path)) == {"embedding", "norm"}
    weights = open_weights(path)
    assert weights["head"] is weights["embedding"] is weights["alias"]
    assert weights.nbytes == shared.nbytes + 12
    for name, tensor in state.items():
        assert torch.equal(weights[name].read(), tensor)


def test_equal_values_in_other_memory_are_not_tied(tmp_path):
    save_weights({"a": torch.ones(4), "b": torch.ones(4)}, tmp_path)
    assert set(safetensors.torch.load_file(tmp_path / "model.safetensors")) == {"a", "b"}


def test_shards(tmp_path, state):
    state["tied"] = state["layers.0.weight"]
    files = save_weights(state, tmp_path, {"note": "ü"}, max_shard_bytes=200)
    assert [file.name for file in files] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    for path in (tmp_path, files[-1]):
        weights = open_weights(path)
        assert set(weights) == set(state) and weights.metadata["note"] == "ü"
        assert weights.paths == tuple(files[:2])
        for name, tensor in state.items():
            assert torch.equal(weights[name].read(), tensor)


def test_saving_again_leaves_no_old_file(tmp_path, state):
    other = tmp_path / "notes.safetensors"
    safetensors.torch.save_file({"x": torch.ones(1)}, other)
    for number, limit in enumerate((200, 100, 10**9, 200)):
        state["scale"] = torch.tensor(float(number))
        files = save_weights(state, tmp_path, max_shard_bytes=limit)
        assert {*files, other} == set(tmp_path.iterdir())
        assert open_weights(tmp_path)["scale"].read() == number


def test_new_shards_never_replace_the_old_before_the_index_does(tmp_path, state, monkeypatch):
    save_weights(state, tmp_path, max_shard_bytes=200)
    replaced = []

    def crash_after_one(source, target):
        if replaced:
            raise OSError(5, "power cut")
        replaced.append(target)
        os.rename(source, target)

    monkeypatch.setattr("zoo.weights.save.os.replace", crash_after_one)
    changed = {name: tensor + 1 for name, tensor in state.items()}
    with pytest.raises(WeightsError, match="power cut"):
        save_weights(changed, tmp_path, max_shard_bytes=200)
    assert len(replaced) == 1
    for name, tensor in open_weights(tmp_path).read().items():
        assert torch.equal(tensor, state[name])


def test_full_disk_leaves_the_old_file(tmp_path, state):
    [path] = save_weights(state, tmp_path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(WeightsError, match=r"could not be written .*old weights are intact"):
            save_weights({"big": torch.zeros(100_000)}, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.zeros(2, device="meta"), "no values"),
        (torch.zeros(2).to_sparse(), "not a dense tensor"),
        (torch.zeros(2, dtype=torch.complex128), "complex128.*cannot be stored"),
    ],
)
def test_what_cannot_be_saved(tmp_path, value, words):
    with pytest.raises(WeightsError, match=words):
        save_weights({"x": value}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bad_names_and_metadata(tmp_path):
    with pytest.raises(WeightsError, match="__metadata__"):
        save_weights({"__metadata__": torch.ones(1)}, tmp_path)
    with pytest.raises(WeightsError, match="must be text"):
        save_weights({"x": torch.ones(1)}, tmp_path, {"steps": 3})  # type: ignore[dict-item]


GOOD = {"a": entry(0, 8, [2]), "b": entry(8, 16, [2])}
DEFECTS = {
    "empty": (b"", "is empty"),
    "short": (b"\x01\x02", "cut off after 2 bytes"),
    "huge header": (struct.pack("<Q", 10**12) + b"{}", "header of 1,000,000,000,000 bytes"),
    "cut header": (struct.pack("<Q", 500) + b'{"a":', "cut off inside its header"),
    "garbage": (struct.pack("<Q", 4) + b"\xff\xfe\x00\x01", "no valid JSON"),
    "bad json": (struct.pack("<Q", 5) + b'{"a":', "no valid JSON"),
    "deep json": (struct.pack("<Q", 20_000) + b"[" * 20_000, "no valid JSON"),
    "list": (struct.pack("<Q", 2) + b"[]", "no JSON object"),
    "web page": (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "server error": (b'{"error":"Repository not found"}', "server's error message"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-lfs pointer"),
    "pickle": (b"PK\x03\x04" + b"\0" * 40, "pickle under the name"),
}  # fmt: skip
HEADERS = {
    "truncated": (GOOD, 12, r"cut off: \d+ of \d+ bytes"),
    "too long": (GOOD, 20, "4 bytes that no tensor claims"),
    "overlap": ({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, 12, "'b' overlaps 'a'"),
    "hole": ({"a": entry(0, 8, [2]), "b": entry(12, 20, [2])}, 20, "'b' leaves a hole after 'a'"),
    "backwards": ({"a": entry(8, 0, [2])}, 8, "do not hold its shape"),
    "negative": ({"a": entry(-8, 0, [2])}, 8, "two positions"),
    "wrong size": ({"a": entry(0, 8, [3])}, 8, "8 bytes do not hold its shape"),
    "overflow": ({"a": entry(0, 0, [2**40, 2**40])}, 0, "do not hold its shape"),
    "bomb": ({"a": entry(0, 0, [2] * 100_000)}, 0, "shape is not a list of sizes"),
    "shape": ({"a": entry(0, 8, ["2"])}, 8, "shape is not a list"),  # type: ignore[list-item]
    "true": ({"a": entry(0, 4, [True])}, 4, "shape is not a list"),
    "dtype": ({"a": entry(0, 8, [2], "F31")}, 8, "stores 'a' as 'F31'"),
    "dtype list": ({"a": {"dtype": [], "shape": [], "data_offsets": [0, 4]}}, 4, "stores 'a' as"),
    "extra key": ({"a": {**entry(0, 8, [2]), "code": "x"}}, 8, "needs dtype, shape and data"),
    "metadata": ({"__metadata__": {"a": 1}}, 0, "metadata is not text"),
    "twice": (b'{"a":' + json.dumps(entry(0, 8, [2])).encode() + b',"a":1}', 8, "lists 'a' twice"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DEFECTS)
def test_damaged_file(tmp_path, kind):
    content, words = DEFECTS[kind]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    refused(path, words)
    with pytest.raises(Exception):  # noqa: B017 (the library's own error type is its business)
        safetensors.torch.load_file(path)


@pytest.mark.parametrize("kind", HEADERS)
def test_damaged_header(tmp_path, kind):
    header, size, words = HEADERS[kind]
    refused(write_raw(tmp_path / "model.safetensors", header, b"\0" * size), words)


def refused(path: Path, words: str) -> None:
    for place in (path, path.parent):
        with pytest.raises(WeightsError, match=words) as caught:
            open_weights(place)
        text = str(caught.value)
        assert str(path) in text and "\n" not in text and len(text) < len(str(path)) + 260


def test_cut_anywhere_is_noticed(tmp_path, state):
    [path] = save_weights(state, tmp_path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError, match="zoo pull --force"):
            open_weights(path)


def test_file_that_shrinks_while_open_is_an_error(tmp_path, state):
    [path] = save_weights(state, tmp_path)
    weights = open_weights(path)
    os.truncate(path, path.stat().st_size - 60)
    with pytest.raises(WeightsError, match="changed from"):
        weights["layers.0.weight"].read()
    with pytest.raises(WeightsError, match="changed from"):
        weights["scale"].read(copy=True)


def edit_index(folder: Path, change) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(scale="../elsewhere.safetensors"), "no .safetensors file beside it"),
        (lambda m: m.update(scale="/etc/passwd"), "no .safetensors file beside it"),
        (lambda m: m.update(scale="model.bin"), "no .safetensors file beside it"),
        (lambda m: m.update(scale="gone.safetensors"), r"lacks 1 of 3 shards \(gone.safetensors\)"),
        (lambda m: m.update({"layers.0.weight": m["scale"]}), "'layers.0.weight'.* but it is in"),
        (lambda m: m.update(more=m["scale"]), "lists 'more' in .*, but no shard holds it"),
        (lambda m: m.update(scale=3), "is not an index"),
    ],
)  # fmt: skip
def test_bad_index(tmp_path, state, change, words):
    save_weights(state, tmp_path, max_shard_bytes=200)
    edit_index(tmp_path, change)
    with pytest.raises(WeightsError, match=words):
        open_weights(tmp_path)


def test_index_with_a_tensor_twice(tmp_path, state):
    files = save_weights(state, tmp_path, max_shard_bytes=200)
    inside = safetensors.torch.load_file(files[0])
    first = next(iter(safetensors.torch.load_file(files[1]).items()))
    safetensors.torch.save_file({**inside, first[0]: first[1].clone()}, files[0])
    with pytest.raises(WeightsError, match=rf"holds '{first[0]}' twice"):
        open_weights(tmp_path)
    files[2].write_text('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}')
    with pytest.raises(WeightsError, match="lists 'a' twice"):
        open_weights(tmp_path)


def test_hub_cache_links_are_followed(tmp_path, state):
    store, snapshot = tmp_path / "blobs", tmp_path / "snapshots"
    snapshot.mkdir()
    for file in save_weights(state, store, max_shard_bytes=200):
        (snapshot / file.name).symlink_to(file)
    assert set(open_weights(snapshot)) == set(state)


def test_folders(tmp_path, state):
    with pytest.raises(WeightsError, match="does not exist"):
        open_weights(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="holds no weights"):
        open_weights(tmp_path)
    save_weights(state, tmp_path / "one.safetensors")
    assert set(open_weights(tmp_path)) == set(state)
    save_weights(state, tmp_path / "two.safetensors")
    with pytest.raises(WeightsError, match=r"several weights files .*one.safetensors, two"):
        open_weights(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(WeightsError, match="not a weights file"):
        open_weights(tmp_path / "notes.txt")


class Harmless:
    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('pwned').touch()",))


def test_pickles_only_when_asked(tmp_path, state, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(state, "pytorch_model.bin")
    torch.save(state, "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 3, "state_dict": state}, "wrapped.ckpt")
    torch.save({"model": state, "ema": state}, "two.pth")
    torch.save({"epoch": 3}, "none.pt")
    for name in ("pytorch_model.bin", ".", "wrapped.ckpt"):
        with pytest.raises(WeightsError, match=r"allow_pickle=True|several weights files"):
            open_weights(name)
    for name in ("pytorch_model.bin", "legacy.pt", "wrapped.ckpt"):
        weights = open_weights(name, allow_pickle=True)
        assert all(torch.equal(weights[key].read(), tensor) for key, tensor in state.items())
        assert set(weights) == set(state)
    with pytest.raises(WeightsError, match="choose one with inside=: model, ema"):
        open_weights("two.pth", allow_pickle=True)
    assert set(open_weights("two.pth", allow_pickle=True, inside="ema")) == set(state)
    with pytest.raises(WeightsError, match="no tensors in 'emma'; try model, ema"):
        open_weights("two.pth", allow_pickle=True, inside="emma")
    with pytest.raises(WeightsError, match="no state dict"):
        open_weights("none.pt", allow_pickle=True)


def test_hostile_pickles_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(torch.nn.Linear(2, 2), "module.pt")
    torch.save({"weight": Harmless()}, "evil.pt")
    torch.save(Harmless(), "old.bin", _use_new_zipfile_serialization=False)
    for name in ("module.pt", "evil.pt", "old.bin"):
        with pytest.raises(WeightsError, match=rf"{name} is a whole pickled object") as caught:
            open_weights(name, allow_pickle=True)
        assert "weights_only" not in str(caught.value)  # torch's advice to switch it off
    Path("cut.bin").write_bytes(Path("module.pt").read_bytes()[:300])
    with pytest.raises(WeightsError, match=r"cut.bin"):
        open_weights("cut.bin", allow_pickle=True)
    assert not Path("pwned").exists()


def test_sharded_pickles(tmp_path, state):
    torch.save({"scale": state.pop("scale")}, tmp_path / "pytorch_model-1.bin")
    torch.save(state, tmp_path / "pytorch_model-2.bin")
    weight_map = {**dict.fromkeys(state, "pytorch_model-2.bin"), "scale": "pytorch_model-1.bin"}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(WeightsError, match="allow_pickle=True"):
        open_weights(tmp_path)
    assert set(open_weights(tmp_path, allow_pickle=True)) == set(weight_map)


def test_nonfinite_values_are_found(tmp_path):
    bad = torch.zeros(10)
    bad[7] = float("nan")
    state = {
        "good": torch.ones(4), "nan": bad, "inf": torch.tensor(float("inf")),
        "half": torch.tensor([1.0, float("-inf")], dtype=torch.bfloat16),
        "eight": torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn),
        "fine8": torch.ones(2).to(torch.float8_e5m2), "count": torch.ones(3, dtype=torch.int64),
    }  # fmt: skip
    save_weights(state, tmp_path)
    assert set(find_nonfinite(open_weights(tmp_path))) == {"nan", "inf", "half", "eight"}


def test_codes_cover_the_dtypes():
    assert list(CODES) == list(ITEM_SIZES)
    for name, size in ITEM_SIZES.items():
        assert getattr(torch, name).itemsize == size


def test_listing_needs_no_torch(tmp_path, state):
    save_weights(state, tmp_path, max_shard_bytes=200)
    code = (
        "import sys; from zoo.weights.files import open_weights; import zoo.weights.map;"
        "w = open_weights(sys.argv[1]); print(sorted((n, t.shape, t.dtype) for n, t in w.items()));"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "('layers.0.weight', (4, 6), 'float32')" in done.stdout


def test_what_is_accepted_the_library_accepts_too(tmp_path):
    """Flip, drop and insert header bytes at random: no damage may be read as something else."""
    dice = random.Random(0)
    state = {"a": torch.arange(6.0).view(2, 3), "b.weight": torch.ones(4, dtype=torch.bfloat16)}
    [path] = save_weights(state, tmp_path)
    whole = path.read_bytes()
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    accepted = 0
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(dice.randint(1, 2)):
            place = dice.randrange(end)
            kind = dice.randrange(3)
            if kind == 0:
                damaged[place] = dice.choice(b'0123456789{}[],:"abFx \xff')
            elif kind == 1:
                del damaged[place]
            else:
                damaged.insert(place, dice.choice(b'0123456789,"'))
        path.write_bytes(damaged)
        try:
            found = open_weights(path).read(copy=True)
        except WeightsError:
            continue
        accepted += 1
        theirs = safetensors.torch.load_file(path)
        assert found.keys() == theirs.keys()
        assert all(bits(found[name]) == bits(tensor) for name, tensor in theirs.items())
    assert 20 < accepted < 1000
