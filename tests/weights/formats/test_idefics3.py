"""Idefics3 and SmolVLM against transformers: logits, pixels, exports, what is not understood."""

import json
import warnings

import pytest
import torch
from PIL import Image

import zoo
from tests.weights.formats.parity import (
    TOLERANCE,
    distance,
    random_tokens,
    random_weights,
    tensors,
    transformers,
)
from tests.weights.formats.test_llava_transformers import spread
from zoo.errors import ConfigError
from zoo.weights.formats import format_for

MARK = 98
CASES = {"idefics3": {"scale_factor": 2}, "smolvlm": {"scale_factor": 4, "tied": True}}


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    """Returns (random model of transformers, the folder that it was saved to)."""
    keys = dict(CASES[request.param])
    tied = keys.pop("tied", False)
    name = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}[request.param]
    tower = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 7,
    }
    text = transformers.LlamaConfig(
        vocab_size=99, hidden_size=40, intermediate_size=56, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    config = getattr(transformers, f"{name}Config")(
        vision_config=tower, text_config=text, image_token_id=MARK, tie_word_embeddings=tied, **keys
    )
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    random_weights(model, seed=3)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return model, folder


@pytest.mark.parametrize("pictures", [0, 1, 3])
@torch.no_grad()
def test_logits(pair, pictures):
    theirs, folder = pair
    ours, tokens = zoo.load(f"dir:{folder}"), random_tokens(90, 1, 9)
    tokens[0, [2, 4, 5][:pictures]] = MARK
    pixels = torch.randn(pictures, 3, 28, 28) if pictures else None
    found = ours(tokens, pixels).logits
    count = (4 // theirs.config.scale_factor) ** 2
    wanted = theirs(
        input_ids=spread(tokens, [count] * pictures),
        pixel_values=None if pixels is None else pixels[None],
    ).logits
    assert wanted.std() > 0.1
    assert distance(found, wanted) <= TOLERANCE


@torch.no_grad()
def test_export(pair, tmp_path):
    """The same bits under the same names, and transformers computes the same."""
    theirs, folder = pair
    ours = zoo.load(f"dir:{folder}")
    zoo.save(ours, tmp_path, format=f"transformers-{theirs.config.model_type}")
    found, wanted = tensors(tmp_path), tensors(folder)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in found)
    back = type(theirs).from_pretrained(tmp_path).eval()
    tokens = random_tokens(90, 1, 9)
    assert torch.equal(back(input_ids=tokens).logits, theirs(input_ids=tokens).logits)


@pytest.mark.parametrize("size", [(28, 28), (40, 100), (101, 33)])
def test_pixels(pair, size, tmp_path):
    """Squashed to a square by a Lanczos filter, as their processor does without splitting; that it
    scales the longest side to a size first is switched off."""
    processors = pytest.importorskip("transformers.models.idefics3.image_processing_pil_idefics3")
    ours = zoo.load(f"dir:{pair[1]}")
    zoo.save(ours, tmp_path, format="transformers-idefics3")
    theirs = processors.Idefics3ImageProcessorPil.from_pretrained(tmp_path)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, (5, 7, 3), generator=generator, dtype=torch.uint8)
    picture = Image.fromarray(noise.numpy()).resize(size[::-1])
    wanted = theirs([[picture]], return_tensors="pt", do_resize=False)["pixel_values"][0]
    (pixels,), _ = ours.preprocess([picture])
    assert pixels.shape == wanted.shape
    assert (pixels - wanted).abs().max() <= 1e-6


def test_a_folder_that_wants_tiles_is_told(pair, tmp_path):
    content = json.loads((pair[1] / "config.json").read_text())
    chosen = format_for(content)
    with pytest.warns(UserWarning, match="squashed to 28 x 28"):
        pictures = {"do_image_splitting": True, "resample": 1}
        chosen.read_config({**content, "preprocessor_config.json": pictures}, ())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        node = chosen.read_config(content, ())
    assert node["before"] == ["<fake_token_around_image>", "<global-img>"]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("text_config", {"model_type": "opt"}, "language model of type 'opt'"),
        ("vision_config", {"image_size": [28, 30]}, "must be one number"),
        ("architectures", ["TheirModel"], "TheirModel"),
        ("attention_sinks", 4, "attention_sinks"),
    ],
)
def test_what_is_not_understood_is_refused(pair, key, value, words):
    content = json.loads((pair[1] / "config.json").read_text())
    with pytest.raises(ConfigError, match=words):
        format_for(content).read_config({**content, key: value}, ())


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("adapter=linear", "holds a pixel-shuffle of one matrix"),
        ("adapter.bias=true", "holds a pixel-shuffle of one matrix"),
        ("layer=-2", "layer: "),
        ("before=[]", "before: "),
    ],
)
def test_what_the_layout_cannot_say_is_not_written(pair, override, words, tmp_path):
    model = zoo.load(f"dir:{pair[1]}", override, partial=True)
    with pytest.raises(ConfigError, match=words):
        zoo.save(model, tmp_path, format="transformers-idefics3")
