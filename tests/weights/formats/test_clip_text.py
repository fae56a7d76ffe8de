"""CLIP's text tower: hidden states and projected vectors are transformers', exports open there."""

import pytest
import torch

import zoo
from tests.weights.formats.parity import distance, random_weights, transformers
from zoo.errors import ConfigError
from zoo.weights.files import open_weights
from zoo.weights.formats import find_format

BASE = {
    "vocab_size": 60,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 11,
    "projection_dim": 20,
    "bos_token_id": 58,
    "eos_token_id": 59,
}
ODD = {
    "projected": ("CLIPTextModelWithProjection", {}),
    "plain": ("CLIPTextModel", {"hidden_act": "gelu", "layer_norm_eps": 1e-3}),
    "old end": ("CLIPTextModelWithProjection", {"eos_token_id": 2, "num_attention_heads": 3}),
    "one layer": ("CLIPTextModel", {"num_hidden_layers": 1, "hidden_size": 32}),
}


@pytest.fixture
def texts():
    tokens = torch.randint(3, 58, (3, 11), generator=torch.Generator().manual_seed(0))
    tokens[0, 4:], tokens[1, 10], tokens[2, 7] = 59, 59, 59  # padded with the end; or read on
    return tokens


@pytest.mark.parametrize("odd", ODD)
def test_it_is_transformers_and_goes_back(odd, texts, tmp_path):
    name, keys = ODD[odd]
    kind = getattr(transformers, name)
    theirs = random_weights(kind(transformers.CLIPTextConfig(**{**BASE, **keys})))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = zoo.load(f"dir:{tmp_path / 'theirs'}")
    with torch.no_grad():
        expected = theirs(texts, output_hidden_states=True)
        pooled = expected.text_embeds if "Projection" in name else expected.pooler_output
        for layer in (-1, -2)[: ours.config.backbone.depth]:
            hidden, vector = ours.read(texts, layer)
            assert distance(hidden, expected.hidden_states[layer]) <= 1e-5
            assert distance(vector, pooled) <= 1e-5
        assert distance(ours(texts).hidden, expected.last_hidden_state) <= 1e-5
    zoo.save(ours, tmp_path / "back", format="transformers-clip-text")
    again = kind.from_pretrained(tmp_path / "back").state_dict()
    assert all(torch.equal(tensor, again[key]) for key, tensor in theirs.state_dict().items())
    with torch.no_grad():
        assert torch.equal(kind.from_pretrained(tmp_path / "back")(texts)[0], expected[0])


def test_both_halves_of_clip_come_out_of_one_file(texts, tmp_path):
    config = transformers.CLIPConfig(
        text_config=BASE, vision_config={"hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8},
        projection_dim=20)  # fmt: skip
    theirs = transformers.CLIPModel(config).eval()
    theirs.save_pretrained(tmp_path)
    chosen = find_format("transformers-clip-text", "masked-lm")
    half = zoo.config("clip-text-base-32", vocabulary=60, projection=20, special={"eos": 59},
                      backbone={"depth": 3, "width": 24, "length": 11, "attention": {"heads": 2},
                                "feedforward": {"hidden": 40}})  # fmt: skip
    from zoo.models.base import build_empty
    from zoo.weights.load import load_into

    model = build_empty(half)
    load_into(model, chosen.weight_map(half).load(open_weights(tmp_path)))
    with torch.no_grad():
        found = model.eval().sentence_vectors(texts)
        expected = theirs.get_text_features(input_ids=texts)
        expected = getattr(expected, "pooler_output", expected)
    assert distance(found, expected / expected.norm(dim=-1, keepdim=True)) <= 1e-5


def test_what_the_layout_cannot_say_is_refused():
    chosen = find_format("transformers-clip-text", "masked-lm")
    for override, message in (
        ("backbone.position=rope", "no word for position 'rope'"),
        ("embed_from=mean", "no word for embed_from = 'mean'"),
        ("backbone.causal=false", "no word for backbone.blocks.0.causal"),
        ("backbone.outer_norm=rms", "no word for backbone.blocks.0.outer_norm"),
    ):
        with pytest.raises(ConfigError, match=message):
            chosen.write_config(zoo.config("clip-text-base-32", override))
    with pytest.raises(ConfigError, match=r"embed_from: 'end' needs special\.eos"):
        zoo.config("bert-base-uncased", "embed_from=end")
