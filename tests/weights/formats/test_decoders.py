"""Decoder families against transformers: one body of tests, every family and configuration.

Random weights are saved by `save_pretrained`, loaded by `zoo.load("dir:…")`, outputs compared.
"""

# b batch, n tokens, v vocabulary

import json

import pytest
import torch

import zoo
from tests.weights.formats.decoders import FAMILIES, distance, reference, tokens, transformers
from zoo.nn.cache import DynamicCache
from zoo.weights.formats import format_for, formats

CASES = [(family, odd) for family, (_, cases) in FAMILIES.items() for odd in cases]
FIRST = [(family, next(iter(cases))) for family, (_, cases) in FAMILIES.items()]
every_case = pytest.mark.parametrize(("family", "odd"), CASES, ids=[f"{f}, {o}" for f, o in CASES])
every_family = pytest.mark.parametrize(("family", "odd"), FIRST, ids=[f for f, _ in FIRST])

TOLERANCE = 1e-5


@every_case
@torch.no_grad()
def test_logits(family, odd, ours):
    text = tokens()
    expected = reference(family, odd)(text).logits
    assert expected.std() > 0.1, "weights so small that little would show"
    assert distance(ours(family, odd)(text).logits, expected) <= TOLERANCE


PADDINGS = {
    "left": [[0] * 9 + [1] * 14, [1] * 23],
    "right": [[1] * 14 + [0] * 9, [1] * 23],
    "both": [[0] * 4 + [1] * 14 + [0] * 5, [0] * 1 + [1] * 22],
}


@every_case
@pytest.mark.parametrize("side", PADDINGS)
@torch.no_grad()
def test_padding(family, odd, side, ours):
    text, mask = tokens(), torch.tensor(PADDINGS[side])
    found = ours(family, odd)(text, mask).logits
    for row, real in zip(range(2), mask.bool()):
        alone = ours(family, odd)(text[row : row + 1, real]).logits[0]
        assert distance(found[row, real], alone) <= TOLERANCE
    if odd == "dynamic":
        return  # the reference stretches all texts of a batch as the longest one needs it
    keys = {"attention_mask": mask}
    if family not in ("bloom", "mpt"):  # these look at the mask; the others must be told
        keys["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    expected = reference(family, odd)(text, **keys).logits
    assert distance(found[mask.bool()], expected[mask.bool()]) <= TOLERANCE


@every_case
@torch.no_grad()
def test_cache(family, odd, ours):
    """Prefill, then 32 steps, with and without left padding."""
    model, text = ours(family, odd), tokens(length=40)
    for mask in (None, torch.tensor([[0] * 5 + [1] * 35, [1] * 40])):
        cache, parts, past = DynamicCache(), [], 0
        for part in text.split([8] + [1] * 32, 1):
            past += part.shape[1]
            seen = None if mask is None else mask[:, :past]
            parts.append(model(part, seen, cache=cache).logits)
        found = torch.cat(parts, 1)
        assert cache.length == 40
        if odd == "dynamic":  # keys stay turned as they were, so it differs from recomputation
            expected = _stepped(reference(family, odd), text, mask)
            if mask is not None:
                continue  # and the reference takes one length for all texts
        else:
            expected = model(text, mask).logits
        real = torch.ones_like(text).bool() if mask is None else mask.bool()
        assert distance(found[real], expected[real]) <= TOLERANCE


def _stepped(model, text, mask):
    past, parts = transformers.DynamicCache(config=model.config), []
    for part in text.split([8] + [1] * 32, 1):
        parts.append(model(part, past_key_values=past).logits)
    return torch.cat(parts, 1)


@every_case
@torch.no_grad()
def test_bf16(family, odd, folder):
    text = tokens()
    exact = reference(family, odd)(text).logits
    model = zoo.load(f"dir:{folder(family, odd)}", dtype="bf16")
    found = model(text).logits
    assert found.dtype == torch.bfloat16
    relative = float((found.float() - exact).norm() / exact.norm())
    assert relative <= 2e-2


@every_family
@torch.no_grad()
def test_greedy(family, odd, ours):
    """64 tokens with a cache are those that transformers generates."""
    model, text = ours(family, odd), tokens(batch=1, length=9, seed=1)
    expected = reference(family, odd).generate(
        text, max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    cache, found, part = DynamicCache(), text, text
    for _ in range(64):
        part = model(part, cache=cache, last=True).logits[:, -1:].argmax(-1)
        found = torch.cat([found, part], 1)
    assert found.tolist() == expected.tolist()


@every_case
@torch.no_grad()
def test_export(family, odd, ours, folder, tmp_path):
    """What is written for transformers holds the same bits and computes the same."""
    from safetensors.torch import load_file

    saved, model = folder(family, odd), ours(family, odd)
    content = json.loads((saved / "config.json").read_text())
    zoo.save(model, tmp_path, format=format_for(content).name)
    theirs, written = (
        load_file(saved / "model.safetensors"),
        load_file(tmp_path / "model.safetensors"),
    )
    assert theirs.keys() == written.keys()
    assert all(torch.equal(theirs[key], written[key]) for key in theirs)
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    text = tokens()
    assert distance(back(text).logits, reference(family, odd)(text).logits) <= 1e-6
    # and it means the same to us, up to the order of sums: what read before may have laid copies
    again = zoo.load(f"dir:{tmp_path}")
    assert distance(again(text).logits, model(text).logits) <= 1e-6


@every_case
def test_native_folder(family, odd, ours, tmp_path):
    """Our own layout gives the same model again, config and bits."""
    model = ours(family, odd)
    zoo.save(model, tmp_path)
    again = zoo.load(f"dir:{tmp_path}")
    assert again.config == model.config
    state, kept = model.state_dict(), again.state_dict()
    assert state.keys() == kept.keys() and all(torch.equal(state[k], kept[k]) for k in state)


@every_family
def test_an_unknown_key_is_refused_by_name(family, odd, folder):
    content = json.loads((folder(family, odd) / "config.json").read_text())
    chosen = format_for(content)
    with pytest.raises(zoo.errors.ConfigError, match="'attention_sinks'"):
        chosen.read_config({**content, "attention_sinks": 4}, frozenset())
    with pytest.raises(zoo.errors.ConfigError, match="'quantization_config'"):
        chosen.read_config({**content, "quantization_config": {"bits": 4}}, frozenset())
    with pytest.raises(zoo.errors.ConfigError, match="'vocab_size'"):
        chosen.read_config({**content, "vocab_size": "many"}, frozenset())
    del content["vocab_size"]
    with pytest.raises(zoo.errors.ConfigError, match="'vocab_size' is missing"):
        chosen.read_config(content, frozenset())


def test_formats_are_found_by_name():
    assert {
        "transformers-gpt1",
        "transformers-gpt2",
        "transformers-gpt-bigcode",
        "transformers-llama",
        "transformers-bloom",
        "transformers-mpt",
        "transformers-falcon",
        "meta-llama",
    } <= set(formats())
