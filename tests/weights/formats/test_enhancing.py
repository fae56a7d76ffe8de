"""The public ViT-VQGAN against its equations, written out here (its code is in no package): a
convolution over patches, two pre-norm transformers with tanh within, codes by their cosine, a
transposed convolution back."""

# b pictures, n patches, h heads, c channels of a head

import json

import pytest
import torch
from torch.nn import functional as F

import zoo
from tests.weights.formats.parity import distance
from zoo.errors import ConfigError
from zoo.models.base import build_empty
from zoo.registry import resolve
from zoo.weights.formats import find_format
from zoo.weights.load import load_into

HALF = {"dim": 32, "depth": 2, "heads": 2, "mlp_dim": 48}
FIRST = {
    "image_key": "image",
    "hparams": {"image_size": 32, "patch_size": 8, **HALF, "dim_head": 16},
    "qparams": {"embed_dim": 8, "n_embed": 64},
}
LATER = {
    "image_size": 32,
    "patch_size": [4, 8],
    "encoder": HALF,  # 2 heads of 64 channels in a stack of 32
    "decoder": {"dim": 48, "depth": 3, "heads": 3, "mlp_dim": 40, "dim_head": 8},
    "quantizer": {"embed_dim": 48, "n_embed": 64},
}
FORMAT = find_format("enhancing-vitvqgan", "visual-codes")


def halves(keys):
    if "hparams" in keys:
        return keys["hparams"], keys["hparams"], keys["qparams"], keys["hparams"]
    return keys["encoder"], keys["decoder"], keys["quantizer"], keys


def state_of(keys, seed=0):
    """Returns random tensors under their names."""
    encoder, decoder, table, outer = halves(keys)
    patch = outer["patch_size"]
    patch = [patch, patch] if isinstance(patch, int) else patch
    places = (32 // patch[0]) * (32 // patch[1])
    shapes = {
        "encoder.to_patch_embedding.0.weight": (encoder["dim"], 3, *patch),
        "encoder.to_patch_embedding.0.bias": (encoder["dim"],),
        "decoder.to_pixel.1.weight": (decoder["dim"], 3, *patch),
        "decoder.to_pixel.1.bias": (3,),
        "quantizer.embedding.weight": (table["n_embed"], table["embed_dim"]),
        "pre_quant.weight": (table["embed_dim"], encoder["dim"]),
        "pre_quant.bias": (table["embed_dim"],),
        "post_quant.weight": (decoder["dim"], table["embed_dim"]),
        "post_quant.bias": (decoder["dim"],),
    }
    for name, short, half in (("encoder", "en", encoder), ("decoder", "de", decoder)):
        width, inner = half["dim"], half["heads"] * half.get("dim_head", 64)
        shapes[f"{name}.{short}_pos_embedding"] = (1, places, width)
        layers = {"norm.weight": (width,), "norm.bias": (width,)}
        for i in range(half["depth"]):
            layers |= {
                f"layers.{i}.0.norm.weight": (width,),
                f"layers.{i}.0.norm.bias": (width,),
                f"layers.{i}.0.fn.to_qkv.weight": (3 * inner, width),
                f"layers.{i}.0.fn.to_out.weight": (width, inner),
                f"layers.{i}.0.fn.to_out.bias": (width,),
                f"layers.{i}.1.norm.weight": (width,),
                f"layers.{i}.1.norm.bias": (width,),
                f"layers.{i}.1.fn.net.0.weight": (half["mlp_dim"], width),
                f"layers.{i}.1.fn.net.0.bias": (half["mlp_dim"],),
                f"layers.{i}.1.fn.net.2.weight": (width, half["mlp_dim"]),
                f"layers.{i}.1.fn.net.2.bias": (width,),
            }
        shapes |= {f"{name}.transformer.{key}": shape for key, shape in layers.items()}
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        flat = len(shape) == 1 or "embed" in name.split(".")[-1]
        fan = 32 if "to_pixel" in name else noise[0].numel()
        state[name] = 0.3 * noise if flat else noise * 1.5 / fan**0.5
        if "norm.weight" in name:
            state[name] += 1
    return state


def stack(state, name, half, x):
    heads, norms = half["heads"], {}
    for i in range(half["depth"]):
        own = {
            key.removeprefix(f"{name}.transformer.layers.{i}."): value
            for key, value in state.items()
            if key.startswith(f"{name}.transformer.layers.{i}.")
        }
        y = F.layer_norm(x, x.shape[-1:], own["0.norm.weight"], own["0.norm.bias"])
        q, k, v = (y @ own["0.fn.to_qkv.weight"].T).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (heads, -1)) for t in (q, k, v))
        weights = (torch.einsum("bqhc,bkhc->bhqk", q, k) / q.shape[-1] ** 0.5).softmax(-1)
        mixed = torch.einsum("bhqk,bkhc->bqhc", weights, v).flatten(2)
        x = x + F.linear(mixed, own["0.fn.to_out.weight"], own["0.fn.to_out.bias"])
        y = F.layer_norm(x, x.shape[-1:], own["1.norm.weight"], own["1.norm.bias"])
        y = F.linear(y, own["1.fn.net.0.weight"], own["1.fn.net.0.bias"]).tanh()
        x = x + F.linear(y, own["1.fn.net.2.weight"], own["1.fn.net.2.bias"])
    norms = state[f"{name}.transformer.norm.weight"], state[f"{name}.transformer.norm.bias"]
    return F.layer_norm(x, x.shape[-1:], *norms)


def theirs(keys, state, pixels):
    """Returns (codes b n, pixels b c h w)."""
    encoder, decoder, _, _ = halves(keys)
    patches = state["encoder.to_patch_embedding.0.weight"]
    step = patches.shape[2:]
    x = F.conv2d(pixels, patches, state["encoder.to_patch_embedding.0.bias"], stride=step)
    grid = x.shape[2:]
    x = x.flatten(2).transpose(1, 2) + state["encoder.en_pos_embedding"]
    x = stack(state, "encoder", encoder, x)
    z = F.normalize(F.linear(x, state["pre_quant.weight"], state["pre_quant.bias"]), dim=-1)
    table = F.normalize(state["quantizer.embedding.weight"], dim=-1)
    codes = torch.cdist(z, table[None].expand(len(z), -1, -1)).argmin(-1)
    y = F.linear(table[codes], state["post_quant.weight"], state["post_quant.bias"])
    y = stack(state, "decoder", decoder, y + state["decoder.de_pos_embedding"])
    y = y.transpose(1, 2).unflatten(2, grid)
    kernel, bias = state["decoder.to_pixel.1.weight"], state["decoder.to_pixel.1.bias"]
    return codes, F.conv_transpose2d(y, kernel, bias, stride=step)


@pytest.mark.parametrize("keys", [FIRST, LATER], ids=["first version", "later version"])
@torch.no_grad()
def test_codes_and_pixels(keys):
    state = state_of(keys)
    config = resolve("model", {"kind": "visual-codes", **FORMAT.read_config(keys)})
    model = build_empty(config)
    loaded = {**state, "loss.discriminator.blocks.0.weight": torch.zeros(1)}
    mapped = FORMAT.weight_map(config).load(loaded)
    mapped.check()
    load_into(model.eval(), mapped)
    pixels = 3 * torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    codes, shown = theirs(keys, state, pixels)
    found = model.encode(pixels)
    assert torch.equal(found.ids.flatten(1), codes) and len(codes.unique()) > 8
    assert distance(model(pixels).pixels, shown) <= 1e-5
    back = FORMAT.weight_map(config).export(model.state_dict())
    assert back.keys() == state.keys() and all(torch.equal(back[k], state[k]) for k in state)
    written = json.loads(json.dumps(FORMAT.write_config(config)))
    assert resolve("model", {"kind": "visual-codes", **FORMAT.read_config(written)}) == config


SIZES = {"small": (8, 8, 512, 2048), "base": (12, 12, 768, 3072)}


@pytest.mark.parametrize("size", SIZES)
def test_nodes_are_the_released_configs(size):
    depth, heads, width, hidden = SIZES[size]
    half = {"dim": width, "depth": depth, "heads": heads, "mlp_dim": hidden}
    table = {"embed_dim": 32, "n_embed": 8192}
    keys = {"hparams": {"image_size": 256, "patch_size": 8, **half}, "qparams": table}
    read = resolve("model", {"kind": "visual-codes", **FORMAT.read_config(keys)})
    assert FORMAT.write_config(zoo.config(f"vit-vqgan-{size}")) == FORMAT.write_config(read)


def test_what_is_another_model_is_refused():
    for change, message in (
        ({"quantizer": {**LATER["quantizer"], "use_residual": True}}, "use_residual"),
        ({"decoder": {**HALF, "conv_out": True}}, "'conv_out' is not known"),
        ({"encoder": {"dim": 32}}, "'depth' is missing"),
    ):
        with pytest.raises(ConfigError, match=message):
            FORMAT.read_config({**LATER, **change})


def test_an_export_refuses_what_it_has_no_word_for():
    node = {"kind": "visual-codes", **FORMAT.read_config(LATER)}
    biased = {**node["decoder"], "pixel_bias": True}
    for change, message in (
        ({"decoder": biased}, "pixel_bias"),
        ({"span": [-1.0, 1.0]}, "span"),
        ({"quantizer": {"kind": "fsq"}}, "a vq quantizer"),
    ):
        with pytest.raises(ConfigError, match=message):
            FORMAT.write_config(resolve("model", {**node, **change}))
