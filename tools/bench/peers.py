"""Our weights in other engines, as a user of each would run them: `decoder(prompt, count)` returns
`count` greedy tokens."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = [
    "ctranslate2_encoder",
    "ctranslate2_model",
    "ctranslate2_tokens",
    "installed",
    "reference",
    "reference_tokens",
]

Decoder = Callable[[list[int], int], list[int]]


def installed(peers: list[str]) -> list[str]:
    """Returns those peers whose package is there."""
    return [p for p in peers if importlib.util.find_spec(p) is not None]


def reference(folder: str, dtype: Any, seq2seq: bool = False) -> Any:
    """Returns transformers' model of a folder, as it is fastest on a CPU: SDPA, in eval mode."""
    import transformers

    auto = transformers.AutoModelForSeq2SeqLM if seq2seq else transformers.AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()


def reference_tokens(model: Any, source: list[int] | None = None) -> Decoder:
    """Returns transformers' `generate`, with its dynamic cache: the faster one on a CPU."""
    import torch

    def tokens(prompt: list[int], count: int) -> list[int]:
        given: dict[str, Any] = {
            "min_new_tokens": count,
            "max_new_tokens": count,
            "do_sample": False,
        }
        ids = torch.tensor([source or prompt])
        if source is not None:
            given["decoder_input_ids"] = torch.tensor([prompt])
        with torch.inference_mode():
            found = model.generate(
                ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **given
            )
        return found[0, -count:].tolist()

    return tokens


def ctranslate2_model(folder: str, quantization: str, seq2seq: bool = False) -> Any:
    """Converts a folder in transformers' layout; tokens are called t0, t1, … there."""
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    vocabulary = json.loads((Path(folder) / "config.json").read_text())["vocab_size"]
    _name_tokens(Path(folder), vocabulary)
    target = f"{folder}-ct2-{quantization}"
    TransformersConverter(folder).convert(target, quantization=quantization, force=True)
    kind = ctranslate2.Translator if seq2seq else ctranslate2.Generator
    return kind(target, device="cpu", compute_type=quantization, intra_threads=1, inter_threads=1)


def ctranslate2_tokens(model: Any, source: list[int] | None = None) -> Decoder:
    """Returns CTranslate2's greedy decoding."""

    def tokens(prompt: list[int], count: int) -> list[int]:
        if source is None:
            (found,) = model.generate_batch(
                [_named(prompt)], max_length=count, min_length=count, include_prompt_in_result=False
            )
            return found.sequences_ids[0][:count]
        (found,) = model.translate_batch(
            [_named(source)], beam_size=1, max_decoding_length=count, min_decoding_length=count
        )
        return [int(t[1:]) for t in found.hypotheses[0]]

    return tokens


def ctranslate2_encoder(folder: str, tokens: Any) -> Callable[[], Any]:
    """Converts BERT, or the encoder of T5, of a folder; returns its hidden states of tokens (b n).

    Its own converter reads no encoder of T5 alone.
    """
    import ctranslate2
    import numpy
    import torch
    import transformers
    from ctranslate2.converters.transformers import _MODEL_LOADERS
    from ctranslate2.specs.transformer_spec import TransformerEncoderModelSpec

    config = transformers.AutoConfig.from_pretrained(folder)
    loader = _MODEL_LOADERS[type(config).__name__]
    kind = getattr(transformers, loader.architecture_name)
    with torch.no_grad():
        model = kind.from_pretrained(folder, dtype=torch.float32)
        spec = loader.get_model_spec(model)
    if config.is_encoder_decoder:
        spec = TransformerEncoderModelSpec(spec.encoder)
    spec.register_vocabulary([f"t{i}" for i in range(config.vocab_size)])
    spec.validate()
    spec.optimize("float32")
    target = Path(f"{folder}-ct2-encoder")
    target.mkdir()
    spec.save(str(target))
    encoder = ctranslate2.Encoder(str(target), device="cpu", intra_threads=1, inter_threads=1)
    given = ctranslate2.StorageView.from_array(tokens.int().numpy())
    lengths = numpy.full(len(tokens), tokens.shape[1], dtype="int32")
    lengths = ctranslate2.StorageView.from_array(lengths)

    def hidden() -> Any:
        found = encoder.forward_batch(given, lengths).last_hidden_state
        return torch.from_numpy(numpy.array(found))

    return hidden


def _named(tokens: list[int]) -> list[str]:
    return [f"t{token}" for token in tokens]


def _name_tokens(folder: Path, vocabulary: int) -> None:
    """Writes the tokenizer that the converter insists on: a word for every id."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"t{i}": i for i in range(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="t2"))
    special = {"unk_token": "t2", "bos_token": "t1", "eos_token": "t1", "pad_token": "t0"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
