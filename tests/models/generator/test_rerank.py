"""Pictures ordered by a CLIP: the order is transformers', and draw keeps the best."""

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from tests.models.generator.conftest import make
from tests.weights.formats.parity import clip_words, transformers
from zoo.errors import ConfigError
from zoo.models.base import build_empty
from zoo.models.generator.rerank import Contrastive
from zoo.weights.files import open_weights
from zoo.weights.formats import find_format
from zoo.weights.load import load_into

TEXT = {"vocab_size": 514, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 16, "bos_token_id": 512,
        "eos_token_id": 513}  # fmt: skip
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
          "num_attention_heads": 2, "image_size": 32, "patch_size": 8}  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP of random weights, and both halves of it here."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=20)
    theirs = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(folder)
    tokenizer, _ = clip_words(folder, 16)
    tokenizer.save_pretrained(folder)
    half = zoo.config(
        "clip-text-base-32",
        vocabulary=514,
        projection=20,
        special={"eos": 513},
        tokenizer=None,
        backbone={
            "depth": 2,
            "width": 24,
            "length": 16,
            "attention": {"heads": 2},
            "feedforward": {"hidden": 40},
        },
    )
    texts = build_empty(half)
    chosen = find_format("transformers-clip-text", "masked-lm")
    load_into(texts, chosen.weight_map(half).load(open_weights(folder)))
    texts.eval().read_files(folder)
    return theirs, tokenizer, zoo.load(f"dir:{folder}"), texts


def drawn(count=9):
    generator = np.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(count)
    ]


def test_the_order_is_clip_s_of_transformers(clip):
    theirs, tokenizer, pictures, texts = clip
    shown = drawn()
    for prompt in ("a red dog", "Two CATS, asleep"):
        pixels = pictures.tokenizer.preprocess(shown)
        with torch.no_grad():
            tokens = tokenizer([prompt], return_tensors="pt")
            expected = theirs(pixel_values=pixels, **tokens).logits_per_image[:, 0]
        found = Contrastive(pictures, texts)(shown, prompt)
        torch.testing.assert_close(found * theirs.logit_scale.exp().item(), expected)
        assert found.argsort().tolist() == expected.argsort().tolist()


def test_draw_keeps_what_fits_best(clip):
    _, _, pictures, texts = clip
    model = zoo.load("dalle-digits")
    prompt = "a handwritten red three"
    every = model.draw(prompt, 6, seed=0)
    best = model.draw(prompt, 2, best_of=6, rerank=(pictures, texts), seed=0)
    order = Contrastive(pictures, texts)(every, prompt).argsort(descending=True).tolist()
    assert [np.asarray(p).tobytes() for p in best] == [
        np.asarray(every[index]).tobytes() for index in order[:2]
    ]


def test_models_that_share_no_space_are_refused(clip):
    _, _, pictures, texts = clip
    with pytest.raises(ConfigError, match="projected to one space, such as clip-vit-base-32"):
        Contrastive(zoo.create("vit-digits", device="meta"), texts)
    with pytest.raises(ConfigError, match="projected to one space"):
        Contrastive(pictures, zoo.create("clip-text-base-32", device="meta"))
    with pytest.raises(ConfigError, match="give a function, or two models"):
        make("prefix").draw(best_of=2, rerank="clip-vit-base-32")
