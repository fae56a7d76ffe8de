"""The layouts in which files of the decoder families lie on hubs, and files that do not fit."""

import pytest
import torch

import zoo
from tests.weights.formats.decoders import FAMILIES, reference, rewrite, tokens
from zoo.errors import WeightsError

MASKED = ("gpt1", "gpt2", "gpt_bigcode")  # old files of these hold causal masks
LLAMAS = ("llama", "mistral", "qwen2", "qwen3")
CASE = {family: next(iter(cases)) for family, (_, cases) in FAMILIES.items()}


def without_prefix(family, tensors):
    prefix = "model." if family in LLAMAS else "transformer."
    assert any(name.startswith(prefix) for name in tensors)
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


def with_masks(family, tensors):
    prefix = "transformer.h." if family in MASKED else "model.layers."
    extra = {}
    for layer in range(2):
        if family in MASKED:
            mask = torch.ones(1, 1, 128, 128).tril()
            extra[f"{prefix}{layer}.attn.bias"] = mask if family == "gpt1" else mask.bool()
            if family != "gpt1":
                extra[f"{prefix}{layer}.attn.masked_bias"] = torch.tensor(-1e4)
        elif family in LLAMAS:
            extra[f"{prefix}{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        elif family == "falcon":
            name = f"transformer.h.{layer}.self_attention.rotary_emb.inv_freq"
            extra[name] = torch.ones(4)
    return {**tensors, **extra}


def with_tied_head(family, tensors):
    table = next(v for k, v in tensors.items() if k.endswith(("wte.weight", "embeddings.weight")))
    return {**tensors, "lm_head.weight": table.clone()}


LAYOUTS = {
    "no prefix": (without_prefix, list(FAMILIES)),
    "masks and frequencies": (with_masks, [*MASKED, *LLAMAS, "falcon"]),
    "no prefix, masks": (
        lambda f, t: without_prefix(f, with_masks(f, t)),
        [*MASKED, *LLAMAS, "falcon"],
    ),
    "a tied head stored twice": (
        with_tied_head,
        ["gpt2", "bloom", "mpt", "gpt_bigcode", "falcon"],
    ),
}


@pytest.mark.parametrize(
    ("layout", "family"),
    [(layout, family) for layout, (_, families) in LAYOUTS.items() for family in families],
)
@torch.no_grad()
def test_hub_layouts_give_the_same_model(layout, family, folder, ours, tmp_path):
    change = LAYOUTS[layout][0]
    rewrite(
        folder(family, CASE[family]),
        tmp_path,
        change_weights=lambda tensors: change(family, tensors),
    )
    text = tokens()
    found = zoo.load(f"dir:{tmp_path}")(text).logits
    assert torch.equal(found, ours(family, CASE[family])(text).logits)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_shards(family, ours, tmp_path):
    reference(family, CASE[family]).save_pretrained(tmp_path, max_shard_size="40KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    text = tokens()
    found = zoo.load(f"dir:{tmp_path}")(text).logits
    assert torch.equal(found, ours(family, CASE[family])(text).logits)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_pickles_open_behind_the_flag_only(family, folder, ours, tmp_path):
    from safetensors.torch import load_file

    saved = folder(family, CASE[family])
    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    torch.save(load_file(saved / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="allow_pickle=True"):
        zoo.load(f"dir:{tmp_path}")
    text = tokens()
    found = zoo.load(f"dir:{tmp_path}", allow_pickle=True)(text).logits
    assert torch.equal(found, ours(family, CASE[family])(text).logits)


def test_half_precision_files_stay_so_unless_asked(folder, tmp_path):
    rewrite(
        folder("llama", CASE["llama"]),
        tmp_path,
        change_weights=lambda t: {k: v.bfloat16() for k, v in t.items()},
    )
    assert next(zoo.load(f"dir:{tmp_path}").parameters()).dtype == torch.bfloat16
    assert next(zoo.load(f"dir:{tmp_path}", dtype="fp32").parameters()).dtype == torch.float32


# -- files that do not fit -------------------------------------------------------------------------


def test_a_tensor_that_nobody_knows_is_named(folder, tmp_path):
    rewrite(
        folder("gpt2", CASE["gpt2"]),
        tmp_path,
        change_weights=lambda t: {**t, "transformer.h.0.attn.gate": torch.ones(3)},
    )
    with pytest.raises(WeightsError, match=r"transformer\.h\.0\.attn\.gate"):
        zoo.load(f"dir:{tmp_path}")
    report = zoo.load(f"dir:{tmp_path}", partial=True).load_report
    assert report.unused == ("transformer.h.0.attn.gate",) and not report.new


def test_a_missing_tensor_is_named_as_both_sides_call_it(folder, tmp_path):
    name = "model.layers.1.self_attn.k_proj.weight"
    rewrite(
        folder("llama", CASE["llama"]),
        tmp_path,
        change_weights=lambda t: {k: v for k, v in t.items() if k != name},
    )
    with pytest.raises(WeightsError, match=r"layers\.1\.attention\.qkv\.weight.*k_proj\.weight"):
        zoo.load(f"dir:{tmp_path}")


def test_a_head_that_differs_from_the_embedding_is_not_thrown_away(folder, tmp_path):
    rewrite(
        folder("gpt2", CASE["gpt2"]),
        tmp_path,
        change_weights=lambda t: {**t, "lm_head.weight": t["transformer.wte.weight"] + 1},
    )
    with pytest.raises(WeightsError, match=r"untied"):
        zoo.load(f"dir:{tmp_path}")
    model = zoo.load(f"dir:{tmp_path}", tied=False)  # as the error says
    assert torch.equal(model.head.weight, model.embedding.table.weight + 1)


def test_a_wrong_shape_is_named(folder, tmp_path):
    def smaller(content):
        return {**content, "n_positions": 64}

    rewrite(folder("gpt2", CASE["gpt2"]), tmp_path, change_config=smaller)
    with pytest.raises(WeightsError, match=r"positions\.0\.weight: \(128, 33\).*\(64, 33\)"):
        zoo.load(f"dir:{tmp_path}")


# -- Meta's files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ["odd heads", "one key head, wide heads"])
@torch.no_grad()
def test_metas_files_give_the_same_model(odd, folder, ours, tmp_path):
    """consolidated.00.pth holds rotary pairs as neighbours, and other names."""
    from safetensors.torch import load_file

    config = ours("llama", odd).config
    heads, kv_heads, head_dim = config.backbone.attention.shape(config.backbone.width)

    def neighbours(weight, count):  # the inverse of what transformers' conversion script did
        halves = weight.view(count, 2, head_dim // 2, -1)
        return halves.transpose(1, 2).reshape(weight.shape)

    names = {
        "model.embed_tokens.weight": "tok_embeddings.weight",
        "model.norm.weight": "norm.weight",
        "lm_head.weight": "output.weight",
    }
    parts = {
        "self_attn.q_proj": "attention.wq",
        "self_attn.k_proj": "attention.wk",
        "self_attn.v_proj": "attention.wv",
        "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.up_proj": "feed_forward.w3",
        "mlp.down_proj": "feed_forward.w2",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    state = {"rope.freqs": torch.ones(head_dim // 2)}
    for name, value in load_file(folder("llama", odd) / "model.safetensors").items():
        if name in names:
            state[names[name]] = value
            continue
        _, _, layer, part = name.removesuffix(".weight").split(".", 3)
        if part == "self_attn.q_proj":
            value = neighbours(value, heads)
        if part == "self_attn.k_proj":
            value = neighbours(value, kv_heads)
        state[f"layers.{layer}.{parts[part]}.weight"] = value
    torch.save(state, tmp_path / "consolidated.00.pth")
    from zoo.models.base import build_empty
    from zoo.weights.files import open_weights
    from zoo.weights.formats import formats
    from zoo.weights.load import load_into

    file = open_weights(tmp_path / "consolidated.00.pth", allow_pickle=True)
    weight_map = formats()["meta-llama"].weight_map(config)
    model = build_empty(config)
    load_into(model, weight_map.load(file))
    text = tokens()
    assert torch.equal(model.eval()(text).logits, ours("llama", odd)(text).logits)
    # and the map goes back to the same bits
    written = weight_map.export(model.state_dict())
    assert written.keys() == state.keys() - {"rope.freqs"}
    assert all(torch.equal(written[name], state[name]) for name in written)


def test_metas_params_are_read():
    from zoo.registry import resolve
    from zoo.weights.formats import formats

    params = {
        "dim": 4096,
        "n_layers": 32,
        "n_heads": 32,
        "n_kv_heads": 8,
        "vocab_size": 128256,
        "multiple_of": 1024,
        "ffn_dim_multiplier": 1.3,
        "norm_eps": 1e-05,
        "rope_theta": 500000.0,
        "use_scaled_rope": True,
    }
    found = resolve(
        "model", {"kind": "causal-lm", **formats()["meta-llama"].read_config(params, ())}
    )
    node = zoo.config("llama-3.1-8b")
    assert found.backbone.feedforward.hidden == node.backbone.feedforward.hidden == 14336
    assert found.backbone.position == node.backbone.position
    assert found.backbone.attention.shape(4096) == node.backbone.attention.shape(4096)
    with pytest.raises(zoo.errors.ConfigError, match="'vocab_size' = -1"):
        formats()["meta-llama"].read_config({**params, "vocab_size": -1}, ())
    with pytest.raises(zoo.errors.ConfigError, match="transformers-llama"):
        formats()["meta-llama"].write_config(node)
