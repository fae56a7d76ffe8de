"""Subsampling some tokens at a time is subsampling at once."""

import pytest
import torch

from zoo.registry import build, resolve
from zoo.tokenizers.spectrogram import subsampling


@pytest.mark.parametrize("layout", ["convolution", "separable"])
@pytest.mark.parametrize("factor", [4, 8])
@pytest.mark.parametrize("pad", [True, False])
def test_blocks_are_the_whole(layout, factor, pad, monkeypatch):
    torch.manual_seed(0)
    given = {"layout": layout, "factor": factor, "channels": 8, "pad": pad}
    sound = build(resolve("tokenizer", {"kind": "spectrogram", "subsampling": given}), width=16)
    for parameter in sound.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    features, lengths = torch.randn(3, 333, 80), torch.tensor([333, 200, 5])
    at_once, counts = (x.detach() for x in sound(features, lengths))  # as in training
    seen = []
    whole = type(sound.subsampling)._tokens
    monkeypatch.setattr(
        type(sound.subsampling), "_tokens", lambda self, x, n: seen.append(1) or whole(self, x, n)
    )
    monkeypatch.setattr(subsampling, "BLOCK", 3 * factor * 80 * 8 * 7 // 4)  # 7 tokens of three
    with torch.inference_mode():
        found, same = sound(features, lengths)
    assert len(seen) > 5 and torch.equal(counts, same)
    torch.testing.assert_close(found, at_once, rtol=1e-5, atol=1e-5 * float(at_once.abs().max()))
