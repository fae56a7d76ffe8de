"""Tiny models that draw, one for each way."""

import pytest
import torch

from zoo.models.base import build_empty, initialise
from zoo.registry import resolve

CODES, GRID, TEXT, WORDS = 16, [4, 4], 6, 20
STACK = {"depth": 3, "width": 32, "position": "learned-axial", "attention": {"heads": 2}}
SPARSE = [
    {"attention": {"pattern": "row"}},
    {"attention": {"pattern": "column"}},
    {"attention": {"pattern": "convolution", "pattern_size": 3}},
]
READ = {"text_length": TEXT, "vocabulary": WORDS}
ENCODER = {
    "name": "transformer",
    "depth": 1,
    "width": 24,
    "length": TEXT,
    "position": "learned",
    "attention": {"heads": 2},
}
CROSS = {"cross_attention": {"name": "multihead", "heads": 2}}
WAYS = {
    "dalle": {**READ, "start": True, "text_head": True,
              "backbone": {**STACK, "causal": True, "layers": SPARSE}},
    "parti": {**READ, "start": True, "encoder": ENCODER,
              "backbone": {**STACK, "causal": True, **CROSS}},
    "muse": {**READ, "encoder": ENCODER, "backbone": {**STACK, **CROSS}},
    "prefix": {**READ, "backbone": STACK},
    "maskgit": {"classes": 5, "tied": True, "head_bias": True, "transform": "gelu",
                "backbone": {**STACK, "placement": "post", "position": "learned",
                             "final_norm": False, "embedding_norm": True}},
    "llamagen": {"classes": 5, "backbone": {
        **STACK, "causal": True, "norm": "rms", "feedforward": "swiglu",
        "position": {"name": "rope-grid", "theta": 10000, "before": "blank"}}},
    "features": {"features": 12, "features_length": 7, "backbone": {**STACK, **CROSS}},
    "features before": {"features": 12, "features_length": 9, "features_activation": "gelu_tanh",
                        "start": True, "backbone": {**STACK, "causal": True}},
    "phenaki": {**READ, "grid": [3, 2, 2], "backbone": STACK},
}  # fmt: skip


def make(way, seed=0, **more):
    config = {"kind": "generator", "codes": CODES, "grid": GRID, **WAYS[way], **more}
    model = initialise(build_empty(resolve("model", config)), seed).eval()
    with torch.no_grad():  # far from uniform: small differences must not change a choice
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model


def asked(model, batch=3, seed=1):
    """What such a model takes, at random; the second text is shorter."""
    torch.manual_seed(seed)
    config = model.config
    if config.text_length:
        lengths = torch.tensor([TEXT, 3, 4])[:batch]
        mask = torch.arange(TEXT) < lengths[:, None]
        return {"text": torch.randint(2, WORDS, (batch, TEXT)), "text_mask": mask}
    if config.features:
        return {"features": torch.randn(batch, 7, 12)}
    return {"labels": torch.randint(0, 5, (batch,))}


def some_codes(model, batch=3, seed=2):
    torch.manual_seed(seed)
    return torch.randint(0, CODES, (batch, *model.config.shape)).flatten(1)


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


@pytest.fixture
def model(way):
    return make(way)
