"""T5 1.0 and 1.1, Flan, UL2, mT5 and UMT5 against transformers."""

import json
import math

import pytest
import torch

import zoo
from tests.weights.formats.pairs import PairTests
from tests.weights.formats.parity import TOLERANCE, distance, rewrite, tensors

_TINY = {
    "vocab_size": 53,
    "d_model": 36,
    "d_kv": 10,
    "d_ff": 50,
    "num_layers": 2,
    "num_heads": 3,
    "decoder_start_token_id": 0,
}
_OWN = {"own_head": True, "tie_word_embeddings": False}
_NEW = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}


class TestT5(PairTests):
    names = {
        None: ("T5Config", "T5ForConditionalGeneration"),
        "umt5": ("UMT5Config", "UMT5ForConditionalGeneration"),
        **{
            f"umt5, {odd}": ("UMT5Config", "UMT5ForConditionalGeneration")
            for odd in ("relu, one head", "gated", "wide heads", "other depths", "few buckets")
        },
        "mt5": ("MT5Config", "MT5ForConditionalGeneration"),
        "mt5, own head": ("MT5Config", "MT5ForConditionalGeneration"),
    }
    cases = {
        "1.0": _TINY,
        "one wide head": {**_TINY, "num_heads": 1, "d_kv": 24, "layer_norm_epsilon": 1e-2},
        "other depths": {**_TINY, "num_layers": 3, "num_decoder_layers": 1},
        "few buckets": {
            **_TINY,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 9,
        },
        "1.1": {**_TINY, **_OWN, "feed_forward_proj": "gated-gelu"},
        "ul2": {**_TINY, **_OWN, "feed_forward_proj": "gated-silu", "d_kv": 16},
        "tied, not scaled": {**_TINY, "tie_word_embeddings": False},
        "gelu": {**_TINY, "feed_forward_proj": "gelu"},
        "gated, relu": {**_TINY, "feed_forward_proj": "gated-relu"},
        "umt5": _TINY,
        "umt5, relu, one head": {**_TINY, "feed_forward_proj": "relu", "num_heads": 1},
        "umt5, gated": {**_TINY, "feed_forward_proj": "gated-silu", "layer_norm_epsilon": 1e-2},
        "umt5, wide heads": {**_TINY, "d_kv": 24, "num_heads": 5, "d_ff": 70},
        "umt5, other depths": {**_TINY, "num_layers": 3, "num_decoder_layers": 1},
        "umt5, few buckets": {
            **_TINY,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 9,
        },
        "mt5": _TINY,
        "mt5, own head": {**_TINY, "own_head": True},
    }
    nodes = {
        "t5-small": ("T5Config", "T5ForConditionalGeneration", {}, 60_506_624),
        "t5-base": (
            "T5Config",
            "T5ForConditionalGeneration",
            {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
            222_903_552,
        ),
        "t5-large": (
            "T5Config",
            "T5ForConditionalGeneration",
            {"d_model": 1024, "d_ff": 4096, "num_layers": 24, "num_heads": 16},
            737_668_096,
        ),
        "t5-3b": (
            "T5Config",
            "T5ForConditionalGeneration",
            {"d_model": 1024, "d_kv": 128, "d_ff": 16384, "num_layers": 24, "num_heads": 32},
            2_851_598_336,
        ),
        "t5-11b": (
            "T5Config",
            "T5ForConditionalGeneration",
            {"d_model": 1024, "d_kv": 128, "d_ff": 65536, "num_layers": 24, "num_heads": 128},
            11_307_321_344,
        ),
        **{
            name: ("T5Config", "T5ForConditionalGeneration", {**_NEW, **keys}, count)
            for names, keys, count in (
                (
                    ("t5-v1.1-small", "flan-t5-small"),
                    {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6},
                    76_961_152,
                ),
                (
                    ("t5-v1.1-base", "flan-t5-base"),
                    {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12},
                    247_577_856,
                ),
                (
                    ("t5-v1.1-large", "flan-t5-large"),
                    {"d_model": 1024, "d_ff": 2816, "num_layers": 24, "num_heads": 16},
                    783_150_080,
                ),
                (
                    ("t5-v1.1-xl", "flan-t5-xl"),
                    {"d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32},
                    2_849_757_184,
                ),
                (
                    ("t5-v1.1-xxl", "flan-t5-xxl"),
                    {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64},
                    11_135_332_352,
                ),
            )
            for name in names
        },
        "ul2": (
            "T5Config",
            "T5ForConditionalGeneration",
            {
                "feed_forward_proj": "gated-silu",
                "d_model": 4096,
                "d_kv": 256,
                "d_ff": 16384,
                "num_layers": 32,
                "num_heads": 16,
            },
            19_459_613_696,
        ),
        "umt5-small": (
            "UMT5Config",
            "UMT5ForConditionalGeneration",
            {"tie_word_embeddings": False, "vocab_size": 256384},
            306_601_984,
        ),
        "umt5-base": (
            "UMT5Config",
            "UMT5ForConditionalGeneration",
            {
                "tie_word_embeddings": False,
                "vocab_size": 256384,
                "d_model": 768,
                "d_ff": 2048,
                "num_layers": 12,
                "num_heads": 12,
            },
            592_043_520,
        ),
    }

    def test_bias_of_distances(self, ours):
        """One table a stack, or one in every layer."""
        names = [name for name in ours("1.0").state_dict() if name.endswith("table.weight")]
        assert names[1:] == ["encoder.positions.0.table.weight", "decoder.positions.0.table.weight"]
        own = [name for name in ours("umt5").state_dict() if name.endswith("relative.weight")]
        assert len(own) == 4

    @torch.no_grad()
    def test_an_old_file(self, ours, folder, tmp_path):
        """All names of the one embedding, a bias in cross-attention that nobody reads, old keys."""

        def old(saved):
            table = saved["shared.weight"]
            for name in ("encoder.embed_tokens", "decoder.embed_tokens", "lm_head"):
                saved[f"{name}.weight"] = table
            bias = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
            return {**saved, bias: torch.randn(32, 3)}

        keys = {"n_positions": 512, "output_past": True, "architectures": ["T5WithLMHeadModel"]}
        path = rewrite(folder("1.0"), old, tmp_path, **keys)
        content = json.loads((path / "config.json").read_text())
        for key in ("scale_decoder_outputs", "tie_word_embeddings", "is_gated_act", "dense_act_fn"):
            del content[key]
        (path / "config.json").write_text(json.dumps(content))
        model, source_target = zoo.load(f"dir:{path}"), self.texts(ours("1.0"))
        assert torch.equal(model(*source_target).logits, ours("1.0")(*source_target).logits)

    @torch.no_grad()
    def test_the_head_of_files_before_version_5(self, ours, folder, tmp_path):
        """`tie_word_embeddings` false alone says that the outputs are not scaled."""
        path = rewrite(folder("1.1"), lambda saved: saved, tmp_path, tie_word_embeddings=False)
        content = json.loads((path / "config.json").read_text())
        del content["scale_decoder_outputs"]
        (path / "config.json").write_text(json.dumps(content))
        model = zoo.load(f"dir:{path}")
        assert model.config.head_scale == 1 and not model.config.tied
        texts = self.texts(model)
        assert torch.equal(model(*texts).logits, ours("1.1")(*texts).logits)

    @torch.no_grad()
    def test_umt5_of_the_hub_is_not_scaled(self, ours, folder, tmp_path):
        """Its config says so; version 5 scales it all the same, by one number."""
        path = rewrite(folder("umt5"), lambda saved: saved, tmp_path, tie_word_embeddings=False)
        model = zoo.load(f"dir:{path}")
        source, target = self.texts(model)
        expected = self.logits("umt5", source, target) * math.sqrt(36)
        assert distance(model(source, target).logits, expected) <= TOLERANCE

    @torch.no_grad()
    def test_a_pickled_file(self, ours, folder, tmp_path):
        (tmp_path / "config.json").write_text((folder("1.1") / "config.json").read_text())
        torch.save(tensors(folder("1.1")), tmp_path / "pytorch_model.bin")
        model = zoo.load(f"dir:{tmp_path}", allow_pickle=True)
        texts = self.texts(model)
        assert torch.equal(model(*texts).logits, ours("1.1")(*texts).logits)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("feed_forward_proj", "gated-gelu-tanh"),
            ("feed_forward_proj", "mish"),
            ("dense_act_fn", "silu"),
            ("is_gated_act", True),
        ],
    )
    def test_what_is_not_implemented_is_refused_by_name(self, key, value, folder):
        from tests.weights.formats.parity import refuses

        assert refuses(folder("1.0"), key, value)

    @pytest.mark.parametrize(
        "swap",
        [
            "decoder.position=rope",
            "encoder.norm=layer",
            "decoder.attention.kv_heads=1",
            "head_bias=true",
        ],
    )
    def test_export_refuses_what_t5_cannot_say(self, swap, folder, tmp_path):
        model = zoo.load(f"dir:{folder('1.0')}", swap, partial=True)
        with pytest.raises(zoo.errors.ConfigError, match="format 'zoo' holds every model"):
            zoo.save(model, tmp_path, format="transformers-t5")
