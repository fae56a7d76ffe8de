"""DALL-E's dVAE: against OpenAI's own code and transformers' FlavaImageCodebook."""

from __future__ import annotations

import pickle

import pytest
import torch

import zoo
from zoo.errors import ConfigError, WeightsError
from zoo.models.base import build_empty
from zoo.registry import resolve
from zoo.weights.files import open_weights
from zoo.weights.formats import find_format
from zoo.weights.load import load_into

SIZES = {"n_hid": 64, "n_blk_per_group": 1, "vocab_size": 512}


def spread(module, seed=0):
    """Biases too, which start at 0."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / max(1, parameter[0].numel()) ** 0.5)
    return module.eval()


@pytest.fixture(scope="module")
def openai():
    return pytest.importorskip("dall_e")


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(3))


def loaded(name, config, state):
    chosen = find_format(name, "visual-codes")
    model = build_empty(config)
    mapped = chosen.weight_map(config).load(state)
    mapped.check()
    load_into(model, mapped)
    back = chosen.weight_map(config).export(model.state_dict())
    assert back.keys() == state.keys() and all(torch.equal(back[n], state[n]) for n in state)
    written = chosen.write_config(config)
    assert resolve("model", {"kind": "visual-codes", **chosen.read_config(written)}) == config
    return model.eval()


@torch.no_grad()
def test_both_halves_are_openais(openai, pixels):
    encoder, decoder = spread(openai.Encoder(**SIZES)), spread(openai.Decoder(n_init=16, **SIZES))
    state = {f"encoder.{n}": t for n, t in encoder.state_dict().items()}
    state |= {f"decoder.{n}": t for n, t in decoder.state_dict().items()}
    chosen = find_format("dalle-dvae", "visual-codes")
    content = {**SIZES, "n_init": 16, "output_channels": 3}
    config = resolve("model", {"kind": "visual-codes", **chosen.read_config(content)})
    ours = loaded("dalle-dvae", config, state)

    ids = encoder(openai.map_pixels(pixels)).argmax(1)
    assert torch.equal(ours.encode(pixels).ids, ids) and ids.unique().numel() > 1
    one_hot = torch.nn.functional.one_hot(ids, 512).permute(0, 3, 1, 2).float()
    wanted = openai.unmap_pixels(decoder(one_hot)[:, :3].sigmoid())
    assert (ours.decode(ids) - wanted).abs().max() <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("blocks", [1, 2])
def test_the_encoder_is_flavas(pixels, blocks, tmp_path):
    transformers = pytest.importorskip("transformers")
    settings = {"hidden_size": 16, "num_blocks_per_group": blocks, "vocab_size": 512}
    theirs = transformers.FlavaImageCodebook(transformers.FlavaImageCodebookConfig(**settings))
    spread(theirs).save_pretrained(tmp_path)
    ours = zoo.load(f"dir:{tmp_path}")
    seen = pixels * 0.8 + 0.1
    logits = theirs(seen)
    found = ours.quantizer.logits(ours.encoder(seen)).permute(0, 3, 1, 2)
    assert (found - logits).abs().max() <= 1e-5 * logits.abs().max()
    assert torch.equal(ours.encode(pixels).ids, theirs.get_codebook_indices(seen))
    with pytest.raises(ConfigError, match="an encoder alone"):
        ours.decode(ours.encode(pixels).ids)
    assert loaded("transformers-flava-codebook", ours.config, theirs.state_dict()).decoder is None


def test_the_shapes_are_the_published_ones():
    encoder = zoo.create("flava-image-codebook", device="meta")
    assert sum(p.numel() for p in encoder.parameters()) == 53_786_240  # 215 MB in fp32
    whole = zoo.create("dalle-dvae", device="meta")
    assert round(sum(p.numel() for p in whole.parameters()) / 1e6, 1) == 97.6  # 53.8 + 43.8
    assert whole.grid((256, 256)) == (32, 32) and whole.codebook_size == 8192


def test_a_pickled_module_is_refused_with_the_way_out(openai, tmp_path):
    torch.save(openai.Encoder(**SIZES), tmp_path / "encoder.pkl")
    with pytest.raises(WeightsError, match="flava-image-codebook"):
        open_weights(tmp_path / "encoder.pkl", allow_pickle=True)
    with open(tmp_path / "other.pkl", "wb") as file:
        pickle.dump(Exception("no tensors"), file)
    with pytest.raises(WeightsError) as error:
        open_weights(tmp_path / "other.pkl", allow_pickle=True)
    assert "flava" not in str(error.value)
