"""XLNet against transformers: both streams, orders, memories, segments."""

# b batch, n tokens, p predicted places, v vocabulary

from functools import cache

import pytest
import torch

import zoo
from tests.weights.formats.parity import (
    PADDINGS,
    TOLERANCE,
    distance,
    export,
    parameters,
    random_tokens,
    random_weights,
    refuses,
    relative,
    tensors,
    transformers,
)

VOCABULARY = 53
_TINY = {
    "vocab_size": VOCABULARY,
    "d_model": 36,
    "n_layer": 2,
    "n_head": 3,
    "d_inner": 50,
    "mem_len": 9,
}
CASES = {
    "odd heads": _TINY,
    "past only": {**_TINY, "attn_type": "uni"},
    "one head, relu": {**_TINY, "n_head": 1, "ff_activation": "relu"},
    "clamped": {**_TINY, "clamp_len": 4, "n_head": 9},
    "untied": {**_TINY, "tie_word_embeddings": False, "layer_norm_eps": 1e-2},
    "gelu_new, three layers": {**_TINY, "ff_activation": "gelu_new", "n_layer": 3},
    "long memory": {**_TINY, "mem_len": 64, "n_head": 2},
}
every_case = pytest.mark.parametrize("odd", CASES)


@cache
def reference(odd):
    config = transformers.XLNetConfig(**CASES[odd])
    return random_weights(transformers.XLNetLMHeadModel(config), seed=len(odd))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    @cache
    def saved(odd):
        path = tmp_path_factory.mktemp("xlnet")
        reference(odd).save_pretrained(path)
        return path

    return saved


@pytest.fixture(scope="module")
def ours(folder):
    return cache(lambda odd: zoo.load(f"dir:{folder(odd)}"))


def permutation(batch=2, n=11, p=4, seed=0):
    """Returns an order as a mask (b n n) and the last p of it as targets (b p n)."""
    generator = torch.Generator().manual_seed(seed)
    rank = torch.stack([torch.randperm(n, generator=generator) for _ in range(batch)])
    order = rank[:, None, :] >= rank[:, :, None]  # what comes later, or is the place itself
    places = rank.argsort(-1)[:, -p:]
    return order, torch.nn.functional.one_hot(places, n).float()


def outputs(odd, tokens, mems=None, **keys):
    """What the reference gives; text by text for `uni`, whose mask it cannot give to a batch."""
    size = 1 if CASES[odd].get("attn_type") == "uni" else len(tokens)
    parts = []
    for row in range(0, len(tokens), size):
        rows = slice(row, row + size)
        past = None if mems is None else [kept[:, rows] for kept in mems]
        given = {key: value[rows] for key, value in keys.items()}
        parts.append(reference(odd)(tokens[rows], mems=past, output_hidden_states=True, **given))
    found = parts[0]
    if len(parts) > 1:
        found.logits = torch.cat([part.logits for part in parts])
        states = zip(*(part.hidden_states for part in parts), strict=True)
        found.hidden_states = tuple(torch.cat(state) for state in states)
        kept = zip(*(part.mems for part in parts), strict=True)
        found.mems = tuple(torch.cat(memory, dim=1) for memory in kept)
    assert found.logits.std() > 0.1, "weights so small that little would show"
    return found


@every_case
@torch.no_grad()
def test_one_stream(odd, ours):
    tokens = random_tokens(VOCABULARY)
    types = (tokens > 20).long()
    for keys, theirs in (({}, {}), ({"types": types}, {"token_type_ids": types})):
        found = ours(odd)(tokens, **keys)
        assert distance(found.logits, outputs(odd, tokens, **theirs).logits) <= TOLERANCE


@every_case
@torch.no_grad()
def test_two_streams(odd, ours):
    """Each stream against the reference's, under an order, with segments and padding."""
    tokens = random_tokens(VOCABULARY)
    types = (tokens > 20).long()
    order, targets = permutation()
    if odd == "past only":  # then a place must have a past that its order lets it see
        order = torch.zeros_like(order)
    seen = {"perm_mask": order.float(), "target_mapping": targets}
    expected = outputs(odd, tokens, token_type_ids=types, **seen)
    found = ours(odd)(tokens, types=types, order=order, targets=targets)
    assert found.logits.shape == (2, 4, VOCABULARY)
    assert distance(found.logits, expected.logits) <= TOLERANCE
    content = ours(odd)(tokens, types=types, order=order)
    assert distance(content.hidden, expected.hidden_states[-2]) <= TOLERANCE
    assert distance(found.hidden, expected.hidden_states[-1]) <= TOLERANCE


@every_case
@pytest.mark.parametrize("side", PADDINGS)
@torch.no_grad()
def test_padding(odd, side, ours):
    model, tokens, mask = ours(odd), random_tokens(VOCABULARY), torch.tensor(PADDINGS[side])
    found = model(tokens, mask)
    expected = outputs(odd, tokens, attention_mask=mask.float()).logits
    assert distance(found.logits[mask.bool()], expected[mask.bool()]) <= TOLERANCE
    for row, real in enumerate(mask.bool()):
        alone = model(tokens[row : row + 1, real])
        assert distance(found.logits[row, real], alone.logits[0]) <= TOLERANCE


@every_case
@torch.no_grad()
def test_memory(odd, ours):
    """Three segments of a text, each reading what the earlier ones left; then both streams."""
    model = ours(odd)
    memory = mems = None
    for segment in range(3):
        tokens = random_tokens(VOCABULARY, length=7, seed=segment)
        types = (tokens > 30).long()
        order, targets = permutation(n=7, p=2, seed=segment)
        if odd == "past only":
            order = torch.zeros_like(order)
        keys = {"perm_mask": order.float(), "target_mapping": targets, "token_type_ids": types}
        expected = outputs(odd, tokens, mems=mems, **keys)
        found = model(tokens, types=types, order=order, targets=targets, memory=memory)
        assert distance(found.logits, expected.logits) <= TOLERANCE
        plain = model(tokens, memory=memory)
        expected_plain = outputs(odd, tokens, mems=mems)
        assert distance(plain.logits, expected_plain.logits) <= TOLERANCE
        memory, mems = plain.memory, expected_plain.mems
        assert len(memory) == len(mems) == model.config.backbone.depth
        for mine, theirs in zip(memory, mems, strict=True):
            assert mine.shape[1] == min(7 * (segment + 1), model.config.memory)
            assert distance(mine.transpose(0, 1), theirs) <= TOLERANCE


@every_case
@torch.no_grad()
def test_bf16(odd, folder, ours):
    tokens = random_tokens(VOCABULARY)
    order, targets = permutation()
    low = zoo.load(f"dir:{folder(odd)}", dtype="bf16")
    for keys in ({}, {"order": order, "targets": targets}):
        found, exact = low(tokens, **keys).logits, ours(odd)(tokens, **keys).logits
        assert found.dtype == torch.bfloat16
        assert relative(found, exact) <= 2e-2


@every_case
@torch.no_grad()
def test_export(odd, ours, folder, tmp_path):
    path = export(ours(odd), folder(odd), tmp_path)
    back = transformers.XLNetLMHeadModel.from_pretrained(path).eval()
    tokens = random_tokens(VOCABULARY)
    order, targets = permutation()
    keys = {"perm_mask": order.float(), "target_mapping": targets}
    keys = {} if odd == "past only" else keys  # it breaks on a batch
    assert distance(back(tokens, **keys).logits, outputs(odd, tokens, **keys).logits) <= 1e-6
    assert (back.config.mem_len, back.config.attn_type) == (
        CASES[odd]["mem_len"],
        CASES[odd].get("attn_type", "bi"),
    )


@torch.no_grad()
def test_a_pickled_file(folder, ours, tmp_path):
    """The hub's files are pickled; the head's matrix may be in them under its own name."""
    content = tensors(folder("odd heads"))
    content["lm_loss.weight"] = content["transformer.word_embedding.weight"]
    torch.save(content, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text((folder("odd heads") / "config.json").read_text())
    with pytest.raises(zoo.errors.WeightsError, match="allow_pickle"):
        zoo.load(f"dir:{tmp_path}")
    model = zoo.load(f"dir:{tmp_path}", allow_pickle=True)
    tokens = random_tokens(VOCABULARY)
    assert torch.equal(model(tokens).logits, ours("odd heads")(tokens).logits)


def test_what_is_not_implemented_is_refused_by_name(folder):
    path = folder("odd heads")
    assert refuses(path, "bi_data", True)
    assert refuses(path, "same_length", True)
    assert refuses(path, "reuse_len", 256)
    assert refuses(path, "untie_r", False)
    assert refuses(path, "attn_type", "both")
    assert refuses(path, "rope_theta", 1e4)
    with pytest.raises(zoo.errors.ConfigError, match="XLNetForSequenceClassification"):
        zoo.weights.formats.formats()["transformers-xlnet"].read_config(
            {"architectures": ["XLNetForSequenceClassification"]}, frozenset()
        )


@pytest.mark.parametrize(
    "swap", ["backbone.position=rope", "backbone.placement=pre", "backbone.attention.kv_heads=1"]
)
def test_export_refuses_what_xlnet_cannot_say(swap, folder, tmp_path):
    model = zoo.load(f"dir:{folder('odd heads')}", swap, partial=True)
    with pytest.raises(zoo.errors.ConfigError, match="format 'zoo' holds every model"):
        zoo.save(model, tmp_path, format="transformers-xlnet")


NODES = {
    "xlnet-base-cased": (
        {"d_model": 768, "n_layer": 12, "n_head": 12, "d_inner": 3072},
        116_750_336,
    ),
    "xlnet-large-cased": ({}, 360_300_800),
}


@pytest.mark.parametrize("name", NODES)
def test_nodes(name):
    from zoo.registry import resolve
    from zoo.weights.formats import formats
    from zoo.weights.formats._text import computation
    from zoo.weights.formats.keys import differences

    keys, count = NODES[name]
    config = transformers.XLNetConfig(mem_len=None, **keys)
    with torch.device("meta"):
        theirs = transformers.XLNetLMHeadModel(config)
    assert parameters(theirs) == count == parameters(zoo.create(name, device="meta"))
    content = {**config.to_dict(), "architectures": ["XLNetLMHeadModel"], "mem_len": None}
    node = formats()["transformers-xlnet"].read_config(content, frozenset())
    translated = resolve("model", {"kind": "permutation-lm", **node})
    typed = zoo.config(name)
    assert not differences(computation(typed), computation(translated))
    assert typed.special == translated.special
    assert next(iter(typed.weights.values())).format == "transformers-xlnet"
