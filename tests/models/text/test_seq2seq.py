"""Encoder-decoders: the 2017 nodes, decoding, swapped parts."""

# b batch, m source tokens, n target tokens, d width

import math

import pytest
import torch

import zoo
from zoo.models.text.steps import Seq2SeqSteps
from zoo.nn.cache import DynamicCache

STACK = {"depth": 2, "width": 32, "attention": {"heads": 4}, "feedforward": {"hidden": 48}}
TINY = {
    "vocabulary": 53,
    "encoder": STACK,
    "decoder": {**STACK, "cross_attention": {"heads": 4}},
}


def tiny(name, *overrides):
    return zoo.create(name, TINY, *overrides, seed=0)


def texts(m=9, n=7):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(5, 53, (2, size), generator=generator) for size in (m, n)]


# -- the Transformer of 2017 -----------------------------------------------------------------------

# d f: 4 d^2 + 4 d of attention, 2 d f + f + d of the feed-forward, 2 d of every norm
SIZES = {"transformer-base": (512, 2048), "transformer-big": (1024, 4096)}


def count(d, f, final_norms):
    attention, dense, norm = 4 * d * d + 4 * d, 2 * d * f + f + d, 2 * d
    layers = 6 * (attention + dense + 2 * norm) + 6 * (2 * attention + dense + 3 * norm)
    return 37000 * d + layers + final_norms * norm


@pytest.mark.parametrize("name", [*SIZES, "transformer-base-preln"])
def test_parameters(name):
    """Table 3 of the paper: 65 and 213 million, of which it counts the vocabulary roughly."""
    d, f = SIZES.get(name, SIZES["transformer-base"])
    model = zoo.create(name, device="meta")
    found = sum(parameter.numel() for parameter in model.parameters())
    assert found == count(d, f, 2 if name.endswith("preln") else 0)
    assert abs(found / {512: 65e6, 1024: 213e6}[d] - 1) < 0.04


def attend(x, y, part, mask=None):
    """Attention written as in section 3.2."""
    h = part.heads
    if hasattr(part, "qkv"):
        q, k, v = part.qkv(x).chunk(3, -1)
    else:
        q, (k, v) = part.q(x), part.kv(y).chunk(2, -1)
    q, k, v = (t.unflatten(-1, (h, -1)).transpose(1, 2) for t in (q, k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    return part.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def encoded(tokens, model):
    """Embeddings times sqrt(d), and the sines and cosines of section 3.5, in turns."""
    d = model.config.encoder.width
    position = torch.arange(tokens.shape[1])[:, None]
    angle = position / 10000 ** (torch.arange(0, d, 2) / d)
    table = torch.zeros(tokens.shape[1], d)
    table[:, 0::2], table[:, 1::2] = angle.sin(), angle.cos()
    return model.embedding.table.weight[tokens] * math.sqrt(d) + table


@pytest.mark.parametrize("name", ["transformer-base", "transformer-base-preln"])
@torch.no_grad()
def test_the_paper_written_out(name):
    model = tiny(name).eval()
    for parameter in model.parameters():
        parameter.add_(
            torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1
        )
    source, target = texts()
    first = name.endswith("preln")

    def sublayer(x, norm, branch):
        return x + branch(norm(x)) if first else norm(x + branch(x))

    x = encoded(source, model)
    for layer in model.encoder.layers:
        x = sublayer(x, layer.attention_norm, lambda y: attend(y, y, layer.attention))  # noqa: B023
        x = sublayer(x, layer.feedforward_norm, layer.feedforward)
    memory = model.encoder.final_norm(x) if first else x
    y = encoded(target, model)
    past = torch.ones(7, 7, dtype=torch.bool).tril()
    for layer in model.decoder.layers:
        y = sublayer(y, layer.attention_norm, lambda z: attend(z, z, layer.attention, past))  # noqa: B023
        y = sublayer(
            y,
            layer.cross_attention_norm,
            lambda z: attend(z, memory, layer.cross_attention),  # noqa: B023
        )
        y = sublayer(y, layer.feedforward_norm, layer.feedforward)
    y = model.decoder.final_norm(y) if first else y
    expected = y @ model.embedding.table.weight.T
    assert (model(source, target).logits - expected).abs().max() < 1e-4 * expected.abs().max()


# -- decoding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["transformer-base", "t5-small", "umt5-small", "opus-mt-en-de"])
@torch.no_grad()
def test_steps_are_recomputation(name):
    """Also after taking steps back and after choosing among the batch."""
    model = tiny(name).eval()
    source, target = texts(n=12)
    mask = torch.tensor([[0, 0, 0] + [1] * 6, [1] * 9])
    steps = Seq2SeqSteps(model, source, mask)
    full = model(source, target, mask).logits
    found = steps.step(target[:, :5], every=True)
    assert (found - full[:, :5]).abs().max() < 1e-5
    steps.step(target[:, 5:9])
    steps.rewind(4)
    assert (steps.step(target[:, 5:6]) - full[:, 5]).abs().max() < 1e-5
    steps.select(torch.tensor([1, 1, 0]))
    chosen = full[torch.tensor([1, 1, 0]), 6]
    assert (steps.step(target[[1, 1, 0], 6:7]) - chosen).abs().max() < 1e-5


@torch.no_grad()
def test_the_memory_is_read_once():
    model = tiny("transformer-base").eval()
    source, target = texts()
    calls = []
    for layer in model.decoder.layers:
        layer.cross_attention.kv.register_forward_hook(lambda *_: calls.append(1))
    cache, memory = DynamicCache(), model.encode(source)
    for part in target.split(1, 1):
        model.decode(part, memory, cache=cache)
        memory = None
    assert len(calls) == 2


@torch.no_grad()
def test_a_target_of_its_own_vocabulary():
    model = tiny("transformer-base", "shared_embedding=false", "target_vocabulary=61").eval()
    source, target = texts()
    assert model(source, target + 8).logits.shape == (2, 7, 61)
    with pytest.raises(zoo.errors.ConfigError, match="shared_embedding"):
        tiny("transformer-base", "target_vocabulary=61")


# -- swaps -----------------------------------------------------------------------------------------

SWAPS = [
    "position=rope",
    "position=alibi",
    "position=t5",
    "position=shaw",
    "position=transformer-xl",
    "position=none",
    "norm=rms",
    "norm=scale",
    "placement=pre",
    "placement=both",
    "feedforward=swiglu",
    "feedforward=bilinear",
    "attention.kv_heads=1",
    "attention.qk_norm=rms",
    "attention.kernel=plain",
    "layer_scale=0.1",
]


@pytest.mark.parametrize("swap", SWAPS)
@torch.no_grad()
def test_swapped_parts_decode(swap):
    model = tiny("t5-small", f"encoder.{swap}", f"decoder.{swap}").eval()
    source, target = texts()
    steps = Seq2SeqSteps(model, source)
    found = torch.stack([steps.step(part) for part in target.split(1, 1)], 1)
    assert (found - model(source, target).logits).abs().max() < 1e-5
