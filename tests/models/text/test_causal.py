"""Decoder-only models: prefixes, embeddings, heads."""

# b batch, n tokens, d width, v vocabulary

import pytest
import torch
from torch.nn import functional as F

import zoo
from tests.weights.formats.decoders import distance, reference, tokens
from zoo.errors import ConfigError
from zoo.nn.cache import DynamicCache
from zoo.nn.mask import Mask

TINY = {
    "vocabulary": 61,
    "backbone.depth": 2,
    "backbone.width": 32,
    "backbone.attention.heads": 4,
    "backbone.length": 64,
}


def tiny(name="prefix-lm-small", **keys):
    return zoo.create(name, TINY, {"backbone.feedforward.hidden": 48, **keys}, seed=0).eval()


# -- prefixes --------------------------------------------------------------------------------------

PREFIXES = torch.tensor([5, 9])


def seen_by_transformers(length, prefixes):
    """The 4-D mask that makes any causal class of transformers a prefix language model."""
    place = torch.arange(length)
    causal = place[None, :, None] >= place[None, None, :]
    return (causal | (place < prefixes[:, None])[:, None])[:, None]


@pytest.mark.parametrize(
    ("family", "odd"),
    [
        ("llama", "odd heads"),
        ("llama", "one key head, wide heads"),
        ("gpt2", "odd heads"),
        ("gpt2", "scale by layer"),
        ("qwen3", "wide heads"),
    ],
)
@torch.no_grad()
def test_prefixes_are_transformers_with_a_4d_mask(family, odd, folder, ours):
    text, model = tokens(), ours(family, odd)
    mask = seen_by_transformers(text.shape[1], PREFIXES)
    expected = reference(family, odd)(text, attention_mask=mask).logits
    assert distance(model(text, prefix=PREFIXES).logits, expected) <= 1e-5
    assert distance(model(text).logits, expected) > 1e-2  # and the prefix matters


@pytest.mark.parametrize("position", ["rope", "alibi", "t5", "learned", "none"])
@torch.no_grad()
def test_prefixes_count_real_tokens(position):
    model = tiny(**{"backbone.position": position})
    text = torch.randint(0, 61, (2, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[0] * 4 + [1] * 8, [1] * 12])
    both = model(text, mask, prefix=torch.tensor([3, 6])).logits
    first = model(text[:1, 4:], prefix=torch.tensor([3])).logits
    second = model(text[1:], prefix=torch.tensor([6])).logits
    torch.testing.assert_close(both[0, 4:], first[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both[1], second[0], atol=1e-5, rtol=1e-5)


def test_gradients_know_the_prefix():
    """Prefix tokens see each other; no token sees what comes after it and after the prefix."""
    model = tiny()
    x = torch.randn(1, 10, 32, requires_grad=True)
    for place in range(10):
        x.grad = None
        model(None, embedded=x, prefix=torch.tensor([4])).logits[0, place].sum().backward()
        reached = x.grad[0].abs().sum(-1) > 0
        last = max(place, 3)
        assert reached.tolist() == [True] * (last + 1) + [False] * (9 - last)


@torch.no_grad()
def test_a_cache_after_a_bidirectional_prefix():
    """A prefix language model reads what first fills a cache in both directions."""
    model = tiny()
    text = torch.randint(0, 61, (2, 40), generator=torch.Generator().manual_seed(0))
    for mask in (None, torch.tensor([[0] * 3 + [1] * 37, [1] * 40])):
        real = torch.ones(2, 40) if mask is None else mask
        whole = model(text, mask, prefix=real[:, :8].sum(-1).long()).logits
        cache, parts, past = DynamicCache(), [], 0
        for part in text.split([8] + [1] * 32, 1):
            past += part.shape[1]
            parts.append(model(part, None if mask is None else mask[:, :past], cache=cache).logits)
        found = torch.cat(parts, 1)
        torch.testing.assert_close(found[real.bool()], whole[real.bool()], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_dense_mask_narrows_what_a_decoder_sees():
    model, text = tiny("gpt2"), torch.randint(0, 61, (2, 9))
    everything = torch.ones(1, 1, 9, 9)
    torch.testing.assert_close(model(text, everything).logits, model(text).logits)
    own = torch.eye(9)[None, None]
    changed = torch.cat([text[:, 4:5], text[:, 1:]], 1)
    torch.testing.assert_close(model(text, own).logits[:, 1:], model(changed, own).logits[:, 1:])


def test_a_kernel_that_knows_no_prefix_is_refused_when_the_model_is_built(monkeypatch):
    from zoo.nn.kernel import SDPAKernel

    monkeypatch.setattr(SDPAKernel, "can", SDPAKernel.can - {"prefix"})
    with pytest.raises(ConfigError, match="cannot do: prefix"):
        tiny()
    tiny(prefix_lm=False)


# -- embeddings and heads --------------------------------------------------------------------------


@torch.no_grad()
def test_the_last_logits_alone():
    model, text = tiny("gpt2"), torch.randint(0, 61, (2, 9))
    torch.testing.assert_close(model(text, last=True).logits, model(text).logits[:, -1:])


@torch.no_grad()
def test_vectors_in_place_of_tokens():
    model, text = tiny("gpt2"), torch.randint(0, 61, (2, 9))
    given = model.embedding(text)
    torch.testing.assert_close(model(None, embedded=given).logits, model(text).logits)


@torch.no_grad()
def test_logits_are_hidden_times_the_head():
    for tied in (True, False):
        model, text = tiny(tied=tied, head_bias=True, head_scale=0.5), torch.randint(0, 61, (2, 9))
        model.head.bias.normal_()
        output = model(text)
        weight = model.embedding.table.weight if tied else model.head.weight
        expected = 0.5 * output.hidden @ weight.T + model.head.bias
        torch.testing.assert_close(output.logits, expected)
        assert ("head.weight" in model.state_dict()) == (not tied)


@torch.no_grad()
def test_fixnorm_rows_have_unit_length():
    """arXiv 1910.05895, section 2.3: embeddings are unit vectors, whatever is learned."""
    model, text = tiny(unit_embedding=True, scale_embedding=True), torch.randint(0, 61, (2, 9))
    model.embedding.table.weight.mul_(torch.rand(61, 1) * 9)
    unit = F.normalize(model.embedding.table.weight, dim=-1)
    torch.testing.assert_close(model.embedding(text), unit[text] * 32**0.5)
    output = model(text)
    torch.testing.assert_close(output.logits, output.hidden @ unit.T)
    model.embedding.table.weight.mul_(3)
    torch.testing.assert_close(model(text).logits, output.logits)


@torch.no_grad()
def test_a_factorised_embedding_is_projected_both_ways():
    model, text = tiny(embedding_width=8), torch.randint(0, 61, (2, 9))
    assert model.embedding.table.weight.shape == (61, 8)
    output = model(text)
    narrow = F.linear(output.hidden, model.head.dense.weight, model.head.dense.bias)
    torch.testing.assert_close(output.logits, narrow @ model.embedding.table.weight.T)


@torch.no_grad()
def test_a_mask_of_rules_is_taken_as_it_is():
    model, text = tiny("gpt2"), torch.randint(0, 61, (2, 9))
    packed = torch.tensor([[0] * 5 + [1] * 4] * 2)
    found = model(text, Mask(segments=packed)).logits
    alone = model(text[:, :5]).logits
    torch.testing.assert_close(found[:, :5], alone, atol=1e-5, rtol=1e-5)


# -- what is published -----------------------------------------------------------------------------

COUNTS = {
    "gpt1": 116_534_784,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "tinyllama-1.1b": 1_100_048_384,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
    "mistral-7b": 7_241_732_096,
    "qwen2-0.5b": 494_032_768,
    "qwen2-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
    "bloom-560m": 559_214_592,
    "mpt-7b": 6_649_286_656,
    "santacoder": 1_124_886_528,
    "starcoderbase-1b": 1_137_207_296,
    "falcon-7b": 6_921_720_704,
    "falcon-rw-1b": 1_311_625_216,
}


@pytest.mark.parametrize("name", COUNTS)
def test_true_shapes_have_the_published_number_of_parameters(name):
    model = zoo.create(name, device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[name]


@pytest.mark.parametrize("name", ["gpt1", "gpt2", "bloom-560m", "qwen3-0.6b", "starcoderbase-1b"])
def test_true_shapes_are_the_references(name):
    transformers = pytest.importorskip("transformers")
    from zoo.weights.formats import formats

    config = zoo.config(name)
    public = formats()[next(iter(config.weights.values())).format].write_config(config)
    theirs = transformers.AutoConfig.for_model(**public)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(theirs)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]


def decoders_with_weights():
    configs = {name: zoo.config(name) for name in zoo.list("model") if "/" not in name}
    return [n for n, c in configs.items() if c.zoo_kind == "causal-lm" and c.weights]


@pytest.mark.parametrize("name", decoders_with_weights())
def test_the_format_of_a_nodes_weights_can_say_the_node(name):
    from tests.weights.formats.decoders import read, same_model
    from zoo.weights.formats import formats

    config = zoo.config(name)
    for tag in config.weights.values():
        assert tag.format == "zoo" or same_model(
            read(formats()[tag.format].write_config(config)), config
        )


@pytest.mark.parametrize("name", zoo.list("model", "gpt3*"))
def test_gpt3_layers_are_dense_and_banded_in_turns(name):
    backbone = zoo.config(name).backbone
    assert [backbone.block(i).attention.window for i in range(4)] == [None, 256, None, 256]
    heads, _, head_dim = backbone.attention.shape(backbone.width)
    assert heads * head_dim == backbone.width and backbone.length == 2048


@pytest.mark.parametrize(
    ("name", "wanted", "left"),
    [
        ("gpt2", ["model.safetensors", "config.json"], ["model-00001-of-00002.safetensors"]),
        (
            "llama-2-7b",
            ["model.safetensors.index.json", "model-00001-of-00002.safetensors"],
            ["pytorch_model-00001-of-00002.bin", "model.safetensors"],
        ),
        (
            "vicuna-7b-v1.5",
            ["pytorch_model.bin.index.json", "pytorch_model-00002-of-00002.bin"],
            ["model-00001-of-00002.safetensors", "pytorch_model.bin"],
        ),
    ],
)
def test_a_pull_takes_the_file_and_what_its_index_names(name, wanted, left):
    from zoo.hub.names import select

    patterns = next(iter(zoo.config(name).weights.values())).patterns()
    assert select([*wanted, *left, "README.md"], patterns) == sorted(wanted)
