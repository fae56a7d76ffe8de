"""What `zoo export` writes is what other engines convert and load: CTranslate2 decodes the same
tokens as we do, and transformers finds every file that vLLM and llama.cpp look for."""

import json

import ctranslate2
import numpy as np
import pytest
import torch

import zoo
from zoo.cli import main
from zoo.generation.loop import decode
from zoo.generation.schema import options
from zoo.models.text.steps import CausalSteps, Seq2SeqSteps

transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TEXT, COUNT = "import os, sys", 16
TOKENIZER = {"name": "stdlib-bpe", "special": {"unk": "<|endoftext|>"}}
SMALL = {"depth": 2, "width": 32, "attention.heads": 4, "feedforward.hidden": 64, "length": 64}
STACK = {f"backbone.{key}": value for key, value in SMALL.items()}
PAIR = {f"{s}.{key}": value for s in ("encoder", "decoder") for key, value in SMALL.items()}
PAIR["decoder.cross_attention.heads"] = 4
T5 = {**PAIR, **{f"{s}.attention.head_dim": 8 for s in ("encoder", "decoder")}}
T5 |= {"decoder.cross_attention.head_dim": 8, "special": {"pad": 2, "eos": 0, "start": 2}}
PENALTY = 3.0  # or a tied head would say one token for ever
PAD = 4096  # a row of Marian's own, after the tokenizer's


CASES = {
    "gpt2": STACK,
    "llama-3.2-1b": {**STACK, "backbone.attention.kv_heads": 2},
    "qwen2-0.5b": {**STACK, "backbone.attention.kv_heads": 2},
    "t5-small": {**T5, "head_scale": 32**-0.5},
    "t5-v1.1-small": T5,
    "opus-mt-en-de": {**PAIR, "special": {"eos": 0, "pad": PAD, "start": PAD}},
    "bert-base-uncased": STACK,
}


def make(name):
    marian = name == "opus-mt-en-de"
    given = {**CASES[name], "vocabulary": 4096 + marian, "tokenizer": TOKENIZER}
    model = zoo.create(name, given, seed=0).eval()
    with torch.no_grad():  # far from uniform: small differences must not change a choice
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
        if marian:  # whose decoder starts from nothing, and never says it
            model.embedding.table.weight[PAD] = 0
            model.head.bias[PAD] = -1e4
    return model


@pytest.fixture(scope="module", params=CASES)
def exported(request, tmp_path_factory):
    """(model, folder that the command exported it to)"""
    folder = tmp_path_factory.mktemp("export")
    model = make(request.param)
    zoo.save(model, folder / "ours")
    assert main(["export", f"dir:{folder / 'ours'}", str(folder / "public")]) == 0
    return model, folder / "public"


def greedy(model, ids):
    wanted = options(max_new_tokens=COUNT, repetition_penalty=PENALTY)
    with torch.inference_mode():
        if model.config.zoo_kind == "seq2seq":
            steps = Seq2SeqSteps(model, torch.tensor([ids]))
            prompt = torch.tensor([[model.config.special["start"]]])
        else:
            steps, prompt = CausalSteps(model), torch.tensor([ids])
        (found,) = decode(steps, prompt, wanted, model.ends(wanted)).tokens
    return found


def test_ctranslate2_decodes_the_same(exported, tmp_path):
    model, folder = exported
    if model.config.zoo_kind == "masked-lm":
        pytest.skip("an encoder decodes nothing; its vectors are compared below")
    ctranslate2.converters.TransformersConverter(str(folder)).convert(str(tmp_path / "ct2"))
    where = {"device": "cpu", "compute_type": "float32", "intra_threads": 1}
    ids = model.tokenizer.encode(TEXT)
    pieces = [model.tokenizer.id_to_token(i) for i in ids]
    if model.config.zoo_kind == "seq2seq":
        translator = ctranslate2.Translator(str(tmp_path / "ct2"), **where)
        (answer,) = translator.translate_batch(
            [pieces],
            beam_size=1,
            max_decoding_length=COUNT,
            return_end_token=True,
            repetition_penalty=PENALTY,
        )
        found = [model.tokenizer.token_to_id(piece) for piece in answer.hypotheses[0]]
    else:
        generator = ctranslate2.Generator(str(tmp_path / "ct2"), **where)
        (answer,) = generator.generate_batch(
            [pieces],
            max_length=COUNT,
            sampling_topk=1,
            include_prompt_in_result=False,
            repetition_penalty=PENALTY,
        )
        found = answer.sequences_ids[0]
    expected = greedy(model, ids)
    assert len(expected) == COUNT and len(set(expected)) > 2
    assert found == expected


def test_ctranslate2_encodes_the_same(exported, tmp_path):
    model, folder = exported
    if model.config.zoo_kind != "masked-lm":
        pytest.skip("a decoder's tokens are compared above")
    ctranslate2.converters.TransformersConverter(str(folder)).convert(str(tmp_path / "ct2"))
    encoder = ctranslate2.Encoder(str(tmp_path / "ct2"), device="cpu", compute_type="float32")
    ids = model.tokenizer.encode(TEXT)
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).hidden
    found = torch.from_numpy(np.array(encoder.forward_batch([ids]).last_hidden_state))
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_transformers_finds_every_file(exported):
    """What vLLM and llama.cpp's converter read: config, tokenizer, safetensors, by their usual
    names."""
    model, folder = exported
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= {
        file.name for file in folder.iterdir()
    }
    config = transformers.AutoConfig.from_pretrained(folder)
    (architecture,) = config.architectures
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer(TEXT)["input_ids"] == model.tokenizer.encode(TEXT)
    theirs, report = getattr(transformers, architecture).from_pretrained(
        folder, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    said = json.loads((folder / "config.json").read_text())
    if model.config.zoo_kind == "causal-lm":
        assert said["eos_token_id"] is not None  # or a server would never stop
        ids = torch.tensor([model.tokenizer.encode(TEXT)])
        with torch.inference_mode():
            torch.testing.assert_close(
                theirs.eval()(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4
            )
    if said["model_type"] == "gpt2":
        assert said["n_ctx"] == 64  # llama.cpp's name of it
