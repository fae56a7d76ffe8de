"""Marian (opus-mt) against transformers."""

import pytest
import torch

import zoo
from tests.weights.formats.pairs import PairTests
from tests.weights.formats.parity import TOLERANCE, distance, refuses, rewrite

_TINY = {
    "vocab_size": 53,
    "d_model": 36,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 50,
    "decoder_ffn_dim": 50,
    "max_position_embeddings": 64,
    "pad_token_id": 3,
    "eos_token_id": 0,
    "decoder_start_token_id": 3,
}
_TWO = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 61}
_OPUS = {
    "d_model": 512,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "decoder_ffn_dim": 2048,
    "activation_function": "swish",
    "scale_embedding": True,
    "max_position_embeddings": 512,
}


class TestMarian(PairTests):
    names = {None: ("MarianConfig", "MarianMTModel")}
    pads = {None: 3}
    left_padding = False  # the reference counts padding; ours follows the mask
    cases = {
        "odd heads": _TINY,
        "opus": {**_TINY, "activation_function": "swish", "scale_embedding": True},
        "two vocabularies": {**_TINY, **_TWO},
        "two vocabularies, three matrices": {**_TINY, **_TWO, "tie_word_embeddings": False},
        "uneven stacks": {
            **_TINY,
            "encoder_layers": 3,
            "decoder_layers": 1,
            "encoder_attention_heads": 9,
            "decoder_attention_heads": 1,
            "decoder_ffn_dim": 70,
        },
        "relu": {**_TINY, "activation_function": "relu"},
        "gelu_new": {**_TINY, "activation_function": "gelu_new", "encoder_attention_heads": 1},
    }
    nodes = {"opus-mt-en-de": ("MarianConfig", "MarianMTModel", _OPUS, 73_944_309)}

    @torch.no_grad()
    def test_long_texts(self, ours):
        """Sines of the reference are computed in double precision; ours stay close."""
        from tests.weights.formats.parity import random_tokens

        source, target = random_tokens(53, 1, 60), random_tokens(53, 1, 60, seed=2)
        found = ours("odd heads")(source, target).logits
        assert distance(found, self.logits("odd heads", source, target)) <= TOLERANCE

    @torch.no_grad()
    def test_an_old_file(self, ours, folder, tmp_path):
        """All names of the one embedding, tables of sines, keys that nobody reads."""

        def old(saved):
            table = saved["model.shared.weight"]
            for name in ("model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"):
                saved[f"{name}.weight"] = table
            for stack in ("encoder", "decoder"):
                saved[f"model.{stack}.embed_positions.weight"] = torch.randn(64, 36)
            return saved

        keys = {
            "add_bias_logits": False,
            "add_final_layer_norm": False,
            "classif_dropout": 0.0,
            "extra_pos_embeddings": 0,
            "force_bos_token_to_be_generated": False,
            "normalize_before": False,
            "normalize_embedding": False,
            "num_hidden_layers": 2,
            "static_position_embeddings": True,
            "bad_words_ids": [[3]],
            "max_length": 512,
            "num_beams": 6,
        }
        model = zoo.load(f"dir:{rewrite(folder('opus'), old, tmp_path, **keys)}")
        texts = self.texts(model)
        assert torch.equal(model(*texts).logits, ours("opus")(*texts).logits)

    def test_what_is_not_implemented_is_refused_by_name(self, folder):
        path = folder("odd heads")
        assert refuses(path, "normalize_before", True)
        assert refuses(path, "normalize_embedding", True)
        assert refuses(path, "static_position_embeddings", False)
        assert refuses(path, "tie_word_embeddings", False)
        assert refuses(path, "activation_function", "mish")

    @pytest.mark.parametrize(
        "swap", ["encoder.position=learned", "decoder.placement=pre", "head_bias=false"]
    )
    def test_export_refuses_what_marian_cannot_say(self, swap, folder, tmp_path):
        model = zoo.load(f"dir:{folder('odd heads')}", swap, partial=True)
        with pytest.raises(zoo.errors.ConfigError, match="format 'zoo' holds every model"):
            zoo.save(model, tmp_path, format="transformers-marian")
