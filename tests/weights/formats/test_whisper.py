"""Whisper's two public formats, with random weights saved by their own libraries."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from tests.weights.formats.parity import TOLERANCE
from zoo.errors import ConfigError, UnknownName, WeightsError
from zoo.registry import to_mapping

TINY = {
    "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256,
}  # fmt: skip
SMALL = {
    **TINY, "vocab_size": 300, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 2,
    "decoder_start_token_id": 1, "max_source_positions": 50, "max_target_positions": 24,
}  # fmt: skip
CASES = {
    "tiny": TINY,
    "turbo": {**TINY, "num_mel_bins": 128, "vocab_size": 51866, "decoder_layers": 1},
    "english": {**TINY, "vocab_size": 51864},
    "odd": {
        **SMALL, "d_model": 48, "encoder_layers": 1, "decoder_layers": 3, "num_mel_bins": 20,
        "encoder_attention_heads": 3, "decoder_attention_heads": 4, "encoder_ffn_dim": 100,
        "decoder_ffn_dim": 80,
    },
    "relu": {**SMALL, "activation_function": "relu"},
    "gelu_new": {**SMALL, "activation_function": "gelu_new", "encoder_attention_heads": 1},
}  # fmt: skip


def shaken(model):
    """Moves every weight from where its library starts it, but for the encoder's sines."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "decoder.positional_embedding":  # which OpenAI leaves as it finds it
                parameter.zero_()
            if "encoder.embed_positions" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


@pytest.fixture(params=CASES)
def theirs(request, tmp_path):
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    model = shaken(WhisperForConditionalGeneration(WhisperConfig(**CASES[request.param])))
    model.save_pretrained(tmp_path)
    return model


def inputs(config, length=11):
    torch.manual_seed(1)
    features = torch.randn(2, config.sound.bins, config.sound.frames)
    return features, torch.randint(0, min(config.vocabulary, 50000), (2, length))


@torch.inference_mode()
def test_transformers(theirs, tmp_path):
    ours = zoo.load(f"dir:{tmp_path}")
    features, tokens = inputs(ours.config)
    out = theirs(features, decoder_input_ids=tokens, output_hidden_states=False)
    scale = out.logits.abs().max()
    assert (ours(features, tokens).logits - out.logits).abs().max() <= TOLERANCE * scale
    memory = ours.encode(features)
    assert (memory - out.encoder_last_hidden_state).abs().max() <= TOLERANCE * memory.abs().max()
    back = tmp_path / "back"
    zoo.save(ours, back, format="transformers-whisper")
    old, new = load_file(tmp_path / "model.safetensors"), load_file(back / "model.safetensors")
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)
    again = type(theirs).from_pretrained(back)
    same = again(features, decoder_input_ids=tokens).logits
    torch.testing.assert_close(same, out.logits, rtol=0, atol=1e-6)  # two ways to write gelu_new
    assert to_mapping(zoo.load(f"dir:{back}").config) == to_mapping(ours.config)


@torch.inference_mode()
@pytest.mark.parametrize("vocabulary", [51865, 51864])
def test_a_hundred_greedy_tokens(vocabulary, tmp_path):
    """Token for token, against both libraries, on the same random weights."""
    from transformers import WhisperForConditionalGeneration
    from whisper import DecodingOptions, decode
    from whisper.model import ModelDimensions, Whisper
    from whisper.tokenizer import get_tokenizer

    from zoo.generation.loop import decode as ours_decode
    from zoo.generation.schema import DecodingOptions as Options
    from zoo.models.text.steps import Seq2SeqSteps

    torch.manual_seed(0)
    openai = shaken(Whisper(ModelDimensions(80, 1500, 64, 2, 2, vocabulary, 448, 64, 2, 2)))
    torch.save(
        {"dims": dataclasses.asdict(openai.dims), "model_state_dict": openai.state_dict()},
        tmp_path / "tiny.pt",
    )
    ours = zoo.load(f"dir:{tmp_path}", allow_pickle=True)
    zoo.save(ours, tmp_path / "hf", format="transformers-whisper")
    features, _ = inputs(ours.config)
    layout = ours.config.layout
    prompt = torch.tensor([layout.prompt("en", "transcribe", False)])
    found = ours_decode(
        Seq2SeqSteps(ours, features[:1]), prompt, Options(max_new_tokens=100), [layout.end]
    ).tokens[0]
    options = DecodingOptions(
        fp16=False, language="en", without_timestamps=True, sample_len=100,
        suppress_tokens="", suppress_blank=False,
    )  # fmt: skip
    task = {get_tokenizer(vocabulary > 51864, language="en", task="transcribe").transcribe}
    if not task & set(found):  # which openai-whisper never writes
        assert found[:100] == decode(openai, features[0], options).tokens[:100]
    hf = WhisperForConditionalGeneration.from_pretrained(tmp_path / "hf").eval()
    tokens = prompt
    for _ in range(100):
        scores = hf(features[:1], decoder_input_ids=tokens).logits[:, -1]
        tokens = torch.cat([tokens, scores.argmax(-1, keepdim=True)], dim=1)
        if int(tokens[0, -1]) == layout.end:
            break
    assert tokens[0, prompt.shape[1] :].tolist() == found


@torch.inference_mode()
@pytest.mark.parametrize("sizes", [(80, 2, 2, 2, 51865), (128, 4, 1, 3, 51866)])
def test_openai(sizes, tmp_path):
    from whisper.model import ModelDimensions, Whisper

    bins, heads, layers, text_layers, vocabulary = sizes
    torch.manual_seed(0)
    dims = ModelDimensions(bins, 1500, 48, heads, layers, vocabulary, 100, 48, heads, text_layers)
    model = shaken(Whisper(dims))
    state = {"dims": dataclasses.asdict(dims), "model_state_dict": model.state_dict()}
    torch.save(state, tmp_path / "tiny.pt")
    with pytest.raises(UnknownName, match=r"tiny\.pt may, with allow_pickle=True"):
        zoo.load(f"dir:{tmp_path}")
    ours = zoo.load(f"dir:{tmp_path}", allow_pickle=True)
    features, tokens = inputs(ours.config)
    expected = model(features, tokens)
    assert (
        ours(features, tokens).logits - expected
    ).abs().max() <= TOLERANCE * expected.abs().max()
    back = tmp_path / "back"
    zoo.save(ours, back, format="openai-whisper")
    new = load_file(back / "model.safetensors")
    assert new.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, new[name]) for name, tensor in model.state_dict().items())
    assert Whisper(ModelDimensions(**json.loads((back / "config.json").read_text())["dims"]))
    assert to_mapping(zoo.load(f"dir:{back}").config) == to_mapping(ours.config)


@torch.inference_mode()
def test_a_pickled_checkpoint_of_transformers_needs_the_flag(tmp_path):
    """As openai/whisper-* and old fine-tunings lie on the hub: `pytorch_model.bin`."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    theirs = shaken(WhisperForConditionalGeneration(WhisperConfig(**SMALL)))
    theirs.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin is a pickle.*allow_pickle=True"):
        zoo.load(f"dir:{tmp_path}")
    ours = zoo.load(f"dir:{tmp_path}", allow_pickle=True)
    features, tokens = inputs(ours.config, 5)
    expected = theirs(features, decoder_input_ids=tokens).logits
    found = ours(features, tokens).logits
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


SHAPES = {  # node: (keys of OpenAI's file, parameters there), counted in its own models
    "whisper-tiny": (167, 37_184_640),
    "whisper-base": (245, 71_825_920),
    "whisper-small": (479, 240_582_912),
    "whisper-medium": (947, 762_321_920),
    "whisper-large-v2": (1259, 1_541_384_960),
    "whisper-large-v3": (1259, 1_541_570_560),
    "whisper-large-v3-turbo": (587, 806_958_080),
}


@pytest.mark.parametrize("name", SHAPES)
def test_nodes_have_the_published_shapes(name):
    from zoo.weights.formats import find_format

    model = zoo.create(name, device="meta")
    weight_map = find_format("openai-whisper", "whisper").weight_map(model.config)
    names = [public for ours in model.state_dict() for public in weight_map.origin(ours)]
    sines = 1  # a table that is computed
    keys, parameters = SHAPES[name]
    assert len(names) + sines == keys
    widths = [(m.config.depth, m.config.width) for m in (model.encoder, model.decoder)]
    keyless = widths[0][0] * widths[0][1] + 2 * widths[1][0] * widths[1][1]  # biases of keys
    assert sum(p.numel() for p in model.parameters()) - keyless == parameters


def test_what_the_format_does_not_know_is_refused(tmp_path):
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    WhisperForConditionalGeneration(WhisperConfig(**SMALL)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())

    def with_(**changes):
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))

    with_(scale_embedding=True)
    with pytest.raises(ConfigError, match="'scale_embedding' = True is not supported"):
        zoo.load(f"dir:{tmp_path}")
    with_(rotary=True)
    with pytest.raises(ConfigError, match="'rotary' is not known"):
        zoo.load(f"dir:{tmp_path}")
    with_(max_source_positions=51)
    with pytest.raises(ConfigError, match="51 positions of 320 samples are no whole seconds"):
        zoo.load(f"dir:{tmp_path}")
    with_()
    state = load_file(tmp_path / "model.safetensors")
    state["model.encoder.embed_positions.weight"] += 0.1
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"embed_positions\.weight' holds other values than"):
        zoo.load(f"dir:{tmp_path}")


def test_what_the_format_cannot_say_is_refused(tmp_path):
    model = zoo.create("whisper-digits", "encoder.position=rope", seed=0)
    for format in ("transformers-whisper", "openai-whisper"):
        with pytest.raises(ConfigError, match="no word for position"):
            zoo.save(model, tmp_path, format=format)
