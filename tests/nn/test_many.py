"""Attention of many queries in C against the formula in double precision."""

import math
from itertools import product

import pytest
import torch

from zoo.nn import native
from zoo.nn.kernel import attention_weights
from zoo.nn.mask import Mask
from zoo.nn.matmul import has_tiles
from zoo.nn.native import calls
from zoo.registry import build, resolve

pytestmark = pytest.mark.skipif(
    native.library() is None, reason="no C compiler was found when zoo was installed"
)
KINDS = {  # what is given, and with which instructions
    "fp32": (torch.float32, 3),
    "bf16 in tiles": (torch.bfloat16, 3),
    "bf16 as fp32": (torch.bfloat16, 2),
}


@pytest.fixture(params=KINDS)
def kind(request):
    """Returns a type, and leaves out what the processor has beyond some kind of instructions."""
    dtype, instructions = KINDS[request.param]
    native.library().allow(instructions)
    yield dtype
    native.library().allow(3)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def heads(queries, keys, h=4, g=2, c=32, b=2, dtype=torch.float32):
    """As projections leave them: heads beside each other, queries longer than what is read."""
    q = random(b, queries, h + 1, c).to(dtype).transpose(1, 2)[:, :h]
    k, v = random(b, keys, 2 * g, c, seed=1).to(dtype).transpose(1, 2).chunk(2, 1)
    return q, k, v


def exact(q, k, v, mask, bias, scale):
    q, k, v = (x.double() for x in (q, k, v))
    bias = None if bias is None else bias.double()
    weights = attention_weights(q, k, mask, bias, scale)
    return weights @ v.repeat_interleave(q.shape[1] // v.shape[1], 1)


def assert_close(found, wanted):
    allowed = 2e-6 if found.dtype == torch.float32 else 8e-3  # of bf16, weights are rounded too
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= allowed * wanted.abs().max()


@torch.inference_mode()
@pytest.mark.parametrize("queries", [1, 5, 16, 33, 48, 130, 450])
@pytest.mark.parametrize("past", [0, 3, 200])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 1, 7, 100])
def test_is_the_formula(kind, queries, past, causal, window):
    q, k, v = heads(queries, queries + past, dtype=kind)
    mask = Mask(causal=causal, window=window)
    before = None if window is None else window - 1
    found = native.attend_many(q, k, v, 0.3, before=before, after=0 if causal else before)
    assert_close(found, exact(q, k, v, mask, None, 0.3))


@torch.inference_mode()
@pytest.mark.parametrize("channels", [1, 5, 8, 20, 64, 80, 92, 128, 512])
@pytest.mark.parametrize(("h", "g"), [(3, 3), (4, 1)])
def test_heads_of_any_width_and_groups(kind, channels, h, g):
    q, k, v = heads(70, 90, h, g, channels, dtype=kind)
    mask = Mask(causal=True)
    found = native.attend_many(q, k, v, channels**-0.5, after=0)
    assert_close(found, exact(q, k, v, mask, None, channels**-0.5))


@torch.inference_mode()
@pytest.mark.parametrize("shape", list(product([1, 2], [1, 4], [1, 60], [90])), ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_a_bias_is_added(kind, shape, turned):
    q, k, v = heads(60, 90, dtype=kind)
    bias = random(*shape, seed=2)
    if turned:
        bias = bias.transpose(2, 3).contiguous().transpose(2, 3)
    found = native.attend_many(q, k, v, 0.3, bias)
    assert_close(found, exact(q, k, v, Mask(), bias, 0.3))


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("step", [1, 2])
def test_keys_that_are_not_real_are_not_seen(kind, rows, step):
    q, k, v = heads(60, 90, dtype=kind)
    real = (random(rows, 90 * step, seed=2) > 0)[:, ::step]
    real[-1, :20] = False
    real[0, 60:] = False
    found = native.attend_many(q, k, v, 0.3, real=real, after=0)
    wanted = exact(q, k, v, Mask(causal=True, padding=real.expand(2, -1)), None, 0.3)
    assert_close(found, wanted)


@torch.inference_mode()
def test_who_sees_nothing_gets_zeros(kind):
    q, k, v = heads(20, 30, dtype=kind)
    real = torch.ones(2, 30, dtype=torch.bool)
    real[0] = False
    found = native.attend_many(q, k, v, 0.3, real=real)
    assert not found[0].any() and found[1].all()
    more = native.attend_many(
        *heads(30, 20, dtype=kind), 0.3, after=0
    )  # ten stand before the first key
    assert not more[:, :, :10].any() and more[:, :, 10:].all()


@torch.inference_mode()
def test_scores_far_apart_neither_overflow_nor_vanish():
    q, k, v = torch.ones(1, 1, 20, 16), torch.zeros(1, 1, 600, 16), random(1, 1, 600, 16)
    k[0, 0, 10], k[0, 0, 590] = 1e4, 1e4
    found = native.attend_many(q, k, v, 1.0)
    wanted = (v[0, 0, 10] + v[0, 0, 590]) / 2
    torch.testing.assert_close(found[0, 0], wanted.expand(20, -1))
    torch.testing.assert_close(
        native.attend_many(q, -k, v, 1.0), native.attend_many(q, k - k, v, 1.0) * 600 / 598
        - (v[0, 0, 10] + v[0, 0, 590]) / 598, atol=1e-6, rtol=1e-5,
    )  # fmt: skip


@torch.inference_mode()
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_reaches_only_who_sees_it(bad):
    q, k, v = heads(40, 40)
    wanted = native.attend_many(q, k, v, 0.3, after=0)
    k[0, 0, 30, 0] = bad
    found = native.attend_many(q, k, v, 0.3, after=0)
    assert found[0, :2, 30:].isnan().all() if bad != bad else found[0, :2, 30:].isnan().any()
    found[0, :2, 30:] = wanted[0, :2, 30:]
    assert torch.equal(found, wanted)


@torch.inference_mode()
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_give_what_one_gives(kind, threads):
    q, k, v = heads(500, 500, 5, 5, 64, 1, kind)
    wanted = native.attend_many(q, k, v, 0.3, after=0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(native.attend_many(q, k, v, 0.3, after=0), wanted)
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
@pytest.mark.parametrize("channels", [20, 32])
def test_reads_only_what_it_is_given(kind, channels):
    """What lies behind the last numbers of each tensor is no number."""

    def ending(*shape, dtype=kind):
        room = torch.full((math.prod(shape) + 512,), float("nan"), dtype=dtype)
        found = room[:-512].view(shape)
        return found.copy_(random(*shape))

    q, k, v = ending(1, 3, 33, channels), ending(1, 3, 50, channels), ending(1, 3, 50, channels)
    bias = ending(1, 3, 50, 33, dtype=torch.float32).transpose(2, 3)
    found = native.attend_many(q, k, v, 0.3, bias)
    assert_close(found, exact(q, k, v, Mask(), bias, 0.3))


CHANGES = [None, "grad", "few", "wide", "dtype", "strides", "autocast", "bf16", "odd bf16"]


@pytest.mark.parametrize("change", CHANGES)
def test_what_it_does_not_know_is_left_to_pytorch(change):
    q, k, v = heads(20, 30)
    if change == "few":
        q = q[:, :, :3]
    if change == "wide":
        q, k, v = heads(20, 30, 1, 1, native.CHANNELS + 1, 1)
    if change == "dtype":
        k, v = k.bfloat16(), v.bfloat16()
    if change == "strides":
        v = v.transpose(2, 3).contiguous().transpose(2, 3)
    fits = change is None and torch.backends.cpu.get_cpu_capability() == "AVX512"
    if change == "bf16":
        q, k, v = heads(20, 30, dtype=torch.bfloat16)
        fits = has_tiles()
    if change == "odd bf16":
        q, k, v = heads(20, 30, c=40, dtype=torch.bfloat16)
    with (
        torch.set_grad_enabled(change == "grad"),
        torch.autocast("cpu", enabled=change == "autocast"),
    ):
        assert native.attends_many(q, k, v) == fits


def test_memory_that_is_short_is_said(monkeypatch):
    q, k, v = heads(20, 30)
    with torch.no_grad(), pytest.raises(MemoryError, match=r"gives \(2, 20, 4, 32\)"):
        monkeypatch.setattr(calls.library(), "attend_many", lambda given: 1)
        native.attend_many(q, k, v, 0.3)


LEFT = torch.arange(40) >= torch.tensor([[13], [0]])
RULES = {
    "causal": [False, True],
    "window": [None, 6],
    "prefix": [None, torch.tensor([9, 1])],
    "padding": [None, LEFT],
    "segments": [None, torch.arange(40).expand(2, -1) // 9],
    "dense": [None, random(2, 1, 40, 40, seed=3) > 0],
}


@torch.inference_mode()
@pytest.mark.parametrize("values", list(product(*RULES.values())), ids=lambda _: "")
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype", native.FLOATS)
def test_the_kernel_is_plain_under_every_rule(values, biased, dtype):
    mask = Mask(**dict(zip(RULES, values, strict=True)))
    for queries in (40, 15):
        q, k, v = heads(queries, 40, dtype=dtype)
        if mask.dense is not None and queries < 40:
            mask = mask.also(dense=mask.dense[:, :, -queries:])
        bias = random(1, 4, queries, 40, seed=2).to(dtype) if biased else None
        for _ in range(2):  # what was worked out is kept
            if not native.attends_many(q, k, v):
                pytest.skip("this processor's attention is PyTorch's: tests/nn/test_kernel.py")
            found, _ = build(resolve("kernel", "sdpa")).attend(q, k, v, mask, bias, 0.3)
            assert_close(found, exact(q, k, v, mask, bias, 0.3))


@torch.inference_mode()
def test_each_layers_own_bias_is_its_own():
    q, k, v = heads(20, 20)
    mask, kernel = Mask(causal=True), build(resolve("kernel", "sdpa"))
    for seed in (2, 3, 2):
        bias = random(1, 4, 20, 20, seed=seed)
        assert_close(kernel.attend(q, k, v, mask, bias, 0.3)[0], exact(q, k, v, mask, bias, 0.3))
