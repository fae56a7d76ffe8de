"""A vision-language model small enough for every test: two tiny towers, a vocabulary of bytes."""

import pytest

import zoo

TINY = (
    "vision={kind: vit, classes: 0, tokenizer: {image: [16, 16], patch: [4, 4], resize: pad},"
    " backbone: {depth: 2, width: 16, attention: {heads: 2}, position: learned-grid}}",
    "text={name: smollm2-135m, vocabulary: 259, special: {eos: 1},"
    " tokenizer: {name: byte, chat: llava-v1},"
    " backbone: {depth: 2, width: 24, attention: {heads: 3, kv_heads: 1, head_dim: 8},"
    " feedforward: {hidden: 32}}}",
)


@pytest.fixture(scope="session")
def tiny():
    """Returns a function that makes such a model with more overrides."""

    def make(*overrides, **options):
        return zoo.create("llava-1.5-7b", *TINY, *overrides, **{"seed": 0, **options}).eval()

    return make


@pytest.fixture(scope="session")
def model(tiny):
    return tiny("image_token=-200", "text.backbone.init_std=0.2", "vision.backbone.init_std=0.2")
