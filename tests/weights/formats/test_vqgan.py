"""VQ-GAN in its public layouts: codes identical, pixels within 1e-5, exports bit for bit."""

from __future__ import annotations

import sys
import types

import pytest
import torch

import zoo
from zoo.errors import ConfigError, WeightsError
from zoo.models.base import build_empty
from zoo.registry import resolve
from zoo.weights.files import open_weights
from zoo.weights.formats import find_format
from zoo.weights.load import load_into


def spread(module, seed=0):
    """Gives every parameter a random value, so that nothing is hidden by a zero or a one."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            fan = max(1, parameter[0].numel()) if parameter.ndim > 1 else 25
            parameter.copy_(torch.randn_like(parameter) / fan**0.5)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
            if "embed" in name:
                parameter.normal_()
    return module.eval()


def loaded(format_name, content, state):
    """Returns our model of a public config and public tensors."""
    chosen = find_format(format_name, "visual-codes")
    config = resolve("model", {"kind": "visual-codes", **chosen.read_config(content, state)})
    model = build_empty(config)
    mapped = chosen.weight_map(config).load(state)
    mapped.check()
    load_into(model, mapped)
    back = chosen.weight_map(config).export(model.state_dict())
    kept = {name: tensor for name, tensor in state.items() if name in back}
    assert len(kept) == len(back) and all(torch.equal(kept[n], back[n]) for n in back)
    written = chosen.write_config(config)
    assert resolve("model", {"kind": "visual-codes", **chosen.read_config(written)}) == config
    return model.eval(), set(state) - set(back)


def signed(pixels):
    return 2 * pixels - 1


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(3))


def close(ours, theirs):
    theirs = (theirs + 1) / 2
    assert theirs.std() > 0.01  # not a grey picture
    assert (ours - theirs.clamp(0, 1)).abs().max() <= 1e-5


# -- diffusers -------------------------------------------------------------------------------------

SMALL = {
    "block_out_channels": (32, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "latent_channels": 16,
    "num_vq_embeddings": 64,
    "vq_embed_dim": 8,
    "sample_size": 32,
    "lookup_from_codebook": True,
}


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers.models.autoencoders.vq_model")


@pytest.mark.parametrize("attention", [False, True])
def test_diffusers(diffusers, pixels, attention, tmp_path):
    theirs = spread(diffusers.VQModel(**SMALL, mid_block_add_attention=attention))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = zoo.load(f"dir:{tmp_path / 'theirs'}")
    with torch.no_grad():
        latents = theirs.encode(signed(pixels)).latents
        ids = theirs.quantize(latents)[2][2].view(2, 16, 24)
        assert torch.equal(ours.encode(pixels).ids, ids)
        shape = (2, 16, 24, 8)
        close(ours.decode(ids), theirs.decode(ids, force_not_quantize=True, shape=shape).sample)
    zoo.save(ours, tmp_path / "back", format="diffusers-vq")
    again = diffusers.VQModel.from_pretrained(tmp_path / "back")
    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in theirs.state_dict().items())


def test_what_diffusers_cannot_say_is_refused(tmp_path):
    model = zoo.create("vqgan-imagenet-f16-16384", "encoder.blocks=1", device="meta")
    with pytest.raises(ConfigError, match=r"cannot say decoder\.blocks = 3; it means 2"):
        zoo.save(model, tmp_path, format="diffusers-vq")
    model = zoo.create("fsq-digits", device="meta")
    with pytest.raises(ConfigError, match="holds vqgan encoders and decoders alone"):
        zoo.save(model, tmp_path, format="diffusers-vq")
    content = {"_class_name": "VQModel", "norm_type": "spatial"}
    with pytest.raises(ConfigError, match="'norm_type' = 'spatial' is not supported"):
        find_format("diffusers-vq", "visual-codes").read_config(content, ())


# -- Janus and LlamaGen ----------------------------------------------------------------------------

JANUS = {
    "base_channels": 32,
    "channel_multiplier": [1, 2],
    "num_res_blocks": 1,
    "latent_channels": 16,
    "embed_dim": 8,
    "num_embeddings": 64,
    "num_patches": 16,
}


@pytest.fixture(scope="module")
def janus():
    transformers = pytest.importorskip("transformers")
    theirs = spread(transformers.JanusVQVAE(transformers.JanusVQVAEConfig(**JANUS)))
    with torch.no_grad():  # rows of length 1: there transformers' look-up and the original's agree
        table = theirs.quantize.embedding.weight
        table.copy_(torch.nn.functional.normalize(table, dim=-1))
    return theirs


def test_janus(janus, tmp_path):
    pixels = torch.rand(2, 3, 32, 32)
    janus.save_pretrained(tmp_path)
    ours = zoo.load(f"dir:{tmp_path}")
    with torch.no_grad():
        ids = janus.encode(signed(pixels)).image_tokens.view(2, 16, 16)
        assert torch.equal(ours.encode(pixels).ids, ids)
        close(ours.decode(ids), janus.decode(ids.flatten(1)))
    loaded("transformers-janus-vq", janus.config.to_dict(), janus.state_dict())


def test_llamagen_is_janus_under_other_names(janus):
    state = {llamagen(name): tensor for name, tensor in janus.state_dict().items()}
    state["quantize.codebook_used"] = torch.zeros(10)
    ours, dropped = loaded("llamagen-vq", JANUS, state)
    assert dropped == {"quantize.codebook_used"}
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        ids = janus.encode(signed(pixels)).image_tokens.view(1, 16, 16)
        assert torch.equal(ours.encode(pixels).ids, ids)
        close(ours.decode(ids), janus.decode(ids.flatten(1)))


def llamagen(name):
    """Returns LlamaGen's name of a Janus tensor."""
    for half, level in (("encoder", "down"), ("decoder", "up")):
        if name.startswith(f"{half}.{level}."):
            return name.replace(f".{level}.", ".conv_blocks.").replace(".block.", ".res.")
    for ours, theirs in (("block_1", "0"), ("attn_1", "1"), ("block_2", "2")):
        name = name.replace(f".mid.{ours}.", f".mid.{theirs}.")
    return name


# -- taming ----------------------------------------------------------------------------------------

DDCONFIG = {
    "double_z": False,
    "z_channels": 16,
    "resolution": 32,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [16],
    "dropout": 0.0,
}


@pytest.fixture(scope="module")
def taming():
    """taming-transformers' own classes; it was written for a pytorch_lightning of 2020."""
    pytest.importorskip("taming")
    before = dict(sys.modules)
    lightning = types.ModuleType("pytorch_lightning")
    lightning.LightningModule = torch.nn.Module
    main = types.ModuleType("taming.main")
    main.instantiate_from_config = lambda config: torch.nn.Identity()
    sys.modules |= {"pytorch_lightning": lightning, "taming.main": main}
    from taming.models import vqgan

    yield vqgan
    for name in set(sys.modules) - set(before):
        if name.split(".")[0] in ("taming", "pytorch_lightning"):
            del sys.modules[name]


@pytest.mark.parametrize("gumbel", [False, True])
def test_taming(taming, pixels, gumbel, capsys):
    width = 16 if gumbel else 8  # a GumbelVQ reads as many channels as its codes have
    options = {"ddconfig": DDCONFIG, "lossconfig": {}, "n_embed": 64, "embed_dim": width}
    if gumbel:
        theirs = taming.GumbelVQ(**options, temperature_scheduler_config={}, kl_weight=1e-8)
    else:
        theirs = taming.VQModel(**options)
    theirs = spread(theirs)
    state = {**theirs.state_dict(), "loss.discriminator.main.0.weight": torch.zeros(1)}
    ours, dropped = loaded("taming-gumbel" if gumbel else "taming-vqgan", options, state)
    assert dropped == {"loss.discriminator.main.0.weight"}
    assert ours.config.encoder.attention == [1] and ours.config.quantizer.codes == 64
    with torch.no_grad():
        if gumbel:
            latents = theirs.quant_conv(theirs.encoder(signed(pixels)))
            ids = theirs.quantize.proj(latents).argmax(1)
        else:
            ids = theirs.encode(signed(pixels))[2][2].view(2, 8, 12)
        assert torch.equal(ours.encode(pixels).ids, ids)
        codes = theirs.quantize.get_codebook_entry(ids.flatten(), (2, 8, 12, width))
        close(ours.decode(ids), theirs.decode(codes))


def test_a_checkpoint_of_tamings_loads_by_a_node(taming, tmp_path, capsys):
    """As `vqgan-imagenet-f16-…` does, with the file in the form that taming writes."""
    options = {"ddconfig": DDCONFIG, "lossconfig": {}, "n_embed": 64, "embed_dim": 8}
    theirs = spread(taming.VQModel(**options))
    torch.save({"state_dict": theirs.state_dict(), "epoch": 3}, tmp_path / "last.ckpt")
    chosen = find_format("taming-vqgan", "visual-codes")
    config = resolve("model", {"kind": "visual-codes", **chosen.read_config(options)})
    with pytest.raises(WeightsError, match="is a pickle"):
        open_weights(tmp_path / "last.ckpt")
    file = open_weights(tmp_path / "last.ckpt", allow_pickle=True)
    mapped = chosen.weight_map(config).load(file)
    mapped.check()
