"""The compiled kernels against PyTorch's, and what they promise beyond numbers."""

import gc
import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from zoo.nn import native
from zoo.nn.forms import quantise
from zoo.nn.matmul import PLAIN
from zoo.nn.native import calls, memory

needs_kernels = pytest.mark.skipif(
    native.library() is None, reason="no C compiler was found when zoo was installed"
)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler")
def test_they_are_there_where_there_is_a_compiler():
    assert native.library() is not None


def test_zoo_linear_leaves_them_out():
    code = "from zoo.nn import native; print(native.library())"
    run = subprocess.run(
        [sys.executable, "-c", code], env={"ZOO_LINEAR": "torch"}, capture_output=True, text=True
    )
    assert run.stdout.strip() == "None", run.stderr


@needs_kernels
@pytest.mark.parametrize("state", ["other sources", "no sources"])
def test_kernels_of_other_sources_are_not_called(state, monkeypatch):
    if state == "other sources":
        monkeypatch.setattr(calls, "digest", lambda: "of other lines")
    else:
        monkeypatch.setattr(calls.ctypes, "CDLL", lambda path: object())
    with pytest.warns(UserWarning, match=r"compiled from other sources .* make setup"):
        assert calls.library.__wrapped__() is None


@pytest.fixture(params=["portable", "AVX2", "AVX-512", "all"])
def instructions(request):
    """Leaves out what the processor has beyond some kind of instructions."""
    kinds = ["portable", "AVX2", "AVX-512", "all"]
    native.library().allow(kinds.index(request.param))
    yield
    native.library().allow(len(kinds) - 1)


@needs_kernels
@pytest.mark.parametrize("limit", ["OMP_THREAD_LIMIT=1", "OMP_DYNAMIC=true"])
def test_all_is_done_where_fewer_threads_are_given_than_were_asked_for(limit):
    code = """
import torch
from zoo.nn import native
torch.set_num_threads(2)
weight, x = torch.randn(1024, 512), torch.randn(1, 512)
torch.testing.assert_close(native.Panels(weight, None)(x), x @ weight.T, rtol=1e-4, atol=1e-4)
"""
    name, value = limit.split("=")
    subprocess.run([sys.executable, "-c", code], env=os.environ | {name: value}, check=True)


ROWS = [*range(1, 10), 15, 16, 17, 31, 32, 33, 70]  # in registers, in tiles, by one, by two


@needs_kernels
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", native.FLOATS)
def test_products(dtype, rows, threads, instructions):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for outputs in (701, 48, 9):
            weight, bias = random(outputs, 320).to(dtype), random(outputs, seed=1).to(dtype)
            x = random(2, 320, rows, seed=2).to(dtype).transpose(1, 2)[1]  # not in one piece
            for added in (None, bias):
                found = native.Panels(weight, added)(x)
                exact = x.double() @ weight.double().T
                exact = exact if added is None else exact + added.double()
                assert found.dtype == dtype and found.shape == exact.shape
                error = (found.double() - exact).abs().max() / exact.abs().max()
                assert error < (1e-6 if dtype == torch.float32 else 4e-3)
    finally:
        torch.set_num_threads(before)


@needs_kernels
def test_fp32_stays_as_exact_where_there_are_many_inputs():
    weight, x = random(32, 8192), random(3, 8192, seed=1)
    exact = x.double() @ weight.double().T
    error, theirs = (
        (found.double() - exact).norm() / exact.norm()
        for found in (native.Panels(weight, None)(x), F.linear(x, weight))
    )
    assert error < max(2 * theirs, 2e-7)


@needs_kernels
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("dtype", native.FLOATS)
def test_numbers_are_rounded_as_pytorch_rounds_and_nan_stays_nan(dtype, rows, instructions):
    weight = torch.eye(64).to(dtype)
    x = torch.tensor([1.0, -0.0, float("inf"), float("nan"), 1e-30, 3e38, 1 / 3] + [0.0] * 57)
    whole = native.Panels(weight, None)(x.to(dtype).expand(rows, -1))
    assert whole[:, 3].isnan().all() and whole[:, 2].isnan().all()  # inf * 0 is NaN
    x[2:4] = 7.0
    assert torch.equal(native.Panels(weight, None)(x.to(dtype)[None])[0], x.to(dtype))


@needs_kernels
@pytest.mark.parametrize("rows", [1, 5])
def test_bf16_sums_round_to_nearest_even(rows, instructions):
    weight = torch.zeros(256, 64, dtype=torch.bfloat16)
    bias = random(256).bfloat16()
    weight[:, 0] = (torch.arange(256) / 256 / 128).bfloat16()
    x = torch.zeros(rows, 64, dtype=torch.bfloat16)
    x[:, 0] = 1
    exact = (weight[:, 0].float() + bias.float()).bfloat16()
    assert torch.equal(native.Panels(weight, bias)(x), exact.expand(rows, -1))


@needs_kernels
@pytest.mark.parametrize("rows", ROWS)
def test_int8_sums_are_exact(rows, instructions):
    """Full-range numbers, whose products overflow 16 bits."""
    maker = torch.Generator().manual_seed(rows)
    numbers = torch.randint(-127, 128, (90, 640), generator=maker, dtype=torch.int8)
    numbers[0], numbers[1] = 127, -127
    scale, bias = torch.rand(90, generator=maker), random(90)
    x = random(rows, 640, seed=rows)
    x[0] = 1.0
    x[rows // 2] = 0.0
    x = x.clamp(-2, 2)
    x[:, 0], x[:, 1:] = 2.0, (x[:, 1:] * 127 / 2).round() * 2 / 127  # whole numbers of the scale
    coarse = (x * 127 / 2).round()
    sums = coarse.long() @ numbers.long().T
    exact = sums.double() * 2 / 127 * scale.double() + bias.double()
    found = native.Panels(numbers, bias, scale)(x)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-4)


@needs_kernels
def test_int8_quantises_each_row_as_the_formula_does(instructions):
    numbers, scale = torch.eye(128, dtype=torch.int8), torch.ones(128)
    x = random(7, 128)
    x[1], x[2, 3] = 0, 1000.0
    found = native.Panels(numbers, None, scale)(x)
    coarse, by_row = quantise(x)
    expected = coarse * by_row
    assert (found - expected).abs().max() <= by_row.max() * 1.001  # ties that were rounded
    assert ((found - expected).abs() > by_row / 2).float().mean() < 0.02
    x[4, 4] = float("nan")
    assert native.Panels(numbers, None, scale)(x)[4].isnan().all()


@needs_kernels
@pytest.mark.parametrize("activation", ["linear", *PLAIN])
@pytest.mark.parametrize("dtype", native.PRODUCTS)
def test_activations(dtype, activation, instructions):
    kind = torch.float32 if dtype == torch.int8 else dtype
    x = torch.linspace(-120, 120, 20 * 64).view(20, 64)[torch.randperm(20)].to(kind)
    x[0, :4] = torch.tensor([0.0, -0.0, float("nan"), 1e-30])
    scale = torch.ones(64) if dtype == torch.int8 else None
    made = native.Panels(torch.eye(64).to(dtype), None, scale)
    found, plain = made(x, activation), made(x)
    exact = plain if activation == "linear" else PLAIN[activation](plain)
    bound = 1e-6 if kind == torch.float32 else 8e-3
    torch.testing.assert_close(found, exact, rtol=bound, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("activation", ["linear", *PLAIN])
@pytest.mark.parametrize("biased", [False, True])
def test_what_others_have_multiplied_is_finished(activation, biased):
    x, bias = 30 * random(2, 7, 77), random(77, seed=1) if biased else None
    wide = x + bias if biased else x
    expected = wide if activation == "linear" else PLAIN[activation](wide)
    found = native.finish_(x.clone(), bias, activation)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@needs_kernels
@pytest.mark.parametrize("dtype", native.PRODUCTS)
@pytest.mark.parametrize("outputs", [1, 16, 90])
def test_panels_give_their_weight_back_and_can_be_sent(dtype, outputs):
    weight = (40 * random(outputs, 192)).to(dtype)
    scale = torch.ones(outputs) if dtype == torch.int8 else None
    made = native.Panels(weight, random(outputs), scale)
    sent = pickle.loads(pickle.dumps(made))
    assert torch.equal(made.dense(), weight) and torch.equal(sent.dense(), weight)
    x = random(2, 192).to(torch.float32 if dtype == torch.int8 else dtype)
    if dtype != torch.bfloat16:  # whose bias would be bf16
        assert torch.equal(made(x), sent(x))


@needs_kernels
@pytest.mark.parametrize(
    "kinds", [(torch.float32,) * 2, (torch.bfloat16,) * 2, (torch.float32, torch.bfloat16)]
)
@pytest.mark.parametrize(
    ("heads", "groups", "channels", "keys"),
    [
        (4, 4, 64, 1),
        (4, 2, 80, 37),
        (6, 1, 16, 300),
        (2, 2, 128, 777),
        (3, 3, 5, 9),
        (2, 1, 92, 300),
    ],
)
@pytest.mark.parametrize("window", [None, 5, 280])
def test_attention_of_one_query(kinds, heads, groups, channels, keys, window):  # fmt: skip
    low, lower = kinds
    q = random(3, heads + 2, 1, channels).to(low)[:, :heads]
    room = random(2, 3, groups, keys + 5, channels, seed=1).to(lower)
    k, v = room[:, :, :, :keys]
    bias = random(1, heads, 1, keys, seed=2)
    with torch.inference_mode():
        assert native.attends(q, k, v)
        hidden = torch.arange(keys) < keys - (window or keys)
        for added in (None, bias):
            found = native.attend(q, k, v, added, 0.2, window=window)
            scores = torch.zeros(1, 1, 1, keys) if added is None else added
            exact = F.scaled_dot_product_attention(
                q.double(), k.double(), v.double(),
                scores.double().masked_fill(hidden, float("-inf")), scale=0.2, enable_gqa=True,
            )  # fmt: skip
            assert found.dtype == low and found.shape == exact.shape
            error = (found.double() - exact).abs().max() / exact.abs().max()
            assert error < (2e-6 if low == torch.float32 else 4e-3)


@needs_kernels
@pytest.mark.parametrize("window", [None, 128])
def test_attention_to_slots_reads_each_ones_own(window):
    q, slots = random(3, 4, 1, 32), random(2, 2, 900, 32, seed=1)
    starts, lengths = [500, 0, 120], [400, 90, 300]
    with torch.inference_mode():
        k, v = slots[:, None]
        found = native.attend(q, k, v, None, 0.3, native.Places(starts, lengths), window)
        for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            own = slots[:, None, :, start : start + length]
            alone = native.attend(q[row, None], *own, None, 0.3, window=window)
            assert torch.equal(alone[0], found[row])


@needs_kernels
def test_scores_far_apart_neither_overflow_nor_vanish():
    q, k = torch.ones(1, 1, 1, 16), torch.zeros(1, 1, 600, 16)
    k[0, 0, 10], k[0, 0, 590] = 1e4, 1e4
    v = random(1, 1, 600, 16)
    with torch.inference_mode():
        found = native.attend(q, k, v, None, 1.0)
    torch.testing.assert_close(found[0, 0, 0], (v[0, 0, 10] + v[0, 0, 590]) / 2)


@needs_kernels
@pytest.mark.parametrize("change", ["grad", "queries", "channels", "dtype", "strides"])
def test_what_it_does_not_know_is_left_to_pytorch(change):
    q, k, v = random(1, 2, 1, 32), random(1, 2, 9, 32), random(1, 2, 9, 32)
    if change == "queries":
        q = random(1, 2, 2, 32)
    if change == "channels":
        q, k, v = (torch.zeros(1, 2, 1, native.CHANNELS + 16) for _ in range(3))
    if change == "dtype":
        q, k, v = q.double(), k.double(), v.double()
    if change == "strides":
        v = random(1, 9, 2, 32).transpose(1, 2)
    with torch.set_grad_enabled(change == "grad"):
        assert not native.attends(q, k, v)


@needs_kernels
@pytest.mark.parametrize("width", [48, 77, 5])
@pytest.mark.parametrize("kinds", [(a, b) for a in native.FLOATS for b in native.FLOATS])
def test_rms_norm(kinds, width):
    kind, weight_kind = kinds
    x = random(3, width, 2, seed=1).to(kind).transpose(1, 2)  # not in one piece
    weight = random(width).to(weight_kind)
    wide = x.double()
    exact = wide / (wide.square().mean(-1, keepdim=True) + 0.1).sqrt() * weight.double()
    with torch.inference_mode():
        assert native.reads(x)
        found = native.rms_norm(x, weight, 0.1)
    assert found.dtype == kind
    torch.testing.assert_close(found.double(), exact, rtol=4e-3 if kind != torch.float32 else 2e-6,
                               atol=1e-6)  # fmt: skip
    assert native.rms_norm(x * float("nan"), weight, 0.1).isnan().all()
    assert not native.reads(x)  # a gradient may be wanted


@needs_kernels
@pytest.mark.parametrize("width", [48, 77, 5])
@pytest.mark.parametrize("kinds", [(a, b) for a in native.FLOATS for b in native.FLOATS])
def test_layer_norm(kinds, width):
    kind, weight_kind = kinds
    x = (random(3, width, 2, seed=1) + 3).to(kind).transpose(1, 2)  # not in one piece
    weight, bias = (random(width, seed=seed).to(weight_kind) for seed in (2, 3))
    for added in (None, bias):
        exact = F.layer_norm(x.double(), (width,), weight.double(), None if added is None else
                             added.double(), 0.1)  # fmt: skip
        found = native.layer_norm(x, weight, added, 0.1)
        assert found.dtype == kind
        bound = 4e-3 if kind != torch.float32 else 3e-6
        torch.testing.assert_close(found.double(), exact, rtol=bound, atol=bound)


@needs_kernels
@pytest.mark.parametrize("kind", native.FLOATS)
@pytest.mark.parametrize("count", [1, 15, 16, 700])
def test_the_first_of_the_largest(kind, count):
    x = random(9, count + 3, seed=count).to(kind)[:, :count]
    x[1], x[2] = float("-inf"), 3.0
    x[3, count // 2] = x[3, count - 1] = 9.0
    x[4, count // 2] = x[4, count - 1] = float("nan")
    x[5, -1] = 9.0
    x[6, 0] = float("inf")
    assert torch.equal(native.largest(x), x.float().argmax(-1))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_what_is_stored_lies_in_its_slots(kind):
    x = random(2, 3, 4, 6, seed=1).transpose(1, 2)[:, :3]  # b g n c, not in one piece
    slots = random(3, 30, 6).to(kind)
    where = torch.tensor([7, 8, 20, 0, 1, 29])
    expected = slots.clone()
    for place, slot in enumerate(where.tolist()):
        expected[:, slot] = x[place // 3, :, place % 3].to(kind)
    native.store(x, slots, where)
    assert torch.equal(slots, expected)


def test_places_lie_one_behind_the_other_and_go_with_their_last():
    first, second, third = (memory.place(60) for _ in range(3))
    assert second.data_ptr() - first.data_ptr() in (64, second.data_ptr() - first.data_ptr())
    assert all(len(one) == 60 and one.data_ptr() % 64 == 0 for one in (first, second, third))
    first.fill_(1), second.fill_(2)
    assert (first == 1).all() and (second == 2).all()
    large = memory.place(memory.BLOCK + 1).fill_(1)  # more than a block
    assert large.data_ptr() % memory.PAGE == 0
    kept = large[5:]
    del large
    gc.collect()
    assert (kept == 1).all()


def test_free_memory_is_known_or_none():
    found = memory.free()
    assert found == 0 or found > 1 << 20
