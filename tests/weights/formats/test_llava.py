"""LLaVA as its authors store it, against transformers: the same weights under other names."""

import json

import pytest
import torch
from safetensors.torch import save_file

import zoo
from tests.weights.formats.parity import TOLERANCE, distance, random_tokens, tensors
from tests.weights.formats.test_llava_transformers import (
    MARK,
    TEXT,
    make,
    prompt,
    spread,
)
from zoo.errors import ConfigError
from zoo.registry import resolve
from zoo.weights.formats import format_for
from zoo.weights.formats.llava import FORMAT, towers

TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
SMALL = (
    "vision={tokenizer: {image: [28, 28], patch: [7, 7]}, backbone: {depth: 3, width: 32,"
    " attention: {heads: 4}, feedforward: {hidden: 48}}}"
)


def theirs(state):
    """Names of transformers' own files -> those of LLaVA's authors."""
    found = {}
    for name, tensor in state.items():
        name = name.removeprefix("language_model.")
        name = name.replace("vision_tower.", "model.vision_tower.vision_tower.vision_model.")
        name = name.replace("multi_modal_projector.linear_1.", "model.mm_projector.0.")
        name = name.replace("multi_modal_projector.linear_2.", "model.mm_projector.2.")
        found[name.replace("image_newline", "model.image_newline")] = tensor.clone()
    return found


def config(kind="Llama", **keys):
    return {
        "architectures": [f"Llava{kind}ForCausalLM"],
        "model_type": "llava",
        **TEXT,
        "mm_hidden_size": 1024,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "image_aspect_ratio": "pad",
        "tune_mm_mlp_adapter": False,
        "tokenizer_model_max_length": 2048,
        **keys,
    }


def write(folder, state, content):
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Returns (transformers' model, the folder of the same weights in the authors' layout)."""
    folder = tmp_path_factory.mktemp("llava")
    model = make()
    model.save_pretrained(folder / "hf")
    return model, write(folder, theirs(tensors(folder / "hf")), config())


@pytest.mark.parametrize("pictures", [0, 1, 3])
@torch.no_grad()
def test_logits(pair, pictures):
    reference, folder = pair
    ours = zoo.load(f"dir:{folder}", SMALL)
    tokens, pixels = prompt(pictures), torch.randn(pictures, 3, 28, 28) if pictures else None
    found = ours(tokens.where(tokens != MARK, -200), pixels).logits
    wanted = reference(input_ids=spread(tokens, [16] * pictures), pixel_values=pixels).logits
    assert distance(found, wanted) <= TOLERANCE
    assert ours.vision.tokenizer.config.resize == "pad"


@torch.no_grad()
def test_tiles(tmp_path):
    reference = make(tiles=True, text="mistral")
    reference.save_pretrained(tmp_path / "hf")
    sizes = [[56, 28], [28, 56], [56, 56], [28, 84]]  # width, height
    keys = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": sizes, "sliding_window": None}
    keys["mm_patch_merge_type"] = "spatial_unpad"
    write(tmp_path, theirs(tensors(tmp_path / "hf")), config("Mistral", **keys))
    ours = zoo.load(f"dir:{tmp_path}", SMALL)
    assert ours.config.tiles == [[28, 56], [56, 28], [56, 56], [84, 28]]
    tiles = torch.randn(3, 3, 28, 28)
    tokens = random_tokens(90, 1, 5)
    tokens[0, 2] = MARK
    found = ours(tokens.where(tokens != MARK, -200), tiles, sizes=[(28, 56)]).logits
    (seen,) = ours.see(tiles, [(28, 56)])
    wanted = reference(
        input_ids=spread(tokens, [len(seen)]),
        pixel_values=tiles[None],
        image_sizes=torch.tensor([[28, 56]]),
    ).logits
    assert distance(found, wanted) <= TOLERANCE
    text = ours.config.text.tokenizer
    assert (text.zoo_kind, text.chat) == ("sentencepiece-bpe", "mistral-instruct")


def test_export(pair, tmp_path):
    _, folder = pair
    ours = zoo.load(f"dir:{folder}", SMALL)
    public = FORMAT.write_config(ours.config)
    read = resolve(
        "model", {"kind": "vision-language", **FORMAT.read_config(public, tensors(folder))}
    )
    for key in ("adapter", "text", "layer", "image_token", "tiles"):
        assert getattr(read, key) == getattr(ours.config, key)
    zoo.save(ours, tmp_path, format="llava")
    found, wanted = tensors(tmp_path), tensors(folder)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in found)


def test_towers_have_names():
    assert towers()["openai/clip-vit-large-patch14"] == "clip-vit-large-14.openai"
    node = FORMAT.read_config(config(), frozenset())
    assert node["bases"] == {"vision": "clip-vit-large-14-336.openai_transformers"}
    within = FORMAT.read_config(config(), {"model.vision_tower.vision_tower.vision_model.x"})
    assert "bases" not in within


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"mm_vision_tower": "acme/eyes"}, "no tower of ours"),
        ({"mm_vision_tower": None}, "names no vision tower"),
        ({"mm_projector_type": "cabstractor"}, "cabstractor"),
        ({"mm_use_im_start_end": "yes"}, "mm_use_im_start_end"),
        ({"mm_vision_select_feature": "cls_patch"}, "cls_patch"),
        ({"image_aspect_ratio": "highres"}, "highres"),
        ({"mm_resampler_type": "qformer"}, "qformer"),
        ({"attention_sinks": 3}, "attention_sinks"),
        ({"architectures": ["LlavaOPTForCausalLM"]}, "LlavaOPTForCausalLM"),
    ],
)
def test_what_is_not_understood_is_refused(keys, words):
    with pytest.raises(ConfigError, match=words):
        FORMAT.read_config(config(**keys), frozenset())


def test_one_model_type_two_layouts():
    assert format_for(config()).name == "llava"
    assert format_for({**config(), "architectures": ["LlavaForConditionalGeneration"]}).name == (
        "transformers-llava"
    )
