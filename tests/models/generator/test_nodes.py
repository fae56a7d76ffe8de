"""The papers' shapes: what their tokenizers say of the codes, and how many parameters they have."""

import pytest
import torch

import zoo

PAPERS = {  # name -> codes, grid, billions of parameters without the visual tokenizer
    "dalle-12b": (8192, (32, 32), 12.0),
    "parti-350m": (8192, (32, 32), 0.35),
    "parti-750m": (8192, (32, 32), 0.75),
    "parti-3b": (8192, (32, 32), 3.0),
    "parti-20b": (8192, (32, 32), 20.0),
    "muse-3b": (8192, (16, 16), 3.0),
    "phenaki-1.8b": (8192, (6, 16, 16), 1.8),
}


@pytest.mark.parametrize("name", PAPERS)
def test_shapes_are_the_papers(name):
    codes, grid, billions = PAPERS[name]
    model = zoo.create(name, device="meta")
    assert (model.config.codebook, model.config.shape) == (codes, grid)
    frozen = ("visual.", "reader.")
    own = sum(p.numel() for n, p in model.named_parameters() if not n.startswith(frozen))
    assert own / 1e9 == pytest.approx(billions, rel=0.15)
    assert all(p.device == torch.device("meta") for p in model.parameters())


def test_sparse_layers_come_in_the_papers_order():
    backbone = zoo.config("dalle-12b").backbone
    patterns = [backbone.block(i).attention.pattern for i in range(64)]
    column = {i for i in range(63) if (i + 1 - 2) % 4 == 0}  # section B counts from 1
    assert patterns[-1] == "convolution"
    assert {i for i in range(63) if patterns[i] == "column"} == column
    assert all(p == "row" for i, p in enumerate(patterns[:-1]) if i not in column)
