"""Tiny decoders whose choices are not near-ties, and a way to decode one prompt plainly."""

import pytest
import torch

from zoo.models.base import build_empty, initialise
from zoo.registry import resolve

VOCABULARY = 37
FAMILIES = {
    "gpt": {"position": "learned", "length": 400},
    "llama": {"position": "rope", "norm": "rms", "feedforward": "swiglu"},
    "gqa": {"position": "rope", "attention": {"heads": 4, "kv_heads": 2}},
    "bloom": {"position": "alibi", "embedding_norm": True},
    "window": {"position": "rope", "attention": {"heads": 4, "window": 12}},
    "t5-bias": {"position": "t5"},
    "parallel": {"position": "rope", "parallel": True, "attention": {"heads": 4, "kv_heads": 1}},
}


def make(family, seed=0, depth=2, width=32):
    backbone = {"depth": depth, "width": width, "attention": {"heads": 4}, **FAMILIES[family]}
    config = resolve(
        "model",
        {"kind": "causal-lm", "vocabulary": VOCABULARY, "tied": False, "backbone": backbone},
    )
    model = initialise(build_empty(config), seed).eval()
    with torch.no_grad():  # far from uniform: small differences must not change a choice
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def model(family):
    return make(family)


@pytest.fixture
def gpt():
    return make("gpt")


def plain(model, prompt, count):
    """Greedy decoding by recomputing everything at every step."""
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(prompt) :]
