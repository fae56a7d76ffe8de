"""Operators that are noted, each played for other numbers than it was noted with, against
PyTorch's; and what no tape can hold."""

import ctypes

import pytest
import torch
from torch.nn import functional as F

from zoo.nn import native
from zoo.nn.native import calls
from zoo.nn.native.recording import Keys, Recording, Unknown
from zoo.nn.native.tape import Tape

pytestmark = pytest.mark.skipif(
    native.library() is None, reason="no C compiler was found when zoo was installed"
)


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


W, B, N = random(20, 24), random(20, seed=1), random(24, seed=2)
TABLE = {"weight": W, "bias": B, "norm": N}
WHAT = {
    "add": lambda x, w: x + x * 0.5,
    "add, spread": lambda x, w: x + w["norm"],
    "add, scaled": lambda x, w: torch.add(x, w["norm"], alpha=3),
    "add, in place": lambda x, w: (x * 2).add_(x),
    "multiply": lambda x, w: x * w["norm"],
    "multiply, in place": lambda x, w: (x + x).mul_(x),
    "minus": lambda x, w: -x,
    "turned": lambda x, w: torch.cat([-x[..., 12:], x[..., :12]], -1),
    "heads": lambda x, w: (2 * x).view(2, 3, 4, 6).transpose(1, 2) + x.view(2, 3, 4, 6)[:, :1, :1],
    "one piece": lambda x, w: x.view(2, 3, 4, 6).transpose(1, 2).contiguous() * 2,
    "flat": lambda x, w: x.view(2, 3, 4, 6).transpose(1, 2).flatten(2),
    "parts": lambda x, w: torch.cat([p * (i + 1) for i, p in enumerate(x.chunk(3, -1))], 1),
    "relu": lambda x, w: F.relu(x),
    "relu, in place": lambda x, w: torch.relu_(x * 1),
    "silu": lambda x, w: F.silu(x),
    "silu, in place": lambda x, w: F.silu(x * 1, inplace=True),
    "gelu": lambda x, w: F.gelu(x),
    "gelu_tanh": lambda x, w: F.gelu(x, approximate="tanh"),
    "gelu, in place": lambda x, w: torch.ops.aten.gelu_.default(x * 1, approximate="tanh"),
    "layer norm": lambda x, w: F.layer_norm(x, (24,), w["norm"], w["norm"], 1e-3),
    "layer norm, plain": lambda x, w: F.layer_norm(x, (24,), w["norm"], None, 1e-3),
    "rms norm": lambda x, w: native.rms_norm(x, w["norm"], 1e-3),
    "product": lambda x, w: F.linear(x, w["weight"], w["bias"]),
    "product, plain": lambda x, w: F.linear(x, w["weight"]),
    "to bf16": lambda x, w: x.bfloat16() * 2,
    "to fp32": lambda x, w: x.float() * 2,
    "written": lambda x, w: torch.empty(2, 3, 24, dtype=x.dtype).copy_(x),
}  # fmt: skip


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("dtype", native.FLOATS)
@pytest.mark.parametrize("name", WHAT)
def test_what_is_noted_gives_pytorch_s_numbers(name, dtype, mode):
    what, table = WHAT[name], {key: x.to(dtype) for key, x in TABLE.items()}
    with mode():
        held = random(2, 3, 24, seed=3, dtype=dtype)
        before = held.clone()
        with Recording([held, *table.values()], Keys({}, {}, 0)) as noted:
            y = what(held, table)
        assert torch.equal(held, before)
        tape = Tape(noted, [held], y)
        for seed in (3, 4):
            x = random(2, 3, 24, seed=seed, dtype=dtype)
            found, exact = tape([x], Keys({}, {}, 0), None), what(x.clone(), table)
            assert found.dtype == exact.dtype and found.shape == exact.shape
            bound = 2e-6 if exact.dtype == torch.float32 else 8e-3
            torch.testing.assert_close(found, exact, rtol=bound, atol=bound)


def test_nothing_is_calculated_while_it_is_noted():
    held = random(4, 64)
    panels = native.Panels(random(32, 64, seed=1), None)
    with torch.inference_mode(), Recording([held], Keys({}, {}, 0)) as noted:
        y = panels(held)
        y.data_ptr()
    with torch.inference_mode():
        y.fill_(7.0)
        tape = Tape(noted, [held], y)
        assert (y == 7).all()
        found = tape([held], Keys({}, {}, 0), None)
        assert torch.equal(found, panels(held))
        assert found.data_ptr() != y.data_ptr()  # which the next step writes to


@torch.inference_mode()
@pytest.mark.parametrize(
    ("what", "why"),
    [
        (lambda x, other: x.softmax(-1), "_softmax.* has no equivalent in C"),
        (lambda x, other: x + 1, "A number is added"),
        (lambda x, other: x + other, "may not find there"),
        (lambda x, other: other.copy_(x), "not the next place of a cache"),
        (lambda x, other: x if float(x.sum()) > 0 else -x, "sum.* has no equivalent"),
        (lambda x, other: x * x.double(), "neither fp32 nor bf16"),
        (lambda x, other: x.t() * 2, "do not lie side by side"),
        (lambda x, other: x.view(2, 1, 2, 1, 2, 2, 3) * 2, "A tensor of 7 axes"),
        (lambda x, other: F.linear(x, x.new_zeros(400_000 // 6, 6)), "zero|product"),
    ],
)
def test_what_no_tape_holds_is_refused(what, why):
    held, other = random(8, 6), random(8, 6, seed=1)
    with pytest.raises(Unknown, match=why), Recording([held], Keys({}, {}, 0)):
        what(held, other)
    assert calls.state.recording is None
    assert torch.equal(held, random(8, 6)) and torch.equal(other, random(8, 6, seed=1))


def attended(held, cache, kept, bias, start, scale=0.3):
    """What attention does with a cache, and with a memory."""
    q, k, v = held
    for buffer, new in zip(cache[0], (k, v), strict=True):
        buffer.narrow(2, start, 1).copy_(new)
    keys, values = (buffer.narrow(2, 0, start + 1) for buffer in cache[0])
    return native.attend(q, keys, values, bias, scale) + native.attend(q, *kept[0], None, scale)


def pairs(seed, s, groups=2, b=3, c=20):
    return {0: tuple(random(b, groups, s, c, seed=seed + i) for i in range(2))}


@torch.inference_mode()
def test_keys_are_found_where_they_are_at_each_step_and_in_each_cache():
    def given(seed):
        return [random(3, h, 1, 20, seed=seed + h) for h in (4, 2, 2)]

    held, first, memory = given(1), pairs(10, 30), pairs(20, 9)
    bias = random(1, 4, 1, 8, seed=5)
    with Recording(held, Keys(first, memory, 7), bias) as noted:
        y = attended(held, first, memory, bias, 7)
    tape = Tape(noted, held, y)
    for seed, (cache, kept, start) in enumerate(
        [
            (first, memory, 7),
            (first, memory, 8),
            (pairs(30, 64), memory, 40),
            (first, pairs(50, 15), 29),
        ]
    ):
        ours, theirs = ({0: tuple(x.clone() for x in cache[0])} for _ in range(2))
        bias, inputs = random(1, 4, 1, start + 1, seed=seed), given(seed)
        keys = Keys(ours, kept, start)
        assert tape.takes(keys)
        found = tape(inputs, keys, bias)
        exact = attended(inputs, theirs, kept, bias, start)
        torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-6)
        assert all(torch.equal(a, b) for a, b in zip(ours[0], theirs[0], strict=True))
    strange = [
        pairs(1, 64, b=2),
        pairs(1, 64, groups=1),
        pairs(1, 64, c=16),
        {0: tuple(x.bfloat16() for x in pairs(1, 64)[0])},
        {0: tuple(x.transpose(2, 3).contiguous().transpose(2, 3) for x in pairs(1, 64)[0])},
        {1: pairs(1, 64)[0]},
    ]
    assert not any(tape.takes(Keys(other, memory, 7)) for other in strange)


@torch.inference_mode()
@pytest.mark.parametrize("change", ["not the next", "a part is read", "two are written"])
def test_a_cache_is_used_as_caches_are(change):
    q, new, cache = random(1, 2, 1, 16), random(1, 2, 1, 16), pairs(1, 30, b=1, c=16)
    why = r"next place of a cache|may not find there|a larger one"
    with pytest.raises(Unknown, match=why), Recording([q, new], Keys(cache, {}, 7)):
        k, v = cache[0]
        if change == "not the next":
            k.narrow(2, 8, 1).copy_(new)
        if change == "a part is read":
            native.attend(q, k.narrow(2, 2, 6), v.narrow(2, 2, 6), None, 1.0)
        if change == "two are written":
            k.narrow(2, 7, 2).copy_(new)


def test_structures_are_those_of_c():
    found = (ctypes.c_int64 * 6).in_dll(native.library(), "sizes")
    kinds = (calls.Product, calls.Attention, calls.Norm, calls.Map, calls.Store, calls.Many)
    assert [ctypes.sizeof(kind) for kind in kinds] == list(found)
    assert set(calls.CALLS.values()) == set(kinds)


def test_memory_that_is_short_is_said(monkeypatch):
    held, panels = random(1, 64), native.Panels(random(32, 64, seed=1), None)
    with torch.no_grad(), Recording([held], Keys({}, {}, 0)) as noted:
        y = panels(held)
    tape = Tape(noted, [held], y)
    fails = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda given: 1)
    tape.entries[0].call = ctypes.cast(fails, ctypes.c_void_p).value
    with pytest.raises(MemoryError, match="a step's products"):
        tape([held], Keys({}, {}, 0), None)
