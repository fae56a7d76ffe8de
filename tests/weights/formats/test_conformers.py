"""Parakeet, LASR, Wav2Vec2-Conformer and torchaudio's Conformer: random weights saved by the
reference library give its numbers here, and come back bit for bit."""

import json

import pytest
import torch
from safetensors.torch import save_file

import zoo
from zoo.errors import ConfigError
from zoo.registry import resolve, to_mapping
from zoo.weights.formats import formats

transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "subsampling_conv_channels": 8,
    "num_mel_bins": 40,
}
WAVES = {
    "vocab_size": 17,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [8, 8, 8],
    "conv_kernel": [10, 3, 2],
    "conv_stride": [5, 2, 2],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
T = transformers
CASES = {
    "parakeet-ctc": lambda **keys: T.ParakeetForCTC(
        T.ParakeetCTCConfig(vocab_size=17, pad_token_id=16, encoder_config={**ENCODER, **keys})
    ),
    "parakeet-rnnt": lambda **keys: T.ParakeetForRNNT(
        T.ParakeetRNNTConfig(
            vocab_size=17, blank_token_id=16, decoder_hidden_size=24, encoder_config=ENCODER, **keys
        )
    ),
    "parakeet-tdt": lambda **keys: T.ParakeetForTDT(
        T.ParakeetTDTConfig(
            vocab_size=17, blank_token_id=16, decoder_hidden_size=24, encoder_config=ENCODER, **keys
        )
    ),
    "lasr": lambda **keys: T.LasrForCTC(
        T.LasrCTCConfig(vocab_size=17, encoder_config={**ENCODER, "conv_kernel_size": 8, **keys})
    ),
    "wav2vec2-conformer": lambda **keys: T.Wav2Vec2ConformerForCTC(
        T.Wav2Vec2ConformerConfig(**WAVES, **keys)
    ),
}
UNUSED = ("masked_spec_embed", "pos_conv_embed", "embed_positions")


def randomised(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point() or "inv_freq" in name or "embed_positions" in name:
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif tensor.ndim < 2:
                tensor.add_(0.1 * noise)
            else:
                tensor.copy_(noise / tensor[0].numel() ** 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    kept = {}

    def make(name, **keys):
        key = (name, *sorted(keys.items()))
        if key not in kept:
            torch.manual_seed(0)
            model = randomised(CASES[name](**keys))
            folder = tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            kept[key] = model, folder, zoo.load(f"dir:{folder}")
        return kept[key]

    return make


def inputs(name, batch=1, frames=101):
    generator = torch.Generator().manual_seed(2)
    if name == "wav2vec2-conformer":
        return torch.randn(batch, 40 * frames, generator=generator)
    return torch.randn(batch, frames, 40, generator=generator)


def answers(name, theirs, ours, x, lengths=None):
    """Their logits and ours, for transducers over some labels."""
    keys = {}
    if lengths is not None:
        keys["attention_mask"] = torch.arange(x.shape[1])[None] < lengths[:, None]
    with torch.no_grad():
        if name in ("parakeet-rnnt", "parakeet-tdt"):
            said = torch.arange(5 * len(x)).reshape(len(x), 5) % 16
            begun = torch.cat([torch.full((len(x), 1), 16), said], 1)
            expected = theirs(x, decoder_input_ids=begun, **keys).logits
            return expected, ours(x, lengths, said)
        return theirs(x, **keys).logits, ours(x, lengths)


@pytest.mark.parametrize("name", CASES)
def test_a_whole_utterance_gives_their_logits(stored, name):
    theirs, _, ours = stored(name)
    expected, output = answers(name, theirs, ours, inputs(name))
    assert expected.shape == output.logits.shape
    assert (output.logits - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())


@pytest.mark.parametrize("name", ["parakeet-ctc", "parakeet-rnnt", "parakeet-tdt"])
def test_a_padded_batch_gives_parakeet_s_logits(stored, name):
    theirs, _, ours = stored(name)
    x, lengths = inputs(name, 2), torch.tensor([101, 62])
    expected, output = answers(name, theirs, ours, x, lengths)
    for row, length in enumerate(output.lengths.tolist()):
        assert (output.logits[row, :length] - expected[row, :length]).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("parakeet-ctc", {"subsampling_factor": 4, "scale_input": False, "attention_bias": False}),
        ("parakeet-ctc", {"convolution_bias": False, "conv_kernel_size": 31}),
        ("wav2vec2-conformer", {"position_embeddings_type": None, "conv_bias": True}),
        ("wav2vec2-conformer", {"feat_extract_norm": "layer", "hidden_act": "silu"}),
    ],
)
def test_other_settings_give_their_logits_too(stored, name, keys):
    theirs, _, ours = stored(name, **keys)
    expected, output = answers(name, theirs, ours, inputs(name))
    assert (output.logits - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())


@pytest.mark.parametrize("name", CASES)
def test_padding_changes_nothing(stored, name):
    _, _, ours = stored(name)
    x = inputs(name)
    unit = 40 if name == "wav2vec2-conformer" else 1
    for length in (101, 60, 37):
        alone = x[:, : length * unit]
        longer = torch.cat([alone, 9 * torch.randn(x[:, : 55 * unit].shape)], 1)
        with torch.no_grad():
            expected = ours(alone)
            found = ours(longer, torch.tensor([length * unit]))
        n = int(expected.lengths[0])
        assert int(found.lengths[0]) == n
        assert (found.hidden[:, :n] - expected.hidden[:, :n]).abs().max() <= 1e-5


@pytest.mark.parametrize("name", CASES)
def test_the_round_trip_is_bit_identical(stored, name, tmp_path):
    theirs, _, ours = stored(name)
    zoo.save(ours, tmp_path, format=f"transformers-{name}")
    back = type(theirs).from_pretrained(tmp_path)
    before, after = theirs.state_dict(), back.state_dict()
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        if not any(part in key for part in UNUSED):
            assert torch.equal(tensor, after[key]) and tensor.dtype == after[key].dtype, key
    again = zoo.load(f"dir:{tmp_path}")
    config = to_mapping(ours.config)
    assert to_mapping(again.config) == config


@pytest.mark.parametrize("name", ["parakeet-rnnt", "parakeet-tdt"])
def test_greedy_decoding_gives_their_ids(stored, name):
    from zoo.models.speech.transducer_search import transducer_greedy

    theirs, _, ours = stored(name)
    x = inputs(name, 2)
    with torch.no_grad():
        made = theirs.generate(x, decoder_start_token_id=16, max_length=200)
        hidden, lengths = ours.encode(x)
        found = transducer_greedy(ours, ours.project(hidden), lengths)
    assert any(found)
    for row, labels in zip(made.sequences.tolist(), found):
        spoken = [token for token in row if token not in (16, 2)]  # 2 fills up
        assert [label.index for label in labels if label.index != 2] == spoken


def test_greedy_ctc_gives_their_ids(stored):
    from zoo.models.speech.ctc_search import ctc_greedy

    theirs, _, ours = stored("parakeet-ctc")
    x = inputs("parakeet-ctc", 2)
    with torch.no_grad():
        path = theirs.generate(x)
        found = [ctc_greedy(row.log_softmax(-1), 16) for row in ours(x).logits]
    for row, labels in zip(path.tolist(), found):
        merged = [a for a, b in zip(row, [None, *row[:-1]]) if a != b and a != 16]
        assert [label.index for label in labels] == merged


REFUSED = [
    ("parakeet-ctc", {"dropout_positions": 0.1}, "dropout_positions"),
    ("parakeet-ctc", {"subsampling_conv_stride": 3}, "subsampling_conv_stride"),
    ("parakeet-ctc", {"window_size": 3}, "'window_size' is not known"),
    ("lasr", {"hidden_act": "mish"}, "unknown activation 'mish'"),
    ("lasr", {"conv_residual_weights": [1.0]}, "must be two numbers"),
]


@pytest.mark.parametrize(("name", "change", "words"), REFUSED)
def test_what_is_not_implemented_is_refused_by_name(stored, name, change, words):
    content = json.loads((stored(name)[1] / "config.json").read_text())
    content["encoder_config"] |= change
    with pytest.raises(ConfigError, match=words):
        formats()[f"transformers-{name}"].read_config(content, ())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"position_embeddings_type": "rotary"}, "position_embeddings_type"),
        ({"add_adapter": True}, "add_adapter"),
        ({"layer_norm_eps": 1e-3}, "layer_norm_eps"),
    ],
)
def test_wav2vec2_s_other_settings_are_refused(stored, change, words):
    content = json.loads((stored("wav2vec2-conformer")[1] / "config.json").read_text())
    with pytest.raises(ConfigError, match=words):
        formats()["transformers-wav2vec2-conformer"].read_config({**content, **change}, ())


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("parakeet-ctc", "backbone.position=rope", "position"),
        ("parakeet-ctc", "backbone.convolution.norm=layer", "convolution.norm"),
        ("parakeet-ctc", "sound.filterbank.convention=kaldi", "convention"),
        ("parakeet-ctc", "backbone.attention.window=9", "window"),
        ("wav2vec2-conformer", "backbone.block_norm=false", "block_norm"),
        ("lasr", "backbone.norm.bias=true", "norm.bias"),
    ],
)
def test_an_export_refuses_what_it_cannot_say(stored, name, change, words):
    from zoo.registry.overrides import apply_overrides

    config = resolve("model", apply_overrides(to_mapping(stored(name)[2].config), [change]))
    with pytest.raises(ConfigError, match=words):
        formats()[f"transformers-{name}"].write_config(config)


# -- torchaudio ------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_torchaudio_s_encoder(tmp_path, group, first):
    models = pytest.importorskip("torchaudio.models")
    keys = {
        "input_dim": 16,
        "num_heads": 2,
        "ffn_dim": 32,
        "num_layers": 2,
        "depthwise_conv_kernel_size": 7,
        "use_group_norm": group,
        "convolution_first": first,
    }
    theirs = randomised(models.Conformer(**keys))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    content = {"model_type": "torchaudio-conformer", **keys}
    (tmp_path / "config.json").write_text(json.dumps(content))
    ours = zoo.load(f"dir:{tmp_path}")
    x = torch.randn(1, 30, 16)
    with torch.no_grad():
        expected, _ = theirs(x, torch.tensor([30]))
        assert (ours(x).hidden - expected).abs().max() <= 1e-5
        for length in (30, 17, 3):  # which theirs does not: it moves by 0.1 and more
            longer = torch.cat([x[:, :length], 9 * torch.randn(1, 20, 16)], 1)
            batch = torch.cat([longer, torch.randn_like(longer)])
            found = ours(batch, torch.tensor([length, length + 20]))
            assert found.lengths.tolist() == [length, length + 20]
            alone = ours(x[:, :length]).hidden
            assert (found.hidden[:1, :length] - alone).abs().max() <= 1e-5
    zoo.save(ours, tmp_path / "again", format="torchaudio-conformer")
    from safetensors.torch import load_file

    back = load_file(tmp_path / "again" / "model.safetensors")
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(tensor, back[name]) for name, tensor in theirs.state_dict().items())
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert {k: written[k] for k in content} == content
