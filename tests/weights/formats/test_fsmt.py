"""FSMT (wmt19) against transformers."""

import pytest
import torch

import zoo
from tests.weights.formats.pairs import PairTests
from tests.weights.formats.parity import refuses, rewrite, tensors

_TINY = {
    "langs": ["de", "en"],
    "src_vocab_size": 53,
    "tgt_vocab_size": 61,
    "d_model": 36,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 50,
    "decoder_ffn_dim": 50,
    "max_position_embeddings": 64,
}
_ONE = {"tgt_vocab_size": 53, "tie_word_embeddings": True}


class TestFSMT(PairTests):
    names = {None: ("FSMTConfig", "FSMTForConditionalGeneration")}
    pads = {None: 1, "other padding": 3}
    not_written = ("embed_positions.weight",)  # sines, which both sides compute
    cases = {
        "two vocabularies": _TINY,
        "one embedding": {**_TINY, **_ONE},
        "one size, three matrices": {**_TINY, "tgt_vocab_size": 53},
        "uneven stacks": {
            **_TINY,
            "encoder_layers": 3,
            "decoder_layers": 1,
            "encoder_attention_heads": 9,
            "decoder_attention_heads": 1,
            "encoder_ffn_dim": 70,
        },
        "gelu": {**_TINY, "activation_function": "gelu"},
        "swish, not scaled": {
            **_TINY,
            **_ONE,
            "activation_function": "swish",
            "scale_embedding": False,
        },
        "other padding": {**_TINY, "pad_token_id": 3},
    }
    nodes = {
        "wmt19-de-en-6-6-base": (
            "FSMTConfig",
            "FSMTForConditionalGeneration",
            {
                "tie_word_embeddings": True,
                "d_model": 512,
                "encoder_layers": 6,
                "decoder_layers": 6,
                "encoder_attention_heads": 8,
                "decoder_attention_heads": 8,
                "encoder_ffn_dim": 2048,
                "decoder_ffn_dim": 2048,
            },
            65_654_784,
        ),
        "wmt19-en-de": (
            "FSMTConfig",
            "FSMTForConditionalGeneration",
            {
                "tie_word_embeddings": True,
                "encoder_layers": 6,
                "decoder_layers": 6,
                "encoder_ffn_dim": 8192,
            },
            269_746_176,
        ),
    }

    @torch.no_grad()
    def test_a_pickled_file_of_the_hub(self, ours, folder, tmp_path):
        """All names of the one embedding share storage; tables of sines are in it."""
        content = tensors(folder("one embedding"))
        table = content["model.decoder.embed_tokens.weight"]
        for name in ("encoder.embed_tokens", "decoder.output_projection"):
            content[f"model.{name}.weight"] = table
        torch.save(content, tmp_path / "pytorch_model.bin")
        (tmp_path / "config.json").write_text((folder("one embedding") / "config.json").read_text())
        model = zoo.load(f"dir:{tmp_path}", allow_pickle=True)
        texts = self.texts(model)
        assert torch.equal(model(*texts).logits, ours("one embedding")(*texts).logits)
        assert "embed_positions" not in "".join(model.state_dict())

    @torch.no_grad()
    def test_without_a_head_the_targets_embedding_serves(self, ours, folder, tmp_path):
        """As transformers before version 5 had it."""
        same = "model.decoder.output_projection.weight"

        def headless(saved):
            return {key: tensor for key, tensor in saved.items() if key != same}

        path = rewrite(folder("two vocabularies"), headless, tmp_path / "less")
        model = zoo.load(f"dir:{path}")
        assert model.config.tied and not model.config.shared_embedding

        def headed(saved):
            return {**saved, same: saved["model.decoder.embed_tokens.weight"]}

        whole = zoo.load(f"dir:{rewrite(folder('two vocabularies'), headed, tmp_path / 'whole')}")
        texts = self.texts(model)
        assert torch.equal(model(*texts).logits, whole(*texts).logits)
        with pytest.raises(zoo.errors.ConfigError, match="tied"):
            zoo.save(model, tmp_path / "out", format="transformers-fsmt")

    def test_what_is_not_implemented_is_refused_by_name(self, folder):
        path = folder("two vocabularies")
        assert refuses(path, "normalize_before", True)
        assert refuses(path, "static_position_embeddings", False)
        assert refuses(path, "activation_function", "mish")
        assert refuses(path, "num_hidden_layers", 7)
        assert refuses(path, "tie_word_embeddings", True)  # two sizes cannot be one table

    @pytest.mark.parametrize(
        "swap", ["encoder.position=rope", "decoder.placement=pre", "decoder.norm=rms"]
    )
    def test_export_refuses_what_fsmt_cannot_say(self, swap, folder, tmp_path):
        model = zoo.load(f"dir:{folder('two vocabularies')}", swap, partial=True)
        with pytest.raises(zoo.errors.ConfigError, match="format 'zoo' holds every model"):
            zoo.save(model, tmp_path, format="transformers-fsmt")
