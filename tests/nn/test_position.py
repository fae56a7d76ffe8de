"""Positions on the input, on queries and keys, and on the scores."""

import math

import numpy as np
import pytest
import torch

from zoo.errors import ConfigError
from zoo.nn.position import Geometry, Where, alibi_slopes, rotate
from zoo.registry import build, resolve

N, WIDTH, HEADS, HEAD = 7, 16, 4, 8


def make(value, **keys):
    geometry = Geometry(**{"width": WIDTH, "heads": HEADS, "head_dim": HEAD, **keys})
    position = build(resolve("position", value), geometry=geometry)
    if hasattr(position, "reset_parameters"):
        position.reset_parameters()
    return position


def where(*rows, keys=None):
    queries = torch.tensor(rows or [list(range(N))])
    return Where(queries, queries if keys is None else torch.tensor([keys]))


# -- on the input ----------------------------------------------------------------------------------


def test_learned_adds_rows():
    position = make({"name": "learned", "length": 10})
    x = torch.randn(2, 3, WIDTH)
    rows = position.weight[torch.tensor([[0, 1, 2], [4, 4, 9]])]
    torch.testing.assert_close(position.embed(x, where([0, 1, 2], [4, 4, 9])), x + rows)


def test_learned_offset_leaves_the_first_rows_alone():
    position = make({"name": "learned", "length": 10, "offset": 2})
    assert position.weight.shape == (12, WIDTH)
    x = torch.zeros(1, 3, WIDTH)
    torch.testing.assert_close(position.embed(x, where([0, 1, 2]))[0], position.weight[2:5])


def test_learned_takes_its_length_from_the_stack():
    assert make("learned", length=12).weight.shape == (12, WIDTH)
    assert make("learned", grid=(3, 4), prefix=1).weight.shape == (13, WIDTH)
    with pytest.raises(ConfigError, match="needs a length"):
        make("learned")


def test_learned_refuses_what_it_has_no_row_for():
    position = make({"name": "learned", "length": 4})
    x = torch.zeros(1, 5, WIDTH)
    with pytest.raises(ConfigError, match="5 tokens exceed the 4 positions"):
        position.embed(x, where([0, 1, 2, 3, 4]))
    # also one token at a time, with a cache
    with pytest.raises(ConfigError, match="5 tokens exceed the 4 positions"):
        position.embed(x[:, :1], where([4], keys=[0, 1, 2, 3, 4]))
    position.embed(x, where([0, 0, 1, 2, 3]))  # padding takes no row


@pytest.mark.parametrize("spacing", ["paper", "tensor2tensor"])
@pytest.mark.parametrize("layout", ["split", "interleaved"])
@pytest.mark.parametrize("offset", [0, 2])
def test_sinusoidal_is_the_formula(spacing, layout, offset):
    position = make({"name": "sinusoidal", "spacing": spacing, "layout": layout, "offset": offset})
    half = WIDTH // 2
    expected = torch.zeros(N, WIDTH)
    for n in range(N):
        for i in range(half):
            exponent = 2 * i / WIDTH if spacing == "paper" else i / (half - 1)
            angle = (n + offset) / 10000**exponent
            sine, cosine = (i, half + i) if layout == "split" else (2 * i, 2 * i + 1)
            expected[n, sine], expected[n, cosine] = math.sin(angle), math.cos(angle)
    x = torch.randn(2, N, WIDTH)
    torch.testing.assert_close(position.embed(x, where()), x + expected, atol=1e-5, rtol=1e-5)


def test_sinusoidal_refuses_an_odd_width():
    with pytest.raises(ConfigError, match="even width"):
        make("sinusoidal", width=15)


# -- on queries and keys ---------------------------------------------------------------------------


def complex_rotation(x, positions, frequencies):
    """Rotary positions as the paper writes them: pairs of channels as complex numbers."""
    half = len(frequencies)
    pairs = torch.complex(x[..., :half], x[..., half : 2 * half])
    angle = positions[:, None] * frequencies
    turned = pairs * torch.complex(angle.cos(), angle.sin())
    return torch.cat([turned.real, turned.imag, x[..., 2 * half :]], -1)


@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_rope_turns_pairs_of_channels(fraction, theta):
    position = make({"name": "rope", "theta": theta, "fraction": fraction})
    channels = int(HEAD * fraction)
    frequencies = theta ** -(torch.arange(0, channels, 2).float() / channels)
    x = torch.randn(2, HEADS, N, HEAD)
    found = rotate(x, *position.angles(where(), torch.float32))
    expected = complex_rotation(x, torch.arange(N).float(), frequencies)
    torch.testing.assert_close(found, expected)


def test_rope_scores_depend_on_the_distance_alone():
    position = make("rope")
    q, k = torch.randn(1, 1, 1, HEAD), torch.randn(1, 1, 1, HEAD)

    def score(i, j):
        turned_q = rotate(q, *position.angles(where([i]), torch.float32))
        turned_k = rotate(k, *position.angles(where([j]), torch.float32))
        return (turned_q * turned_k).sum()

    for shift in (1, 5, 40):
        torch.testing.assert_close(score(3, 1), score(3 + shift, 1 + shift), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(score(3, 1), score(3, 2))


def test_rope_needs_pairs():
    with pytest.raises(ConfigError, match="in pairs, got 3"):
        make({"name": "rope", "fraction": 0.375})
    with pytest.raises(ConfigError, match="dynamic"):
        make({"name": "rope", "scaling": "dynamic"}, head_dim=2)


SCALINGS = {
    "linear": ({"factor": 4.0}, {"factor": 4.0}),
    "dynamic": ({"factor": 2.0, "original_length": 16}, {"factor": 2.0}),
    "llama3": (
        {
            "factor": 8.0,
            "original_length": 16,
            "low_frequency_factor": 1.5,
            "high_frequency_factor": 5.0,
        },
        {
            "factor": 8.0,
            "original_max_position_embeddings": 16,
            "low_freq_factor": 1.5,
            "high_freq_factor": 5.0,
        },
    ),
    "yarn": (
        {"factor": 4.0, "original_length": 16},
        {"factor": 4.0, "original_max_position_embeddings": 16},
    ),
    "yarn with all keys": (
        {
            "factor": 3.0,
            "original_length": 64,
            "beta_fast": 20.0,
            "beta_slow": 2.0,
            "attention_factor": 1.2,
        },
        {
            "factor": 3.0,
            "original_max_position_embeddings": 64,
            "beta_fast": 20.0,
            "beta_slow": 2.0,
            "attention_factor": 1.2,
        },
    ),
}


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("length", [10, 40])
@pytest.mark.parametrize("head", [8, 64])
def test_rope_scalings_are_transformers(name, length, head):
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    ours, theirs = SCALINGS[name]
    kind = name.split()[0]
    position = make({"name": "rope", "scaling": kind, "theta": 5000.0, **ours}, head_dim=head)
    config = transformers.LlamaConfig(
        hidden_size=4 * head,
        num_attention_heads=4,
        max_position_embeddings=16,
        rope_parameters={"rope_type": kind, "rope_theta": 5000.0, **theirs},
    )
    frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=length)
    found, found_factor = position.frequencies(where(list(range(length))))
    torch.testing.assert_close(found.squeeze(), frequencies)
    assert found_factor == pytest.approx(factor)
    cos, sin = position.angles(where([length - 1], keys=list(range(length))), torch.float32)
    angle = (length - 1) * torch.cat([frequencies, frequencies])
    torch.testing.assert_close(cos[0, 0, 0], angle.cos() * factor, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sin[0, 0, 0], angle.sin() * factor, atol=1e-5, rtol=1e-5)


def test_dynamic_rope_follows_each_text_of_a_batch():
    position = make({"name": "rope", "scaling": "dynamic", "factor": 2.0, "original_length": 4})
    short, long = [0, 0, 0, 0, 1, 2, 3], list(range(7))
    both, _ = position.frequencies(where(short, long))
    torch.testing.assert_close(both[0, 0], make("rope").frequencies(where())[0])
    torch.testing.assert_close(both[1, 0], position.frequencies(where(long))[0][0, 0])
    assert both[0, 0, 1] != both[1, 0, 1]


@pytest.mark.parametrize(("grid", "head"), [((2, 3), HEAD), ((2, 2, 3), 12)])
def test_rope_grid_turns_an_equal_share_with_every_axis(grid, head):
    position = make("rope-grid", head_dim=head, grid=grid, prefix=1)
    count = 1 + math.prod(grid)
    places = torch.arange(count)[None]
    cos, sin = position.angles(Where(places, places, grid, 1), torch.float32)
    pairs = head // (2 * len(grid))
    frequency = 100.0 ** -(torch.arange(pairs) / pairs)
    for token in range(count):
        place = (0,) * len(grid) if token == 0 else np.unravel_index(token - 1, grid)
        angle = torch.cat([int(axis) * frequency for axis in place])
        angle = torch.cat([angle, angle])
        torch.testing.assert_close(cos[0, 0, token], angle.cos())
        torch.testing.assert_close(sin[0, 0, token], angle.sin())


def test_rope_grid_refuses_heads_that_the_axes_do_not_divide():
    with pytest.raises(ConfigError, match="needs head_dim divisible by 6, got 8"):
        make("rope-grid", head_dim=8, grid=(2, 2, 2))


# -- on the scores ---------------------------------------------------------------------------------


def test_alibi_slopes_of_the_paper():
    torch.testing.assert_close(alibi_slopes(8), torch.tensor([2.0**-i for i in range(1, 9)]))
    torch.testing.assert_close(
        alibi_slopes(16), torch.tensor([2.0 ** -(i / 2) for i in range(1, 17)])
    )
    # not a power of two: the series of the next lower one, then every other of the next higher one
    expected = [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]
    torch.testing.assert_close(alibi_slopes(6), torch.tensor(expected))


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 16, 40, 71, 112])
def test_alibi_slopes_are_blooms_and_mpts(heads):
    pytest.importorskip("transformers")
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

    bloom = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)
    torch.testing.assert_close(alibi_slopes(heads), bloom[:, 0, 1])
    mpt = build_mpt_alibi_tensor(heads, 2)
    torch.testing.assert_close(alibi_slopes(heads), -mpt[:, 0, 0])


def test_alibi_grows_with_the_distance():
    position = make("alibi")
    bias = position.bias(where([5, 6], keys=list(range(7))), torch.float32)
    assert bias.shape == (1, HEADS, 2, 7)
    for head, slope in enumerate(alibi_slopes(HEADS)):
        for row, query in enumerate((5, 6)):
            distances = (torch.arange(7) - query).abs()
            torch.testing.assert_close(bias[0, head, row], -slope * distances)


@pytest.mark.parametrize("value", ["rope", "alibi", "learned", "sinusoidal"])
def test_a_position_acts_in_one_place(value):
    position = make(value, length=N)
    x = torch.randn(1, N, WIDTH)
    acts = (
        not torch.equal(position.embed(x, where()), x),
        position.angles(where(), torch.float32) is not None,
        position.bias(where(), torch.float32) is not None,
        position.layer_part() is not None,
    )
    assert sum(acts) == 1


def test_alibi_as_falcon_rw_was_trained_rounds_slope_and_place():
    value = {"name": "alibi", "factor": 0.25, "rounding": "bfloat16"}
    bias = make(value, heads=6).bias(where([5, 300], keys=list(range(301))), torch.float32)
    assert bias.shape == (1, 6, 1, 301)
    slopes = alibi_slopes(6).bfloat16()
    for key in (0, 7, 257, 300):
        expected = (slopes * torch.tensor(float(key)).bfloat16()).float() * 0.25
        torch.testing.assert_close(bias[0, :, 0, key], expected)
    # what a softmax makes of it is ALiBi as far as bf16 can count
    plain = make({"name": "alibi", "factor": 0.25}).bias(where([5], keys=[2, 3, 5]), torch.float32)
    rounded = make(value).bias(where([5], keys=[2, 3, 5]), torch.float32)
    torch.testing.assert_close(rounded.softmax(-1), plain.softmax(-1))
