"""The compiled kernels against PyTorch's, and what they promise beyond numbers."""

import gc
import shutil
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from zoo.nn import native
from zoo.nn.forms import quantise
from zoo.nn.native import memory

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
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("dtype", "rows"),
    [(dtype, n + 1) for dtype in native.KINDS for n in range(native.Rows.most(dtype))],
)
def test_products_of_few_rows(dtype, rows, threads):
    weight, bias = random(701, 320).to(dtype), random(701, seed=1).to(dtype)
    x = random(2, 320, rows, seed=2).to(dtype).transpose(1, 2)[1]  # not in one piece
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for added in (None, bias):
            found = native.Rows(weight, added)(x)
            exact = F.linear(
                x.double(), weight.double(), added if added is None else added.double()
            )
            assert found.dtype == dtype and found.shape == exact.shape
            error = (found.double() - exact).abs().max() / exact.abs().max()
            assert error < (1e-6 if dtype == torch.float32 else 4e-3)
    finally:
        torch.set_num_threads(before)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bf16_is_rounded_as_pytorch_rounds_and_nan_stays_nan(dtype):
    weight = torch.eye(64).to(dtype)
    x = torch.tensor([1.0, -0.0, float("inf"), float("nan"), 1e-30, 3e38, 1 / 3] + [0.0] * 57)
    whole = native.Rows(weight[:, :64], None)(x.to(dtype)[None])[0]
    assert whole[3].isnan() and whole[2].isnan()  # inf * 0 is NaN
    x[2:4] = 7.0
    assert torch.equal(native.Rows(weight, None)(x.to(dtype)[None])[0], x.to(dtype))


@needs_kernels
def test_bf16_sums_round_to_nearest_even():
    weight = torch.zeros(256, 64, dtype=torch.bfloat16)
    bias = random(256).bfloat16()
    weight[:, 0] = (torch.arange(256) / 256 / 128).bfloat16()
    x = torch.zeros(1, 64, dtype=torch.bfloat16)
    x[0, 0] = 1
    exact = (weight[:, 0].float() + bias.float()).bfloat16()
    assert torch.equal(native.Rows(weight, bias)(x)[0], exact)


@needs_kernels
@pytest.mark.parametrize("rows", range(1, native.MOST + 1))
def test_int8_sums_are_exact(rows):
    """Full-range numbers, whose products overflow 16 bits."""
    maker = torch.Generator().manual_seed(rows)
    numbers = torch.randint(-127, 128, (90, 640), generator=maker, dtype=torch.int8)
    numbers[0], numbers[1] = 127, -127
    scale, bias = torch.rand(90, generator=maker), random(90)
    x = random(rows, 640, seed=rows)
    x[0] = 1.0
    coarse, x_scale = quantise(x)
    sums = coarse.long() @ numbers.long().T
    exact = sums.double() * x_scale.double() * scale.double() + bias.double()
    found = native.linear_int8(x, numbers, scale, bias)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-4)


@needs_kernels
def test_quantised_rows_are_those_of_the_formula():
    x = random(5, 77)
    x[1], x[2, 3] = 0, 1000.0
    numbers, scale = native.quantise(x)
    expected, expected_scale = quantise(x)
    assert (numbers - expected).abs().max() <= 1  # ties of a quotient that was rounded
    assert (numbers != expected).float().mean() < 0.02
    torch.testing.assert_close(scale, expected_scale[:, 0])
    x[4, 4] = float("nan")
    assert native.quantise(x)[1][4].isnan()


@needs_kernels
@pytest.mark.parametrize(
    "kinds", [(torch.float32,) * 2, (torch.bfloat16,) * 2, (torch.float32, torch.bfloat16)]
)
@pytest.mark.parametrize(
    ("heads", "groups", "channels", "keys"),
    [(4, 4, 64, 1), (4, 2, 80, 37), (6, 1, 16, 300), (2, 2, 128, 777)],
)
def test_attention_of_one_query(kinds, heads, groups, channels, keys):  # fmt: skip
    low, lower = kinds
    q = random(3, heads + 2, 1, channels).to(low)[:, :heads]
    room = random(2, 3, groups, keys + 5, channels, seed=1).to(lower)
    k, v = room[:, :, :, :keys]
    bias = random(1, heads, 1, keys, seed=2)
    with torch.inference_mode():
        assert native.attends(q, k, v)
        for added in (None, bias):
            found = native.attend(q, k, v, added, 0.2)
            exact = F.scaled_dot_product_attention(
                q.double(), k.double(), v.double(),
                None if added is None else added.double(), scale=0.2, enable_gqa=True,
            )  # fmt: skip
            assert found.dtype == low and found.shape == exact.shape
            error = (found.double() - exact).abs().max() / exact.abs().max()
            assert error < (2e-6 if low == torch.float32 else 4e-3)


@needs_kernels
def test_attention_to_slots_reads_each_ones_own():
    q, slots = random(3, 4, 1, 32), random(2, 2, 900, 32, seed=1)
    starts, lengths = [500, 0, 120], [400, 90, 300]
    with torch.inference_mode():
        k, v = slots[:, None]
        found = native.attend(q, k, v, None, 0.3, native.Places(starts, lengths))
        for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            own = slots[:, None, :, start : start + length]
            alone = native.attend(q[row, None], *own, None, 0.3)
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
        q, k, v = q[..., :20], k[..., :20], v[..., :20]
    if change == "dtype":
        q, k, v = q.double(), k.double(), v.double()
    if change == "strides":
        v = random(1, 9, 2, 32).transpose(1, 2)
    with torch.set_grad_enabled(change == "grad"):
        assert not native.attends(q, k, v)


def test_tensors_lie_one_behind_the_other_and_go_with_their_last():
    made = [memory.closely(random(3, 5, seed=i)) for i in range(3)]
    assert all(torch.equal(one, random(3, 5, seed=i)) for i, one in enumerate(made))
    first, second, third = (one.data_ptr() for one in made)
    assert second - first in (64, second - first if second < first else 64)
    assert third % 64 == second % 64 == first % 64 == 0
    large = memory.closely(torch.ones(memory.BLOCK // 4 + 1))  # more than a block
    assert large.data_ptr() % memory.PAGE == 0 and large.sum() == len(large)
    kept = large[5:]
    del large
    gc.collect()
    assert kept.sum() == len(kept)


def test_free_memory_is_known_or_none():
    found = memory.free()
    assert found == 0 or found > 1 << 20
