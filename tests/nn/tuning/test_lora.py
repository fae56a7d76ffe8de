"""LoRA: what is attached adds nothing at first, learns alone, and merges into the same function."""

import pytest
import torch

import zoo
from zoo.errors import ConfigError
from zoo.nn.linear import Linear
from zoo.nn.tuning.lora import LoRALinear

TINY = {
    "backbone.depth": 2,
    "backbone.width": 16,
    "backbone.attention.heads": 2,
    "backbone.feedforward.hidden": 24,
}
TEXT = {**TINY, "vocabulary": 29, "backbone.length": 24}
PAIR = {
    "vocabulary": 29,
    **{f"{side}.depth": 1 for side in ("encoder", "decoder")},
    **{f"{side}.width": 16 for side in ("encoder", "decoder")},
    **{f"{side}.attention.heads": 2 for side in ("encoder", "decoder")},
    **{f"{side}.feedforward.hidden": 24 for side in ("encoder", "decoder")},
    "decoder.cross_attention.heads": 2,
}
TOKENS = torch.arange(12).view(2, 6) % 29
ONE_HOT = torch.nn.functional.one_hot(torch.tensor([[1, 4], [0, 3]]), 6).float()
# a family of each kind and of each way to read a fused matrix: (name, sizes, inputs)
FAMILIES = {
    "gpt2": (TEXT, (TOKENS,)),
    "llama-3.2-1b": ({**TEXT, "backbone.attention.kv_heads": 1}, (TOKENS,)),
    "falcon-7b": (TEXT, (TOKENS,)),
    "bert-base-uncased": (TEXT, (TOKENS,)),
    "xlnet-base-cased": (TEXT, (TOKENS, ONE_HOT)),
    "t5-v1.1-small": (PAIR, (TOKENS, TOKENS)),
    "vit-tiny-16": ({**TINY, "tokenizer.image": [32, 32]}, (torch.rand(2, 3, 32, 32),)),
}


def outputs(name, model):
    _, inputs = FAMILIES[name]
    if name.startswith("xlnet"):
        return model(inputs[0], targets=inputs[1]).logits
    return model(*inputs).logits


@pytest.fixture(params=list(FAMILIES))
def tuned(request):
    name = request.param
    sizes, _ = FAMILIES[name]
    plain = zoo.create(name, sizes, seed=0).eval()
    model = zoo.create(name, sizes, "tuning=lora", "tuning.rank=3", seed=0).eval()
    missing = model.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing and all("lora_" in key for key in missing)
    return name, plain, model


def stir(model):
    torch.manual_seed(1)
    for part in model.modules():
        if isinstance(part, LoRALinear):
            torch.nn.init.normal_(part.lora_b, std=0.1)
    return model


@torch.no_grad()
def test_in_every_family_it_adds_nothing_then_something_then_merges(tuned):
    name, plain, model = tuned
    before = outputs(name, plain)
    assert torch.equal(outputs(name, model), before)  # B is zero
    after = outputs(name, stir(model))
    assert (after - before).abs().max() > 1e-3 * before.abs().max()
    merged = zoo.merge(model)
    assert merged.config == plain.config
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert not any(isinstance(part, LoRALinear) for part in merged.modules())
    scale = after.abs().max()
    assert (outputs(name, merged) - after).abs().max() <= 1e-5 * scale


def test_only_the_additions_get_gradients_where_only_they_learn(tuned):
    name, _, model = tuned
    for key, parameter in stir(model).named_parameters():
        parameter.requires_grad_("lora_" in key)
    outputs(name, model).square().mean().backward()
    added = [(k, p) for k, p in model.named_parameters() if "lora_" in k]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for _, p in added)
    assert all(p.grad is None for k, p in model.named_parameters() if "lora_" not in k)


def test_patterns_choose_the_layers():
    model = zoo.create("gpt2", TEXT, "tuning={name: lora, on: ['*.qkv', '*1.feedforward.up']}")
    found = [name for name, part in model.named_modules() if isinstance(part, LoRALinear)]
    assert found == [
        "backbone.layers.0.attention.qkv",
        "backbone.layers.1.attention.qkv",
        "backbone.layers.1.feedforward.up",
    ]
    with pytest.raises(ConfigError, match=r"no linear layer matches '\*\.query'"):
        zoo.create("gpt2", TEXT, "tuning={name: lora, on: ['*.query']}")


def test_a_merged_weight_keeps_its_dtype():
    config = zoo.config("gpt2", TEXT, "tuning=lora").tuning
    layer = Linear(6, 4).to(torch.bfloat16)
    layer.reset_parameters()
    tuned = LoRALinear(layer, config)
    tuned.reset_tuning()
    assert tuned.lora_a.dtype == torch.bfloat16 and tuned.merged_weight().dtype == torch.bfloat16
    assert torch.equal(tuned.merged_weight(), layer.weight)


@torch.no_grad()
def test_a_public_layout_gets_the_merged_weights(tmp_path):
    from transformers import AutoModelForCausalLM

    model = stir(zoo.create("gpt2", TEXT, "tuning=lora", seed=0)).eval()
    zoo.save(model, tmp_path, format="transformers-gpt2")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()(TOKENS).logits
    ours = model(TOKENS).logits
    assert (theirs - ours).abs().max() <= 1e-5 * ours.abs().max()
    assert model.config.tuning is not None  # the model itself stays as it was
