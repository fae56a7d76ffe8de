"""MaskGIT in open-muse's layout. open-muse is on no package index, so `maskgit.json` holds what its
own code (commit 64e1afe033) gives, on a CPU in fp32, for weights and inputs that `wave` makes."""

import json
import math
import zlib
from pathlib import Path

import pytest
import torch

import zoo
from zoo.errors import ConfigError
from zoo.models.base import build_empty
from zoo.registry import resolve
from zoo.weights.files import save_weights
from zoo.weights.formats import find_format

GOLDEN = json.loads((Path(__file__).parent / "maskgit.json").read_text())
TOKENIZER, TRANSFORMER = "open-muse-maskgit-vqgan", "open-muse-maskgit"
KINDS = {TOKENIZER: "visual-codes", TRANSFORMER: "generator"}


def wave(name, shape):
    """Numbers that depend on a name and a shape alone, of weights that keep activations alive."""
    count = math.prod(shape)
    speed = 0.3 + (zlib.crc32(name.encode()) % 1000) / 500
    values = torch.sin(torch.arange(1, count + 1, dtype=torch.float64) * speed)
    fan = count / shape[0] if len(shape) > 1 else 25
    values = values * (2.0 if "embedding" in name else 1.5 / math.sqrt(fan))
    scales = "norm" in name or "_ln" in name
    return (values + (scales and name.endswith("weight"))).float().view(shape)


def fingerprint(shapes):
    """A number for names and shapes of a state dict."""
    return zlib.crc32(json.dumps(sorted((n, list(s)) for n, s in shapes.items())).encode())


def loaded(name, content, folder):
    """Our model of a public config with waves for weights, from a folder as the hub has it."""
    chosen = find_format(name, KINDS[name])
    config = resolve("model", {"kind": KINDS[name], **chosen.read_config(content, ())})
    empty = build_empty(config).to_empty(device="cpu")
    shapes = {n: t.shape for n, t in chosen.weight_map(config).export(empty.state_dict()).items()}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(content))
    state = {n: wave(n, tuple(shape)) for n, shape in shapes.items()}
    save_weights(state, folder / "pytorch_model.safetensors")
    return zoo.load(f"dir:{folder}"), shapes, state


def close(found, expected, allowed=1e-5):
    expected = torch.tensor(expected)
    assert (found.flatten() - expected).abs().max() <= allowed * expected.abs().max()


@pytest.mark.parametrize("case", [c for c in GOLDEN if "codes" in GOLDEN[c]])
def test_the_tokenizer_is_open_muse_s(case, tmp_path):
    golden = GOLDEN[case]
    ours, shapes, state = loaded(TOKENIZER, golden["config"], tmp_path / "theirs")
    assert fingerprint(shapes) == golden["names"]
    side = golden["config"]["resolution"]
    pixels = (wave("pixels", (2, 3, side, side)) / 2 + 0.5).clamp(0, 1)
    ids = ours.encode(pixels).ids
    assert ids.flatten().tolist() == golden["codes"] and len(set(golden["codes"])) > 4
    found = ours.decode(ids)
    close(found.flatten()[:: golden["stride"]], golden["pixels"])
    zoo.save(ours, tmp_path / "back", format="public")
    from safetensors.torch import load_file

    back = load_file(tmp_path / "back" / "pytorch_model.safetensors")
    assert back.keys() == state.keys() and all(torch.equal(back[n], state[n]) for n in state)


@pytest.mark.parametrize("case", [c for c in GOLDEN if "logits" in GOLDEN[c]])
def test_the_transformer_is_open_muse_s(case, tmp_path):
    golden = GOLDEN[case]
    ours, shapes, state = loaded(TRANSFORMER, golden["config"], tmp_path / "theirs")
    assert fingerprint(shapes) == golden["names"]
    codes = torch.tensor(golden["tokens"])
    codes = torch.where(codes < 0, ours.mask_code, codes)
    with torch.no_grad():
        logits = ours(codes, labels=torch.tensor(golden["labels"])).logits
    # the reference's fp32 is itself 1e-5 away from what double precision gives
    close(logits.flatten()[:: golden["stride"]], golden["logits"], 2e-5)
    zoo.save(ours, tmp_path / "back", format="public")
    from safetensors.torch import load_file

    back = load_file(tmp_path / "back" / "pytorch_model.safetensors")
    assert back.keys() == state.keys() and all(torch.equal(back[n], state[n]) for n in state)
    drawn = ours.draw_codes([1, 2], seed=0, steps=3)
    assert drawn.shape == (2, codes.shape[1]) and int(drawn.max()) < ours.config.codebook
    with pytest.raises(ConfigError, match="No class is none in this model"):
        ours.draw_codes([1], guidance=2.0)


def test_the_nodes_are_the_published_shapes():
    content = {"_class_name": "MaskGitVQGAN"}
    chosen = find_format(TOKENIZER, "visual-codes")
    found = resolve("model", {"kind": "visual-codes", **chosen.read_config(content, ())})
    node = zoo.config("maskgit-vqgan-imagenet-f16-256")
    assert chosen.write_config(found) == chosen.write_config(node)
    assert (node.codebook_size, node.grid((256, 256))) == (1024, (16, 16))
    content = {
        "vocab_size": 2048, "max_position_embeddings": 264, "num_hidden_layers": 24,
        "num_attention_heads": 16, "num_classes": 1000, "layer_norm_eps": 1e-6,
    }  # fmt: skip
    chosen = find_format(TRANSFORMER, "generator")
    found = resolve("model", {"kind": "generator", **chosen.read_config(content, ())})
    node = zoo.config("maskgit-openmuse-256", visual=None, image=None, codes=1024, grid=[16, 16])
    assert chosen.write_config(found) == chosen.write_config(node)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (TOKENIZER, {"num_res_blocks": 3}, "'num_res_blocks' = 3 is not supported"),
        (TOKENIZER, {"quantized_embed_dim": 64}, "'quantized_embed_dim' = 64"),
        (TRANSFORMER, {"num_classes": None}, "'num_classes' = None: read here is what draws"),
        (TRANSFORMER, {"num_vq_tokens": 60}, "'num_vq_tokens' = 60"),
        (TRANSFORMER, {"vocab_size": 2024}, "'vocab_size' = 2024 has no room for a mask"),
        (TRANSFORMER, {"add_cross_attention": True}, "'add_cross_attention' = True"),
        (TRANSFORMER, {"norm_type": "batch"}, "'norm_type' = 'batch'"),
    ],
)
def test_what_is_another_model_is_refused(name, change, message):
    base = {} if name == TOKENIZER else {"vocab_size": 2048, "num_classes": 1000}
    with pytest.raises(ConfigError, match=message):
        find_format(name, KINDS[name]).read_config({**base, **change}, ())


def test_an_export_refuses_what_it_has_no_word_for():
    for name, model, override, message in (
        (TOKENIZER, "maskgit-vqgan-imagenet-f16-256", "encoder.halving=convolution", "halving"),
        (TOKENIZER, "vqgan-imagenet-f16-1024", "channels=3", "has no word for span"),
        (TRANSFORMER, "maskgit-openmuse-256", "classes=1000", "visual: format"),
    ):
        chosen = find_format(name, KINDS[name])
        with pytest.raises(ConfigError, match=message):
            chosen.write_config(zoo.config(model, override))
