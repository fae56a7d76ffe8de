"""Kernels: the formula, and every kernel against the written-out one under every rule."""

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.nn.kernel import Kernel, attention_weights
from zoo.nn.mask import Mask
from zoo.registry import build, resolve

B, H, N, C = 2, 6, 7, 5
LEFT = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7]).bool()
RULES = {
    "causal": [False, True],
    "window": [None, 3],
    "prefix": [None, torch.tensor([3, 1])],
    "padding": [None, LEFT],
    "segments": [None, torch.tensor([[0, 0, 0, 1, 1, 2, 2], [0] * 7])],
}


def kernel(value):
    return build(resolve("kernel", value))


def heads(groups=H, queries=N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(B, H, queries, C), (B, groups, N, C), (B, groups, N, C)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def formula(q, k, v, allowed, bias, scale):
    """softmax over the allowed keys, key head by key head; nothing allowed gives zeros."""
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    share = q.shape[1] // k.shape[1]
    for b, h, i in product(*map(range, q.shape[:3])):
        scores = k[b, h // share] @ q[b, h, i] * scale
        if bias is not None:
            scores = scores + bias.expand(B, H, *bias.shape[2:])[b, h, i]
        seen = allowed.expand(B, 1, *allowed.shape[2:])[b, 0, i]
        if seen.any():
            weights = torch.exp(scores[seen] - scores[seen].max())
            out[b, h, i] = weights / weights.sum() @ v[b, h // share][seen]
    return out


@pytest.mark.parametrize("name", ["plain", "sdpa"])
@pytest.mark.parametrize("groups", [6, 3, 1])
@pytest.mark.parametrize("queries", [7, 1, 3])
@pytest.mark.parametrize("with_bias", [False, True])
def test_is_the_formula(name, groups, queries, with_bias):
    q, k, v = heads(groups, queries)
    mask = Mask(causal=True, padding=LEFT)
    bias = torch.randn(1, H, queries, N, dtype=torch.float64) if with_bias else None
    out, state = kernel(name).attend(q, k, v, mask, bias, 0.3, None)
    allowed = mask.matrix(queries, N, q.device)
    torch.testing.assert_close(out, formula(q, k, v, allowed, bias, 0.3))
    assert state is None


@pytest.mark.parametrize("values", list(product(*RULES.values())), ids=str)
def test_sdpa_is_plain_under_every_rule(values):
    q, k, v = heads(groups=2)
    rules = dict(zip(RULES, values))
    for queries in (N, 1, 3):
        part = q[:, :, -queries:]
        plain, _ = kernel("plain").attend(part, k, v, Mask(**rules), None, 0.4)
        fused, _ = kernel("sdpa").attend(part, k, v, Mask(**rules), None, 0.4)
        torch.testing.assert_close(fused, plain)


@pytest.mark.parametrize("backend", ["math", "auto"])
def test_backends_agree(backend):
    q, k, v = heads()
    expected, _ = kernel("plain").attend(q, k, v, Mask(causal=True), None, 0.4)
    found, _ = kernel({"name": "sdpa", "backend": backend}).attend(
        q, k, v, Mask(causal=True), None, 0.4
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["plain", "sdpa"])
def test_a_query_that_sees_nothing_gets_zeros_and_passes_no_bad_gradient(name):
    q, k, v = (t.float().requires_grad_() for t in heads())
    mask = Mask(causal=True, padding=LEFT)
    out, _ = kernel(name).attend(q, k, v, mask, None, 0.4)
    assert not out[0, :, :2].any()
    out.square().sum().backward()
    assert all(t.grad.isfinite().all() for t in (q, k, v))
    assert not k.grad[0, :, :2].any() and not v.grad[0, :, :2].any()


def test_weights_are_a_distribution_over_what_may_be_seen():
    q, k, _ = heads(groups=2)
    weights = attention_weights(q, k, Mask(causal=True), None, 0.4)
    assert weights.shape == (B, H, N, N)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, H, N, dtype=torch.float64))
    assert not weights.triu(1).any()


def test_softmax_in_float32():
    q, k, v = (t.bfloat16() for t in heads())
    exact = kernel("plain").attend(*(t.double() for t in (q, k, v)), Mask(), None, 0.4)[0]
    high = kernel({"name": "plain", "softmax": "float32"}).attend(q, k, v, Mask(), None, 0.4)[0]
    assert high.dtype == torch.bfloat16
    torch.testing.assert_close(high.double(), exact, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("name", ["plain", "sdpa"])
def test_dropout_keeps_the_mean(name):
    q, k, v = (t.float() for t in heads())
    torch.manual_seed(0)
    attend = kernel(name).attend
    drawn = torch.stack([attend(q, k, v, Mask(), None, 0.4, None, 0.3)[0] for _ in range(600)])
    assert drawn.std(0).min() > 0
    torch.testing.assert_close(
        drawn.mean(0), attend(q, k, v, Mask(), None, 0.4)[0], atol=0.15, rtol=0
    )


def test_asking_for_more_than_a_kernel_can_do_fails_by_name():
    class Narrow(Kernel):
        name = "narrow"
        can = frozenset({"causal"})

    Narrow().needs({"causal"})
    with pytest.raises(ConfigError, match=r"Kernel 'narrow' cannot do: bias, cross;"):
        Narrow().needs({"causal", "cross", "bias"})


def test_the_default_kernel_takes_torchs_fast_path(monkeypatch):
    seen = {}

    def spy(q, k, v, dense, dropout, causal, **keys):
        seen.update(dense=dense, causal=causal)
        return q

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    q, k, v = heads()
    kernel("sdpa").attend(q, k, v, Mask(causal=True), None, 0.4)
    assert seen == {"dense": None, "causal": True}  # no n^2 mask is made
    kernel("sdpa").attend(q[:, :, -1:], k, v, Mask(causal=True), None, 0.4)
    assert seen == {"dense": None, "causal": False}  # the last query sees every key
    kernel("sdpa").attend(q, k, v, Mask(), None, 0.4)
    assert seen == {"dense": None, "causal": False}


@pytest.mark.parametrize("bias", [False, True])
def test_one_bf16_query_is_computed_in_fp32(bias, monkeypatch):
    monkeypatch.setattr("zoo.nn.kernel.has_tiles", lambda: False)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, h, n, 8).bfloat16() for h, n in ((4, 1), (2, 9), (2, 9)))
    extra = torch.randn(2, 4, 1, 9).bfloat16() if bias else None
    mask = Mask(causal=True, padding=torch.arange(9)[None] >= torch.tensor([[0], [3]]))
    out, _ = build(resolve("kernel", "sdpa")).attend(q, k, v, mask, extra, 0.3)
    wide = [None if x is None else x.float() for x in (q, k, v, extra)]
    expected, _ = build(resolve("kernel", "plain")).attend(*wide[:3], mask, wide[3], 0.3)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected.bfloat16(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("heads", [1, 8])  # of the mask
@pytest.mark.parametrize("biased", [False, True])
def test_one_query_of_grouped_heads_is_what_the_fused_kernel_gives(batch, heads, biased):
    torch.manual_seed(0)
    q = torch.randn(batch, 1, 8, 16).transpose(1, 2)
    k, v = torch.randn(batch, 2, 50, 16)[:, :, :33], torch.randn(batch, 2, 50, 16)[:, :, :33]
    allowed = torch.rand(batch, heads, 1, 33) < 0.7
    allowed[..., 0] = True
    bias = torch.randn(1, 8, 1, 33) if biased else None
    for mask in (Mask(causal=True), Mask(dense=allowed)):
        fused = kernel("sdpa")
        with torch.inference_mode():
            found, _ = fused.attend(q, k, v, mask, bias, 0.3)
        wide = [x.repeat_interleave(4, dim=1) for x in (k, v)]  # as many keys as heads: PyTorch's
        expected, _ = fused.attend(q, *wide, mask, bias, 0.3)
        assert found.shape == q.shape and torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("groups", [4, 2])
def test_many_bf16_queries_that_see_everything_go_block_by_block(groups, monkeypatch):
    torch.manual_seed(0)
    shapes = [(2, 4, 300, 8), (2, groups, 290, 8), (2, groups, 290, 8)]
    q, k, v = (torch.randn(shape).bfloat16() for shape in shapes)
    monkeypatch.setattr("zoo.nn.kernel.has_tiles", lambda: False)
    monkeypatch.setattr(F, "scaled_dot_product_attention", None)
    with torch.inference_mode():
        out, _ = kernel("sdpa").attend(q, k, v, Mask(), None, 0.3)
    expected, _ = kernel("plain").attend(q.float(), k.float(), v.float(), Mask(), None, 0.3)
    torch.testing.assert_close(out.float(), expected, rtol=2e-2, atol=4e-3)


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("tiles", [False, True])
def test_keys_that_are_kept_for_bf16_are_what_is_read_fastest(queries, tiles, monkeypatch):
    """In one piece; fp32, where the processor multiplies no bf16 in tiles."""
    monkeypatch.setattr("zoo.nn.kernel.has_tiles", lambda: tiles)
    torch.manual_seed(0)
    q = torch.randn(2, 4, queries, 8).bfloat16()
    k, v = torch.randn(2, 9, 8, 8).bfloat16().transpose(1, 2).chunk(2, dim=1)
    sdpa = kernel("sdpa")
    keys, values = sdpa.keep(k), sdpa.keep(v)
    assert keys.dtype == (torch.bfloat16 if tiles else torch.float32) and keys.is_contiguous()
    out, _ = sdpa.attend(q, keys, values, Mask(), None, 0.3)
    assert out.dtype == torch.bfloat16
    expected, _ = kernel("plain").attend(q.float(), k.float(), v.float(), Mask(), None, 0.3)
    torch.testing.assert_close(out.float(), expected, rtol=1e-2, atol=1e-3)
    weights = attention_weights(q, keys, Mask(), None, 0.3)  # what `record` asks for
    assert weights.dtype == torch.bfloat16
    torch.testing.assert_close(weights, attention_weights(q, k, Mask(), None, 0.3))
    assert kernel("plain").keep(k).dtype == torch.bfloat16  # which takes them as they are
