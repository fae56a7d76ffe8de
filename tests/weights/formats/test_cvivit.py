"""Public C-ViViTs against the `phenaki_pytorch` package, and against its parts put together as
Obvious Research's fork does, whose weights are public. Both leak in time; ours does not."""

# b clips, t times of the grid, y x rows and columns

import importlib
import importlib.util
import json
import sys
import types

import pytest
import torch

import zoo
from tests.weights.formats.parity import distance
from zoo.errors import ConfigError, WeightsError
from zoo.models.base import build_empty, initialise
from zoo.registry import resolve
from zoo.weights.formats import find_format, format_for
from zoo.weights.load import load_into

pytestmark = pytest.mark.filterwarnings("ignore:.*PEP 484 type hint")

USUAL = {
    "dim": 32,
    "codebook_size": 64,
    "image_size": 32,
    "patch_size": 8,
    "temporal_patch_size": 2,
    "spatial_depth": 2,
    "temporal_depth": 2,
    "dim_head": 16,
    "heads": 2,
}
ODD = {  # name -> (whether it is the fork's, its arguments)
    "package": (False, {}),
    "package, a table": (False, {"lookup_free_quantization": False}),
    "package, six heads and a large clip": (
        False,
        {"heads": 6, "dim_head": 8, "patch_size": 4, "temporal_patch_size": 3, "temporal_depth": 1},
    ),
    "fork": (True, {"codebook_dim": 8}),
    "fork, wide feed-forwards": (True, {"codebook_dim": 32, "ff_mult": 2.7, "dim": 48}),
}


@pytest.fixture(scope="module")
def theirs():
    """The package's modules without its `__init__`, which wants trainers."""
    spec = importlib.util.find_spec("phenaki_pytorch")
    if spec is None:
        pytest.skip("phenaki-pytorch (tools/references.txt) is not installed")
    package = types.ModuleType("phenaki_pytorch")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["phenaki_pytorch"] = package
    yield types.SimpleNamespace(
        cvivit=importlib.import_module("phenaki_pytorch.cvivit"),
        attention=importlib.import_module("phenaki_pytorch.attention"),
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "phenaki_pytorch"]:
        del sys.modules[name]


def make(theirs, fork, keys, seed=0):
    """Returns their model, of random weights that make every part of it matter."""
    from vector_quantize_pytorch import VectorQuantize

    plain = {k: v for k, v in keys.items() if k not in ("codebook_dim", "ff_mult")}
    torch.manual_seed(seed)
    model = theirs.cvivit.CViViT(**plain, use_vgg_and_gan=False)
    if fork:
        width = keys["dim"]
        shared = {"dim": width, "dim_head": keys["dim_head"], "heads": keys["heads"]}
        shared |= {"peg": True, "peg_causal": True, "ff_mult": keys.get("ff_mult", 4.0)}
        for half in ("enc", "dec"):
            for name in ("spatial", "temporal"):
                stack = theirs.attention.Transformer(depth=keys[f"{name}_depth"], **shared)
                setattr(model, f"{half}_{name}_transformer", stack)
        model.vq = VectorQuantize(
            dim=width,
            codebook_size=keys["codebook_size"],
            codebook_dim=keys["codebook_dim"],
            use_cosine_sim=True,
        )
        model.lookup_free_quantization = False
    generator = torch.Generator().manual_seed(seed)
    unused = ("context_norm", "beta", "_codebook")
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            # what is not read stays as it was made
            if any(part in name for part in unused):
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim == 1:
                tensor.add_(0.3 * noise)
            else:
                tensor.copy_(noise * 1.5 / max(tensor[0].numel(), 1) ** 0.5)
    return model.eval()


@pytest.fixture(params=ODD)
def pair(request, theirs):
    """Returns (their model, ours) of the same random weights; the way back is checked."""
    fork, changed = ODD[request.param]
    keys = {**USUAL, **changed}
    model = make(theirs, fork, keys)
    state = model.state_dict()
    chosen = find_format("obvious-cvivit" if fork else "phenaki-pytorch", "visual-codes")
    if fork:  # which has no such parameters, and another kind of flag
        state = {k: v for k, v in state.items() if not k.endswith("null_kv")}
        state["vq._codebook.initted"] = torch.ones(1)
    config = resolve("model", {"kind": "visual-codes", **chosen.read_config(keys)})
    ours = build_empty(config)
    mapped = chosen.weight_map(config).load(state)
    mapped.check()
    load_into(ours, mapped)
    back = chosen.weight_map(config).export(ours.state_dict())
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name].to(back[name])) for name in back)
    written = json.loads(json.dumps(chosen.write_config(config)))
    assert format_for(written) is chosen
    assert resolve("model", {"kind": "visual-codes", **chosen.read_config(written)}) == config
    return model, ours.eval()


@pytest.mark.parametrize("times", [1, 2, 4])
@torch.no_grad()
def test_codes_and_pixels(pair, times):
    model, ours = pair
    frames = 1 + (times - 1) * model.temporal_patch_size
    pixels = torch.rand(2, 3, frames, 32, 32, generator=torch.Generator().manual_seed(times))
    expected = model(pixels, return_only_codebook_ids=True)
    codes = ours.encode(pixels)
    assert torch.equal(codes.ids.flatten(1), expected.flatten(1))
    assert len(expected.unique()) > 8
    shown = model(pixels, return_recons_only=True)
    found = ours(pixels).pixels
    assert distance(found, shown) <= 1e-5
    inside = (shown > 0) & (shown < 1)
    assert inside.any()
    assert (ours.decode(codes.ids) - shown)[inside].abs().max() <= 1e-5 * shown.abs().max()


@torch.no_grad()
def test_time_leaks_in_theirs_and_so_in_ours(pair):
    """What changes in the last time changes what was said of the first ones."""
    model, ours = pair
    pixels = torch.rand(1, 3, 1 + 3 * model.temporal_patch_size, 32, 32)
    other = pixels.clone()
    other[:, :, -model.temporal_patch_size :] = torch.rand_like(other[:, :, -1:])
    first, rest = model.to_patch_emb_first_frame, model.to_patch_emb

    def seen(clip):
        return model.encode(torch.cat([first(clip[:, :, :1]), rest(clip[:, :, 1:])], dim=1))

    theirs = (seen(pixels) - seen(other)).abs().amax((0, 2, 3, 4))
    found = (ours.encoder(pixels) - ours.encoder(other)).abs().amax((0, 2, 3, 4))
    assert theirs[-2] > 1e-3 and found[-2] > 1e-3
    assert distance(found, theirs) <= 1e-4
    assert ours.config.encoder.time_leaks and ours.config.decoder.time_leaks


def unleaked(half):
    """Returns one half of the package's network, read as the paper means it."""
    temporal, convolution = half["temporal"], half["temporal"]["convolution"]
    convolution = {**convolution, "sequences": "places"}
    return {**half, "time_leaks": False, "temporal": {**temporal, "convolution": convolution}}


@torch.no_grad()
def test_the_same_network_without_the_slip_is_causal():
    """Nothing of it leaks but the convolution that takes places for frames."""
    node = find_format("phenaki-pytorch", "visual-codes").read_config(USUAL)
    node |= {half: unleaked(node[half]) for half in ("encoder", "decoder")}
    model = initialise(build_empty(resolve("model", {"kind": "visual-codes", **node})), 0).eval()
    pixels = torch.rand(1, 3, 7, 32, 32)
    whole = model.encode(pixels)
    for frames in (1, 3, 5):
        assert torch.equal(
            model.encode(pixels[:, :, :frames]).ids, whole.ids[:, : (frames + 1) // 2]
        )
        other = torch.cat([pixels[:, :, :frames], torch.rand(1, 3, 7 - frames, 32, 32)], dim=2)
        difference = (model.encode(other).vectors - whole.vectors).abs().amax((0, 2, 3, 4))
        assert difference[: (frames + 1) // 2].max() == 0.0 and difference[-1] > 0


SLIPS = {
    "temporal.causal: must be true": ("temporal", {"causal": False}),
    "temporal.convolution.sequences: must be places": ("temporal", {}),
    "spatial.convolution.causal: must be true": ("spatial", {"causal": False}),
}


@pytest.mark.parametrize("message", SLIPS)
def test_a_leak_is_refused_unless_it_is_named(message):
    stack, change = SLIPS[message]
    node = find_format("phenaki-pytorch", "visual-codes").read_config(USUAL)
    half = node["encoder"] if stack == "temporal" else unleaked(node["encoder"])
    if stack == "spatial":
        grid = {"kind": "grid", "times": 3}
        order = ["convolution", "attention", "feedforward"]
        half["spatial"] = half["spatial"] | {"order": order, "convolution": grid}
    elif change:
        half["temporal"] = half["temporal"] | change
    resolve("encoder", {**half, "time_leaks": True})
    with pytest.raises(ConfigError, match=message):
        resolve("encoder", {**half, "time_leaks": False})
    with pytest.raises(ConfigError, match="time_leaks: nothing here sees later times"):
        resolve("encoder", {"kind": "cvivit", "time_leaks": True})


def test_the_node_is_the_released_one():
    config, chosen = zoo.config("cvivit-obvious"), find_format("obvious-cvivit", "visual-codes")
    keys = {"dim": 512, "codebook_size": 8192, "image_size": 128, "patch_size": 8,
            "temporal_patch_size": 2, "spatial_depth": 4, "temporal_depth": 4, "dim_head": 64,
            "heads": 8, "ff_mult": 4, "use_discr": 0, "recon_loss_w": 10.0}  # fmt: skip
    read = resolve("model", {"kind": "visual-codes", **chosen.read_config(keys)})
    assert chosen.write_config(config) == chosen.write_config(read)
    assert config.grid((11, 128, 128)) == (6, 16, 16) and config.encoder.time_leaks
    state = build_empty(config).state_dict()
    zero = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in state.items()}
    names = chosen.weight_map(config).export(zero)
    assert len(names) == 278  # as their model has without networks for losses
    assert "leaks" in config.card.summary


WRONG = {
    "'codebook_size' = 60 is no power of two": ("phenaki-pytorch", {"codebook_size": 60}),
    "'lookup_free_quantization_kwargs'": (
        "phenaki-pytorch", {"lookup_free_quantization_kwargs": {"num_codebooks": 2}}),
    "'codebook_dim' is not known": ("phenaki-pytorch", {"codebook_dim": 8}),
    "'dim' is missing": ("obvious-cvivit", {"dim": None}),
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_what_is_another_model_is_refused(message):
    name, change = WRONG[message]
    with pytest.raises(ConfigError, match=message):
        find_format(name, "visual-codes").read_config({**USUAL, **change})


def test_an_export_refuses_what_it_has_no_word_for():
    chosen = find_format("phenaki-pytorch", "visual-codes")
    node = {"kind": "visual-codes", **chosen.read_config(USUAL)}
    for change, message in (
        ({"span": [-1.0, 1.0]}, "span"),
        ({"quantizer": {"kind": "fsq"}}, "no quantizer 'fsq'"),
        ({"encoder": unleaked(node["encoder"])}, "encoder"),
        ({"encoder": {"kind": "vit"}, "decoder": {"kind": "vit"}}, "holds a C-ViViT"),
    ):
        with pytest.raises(ConfigError, match=message):
            chosen.write_config(resolve("model", {**node, **change}))


def test_tensors_that_nothing_reads_must_be_as_they_were_made(theirs):
    chosen = find_format("phenaki-pytorch", "visual-codes")
    config = resolve("model", {"kind": "visual-codes", **chosen.read_config(USUAL)})
    state = make(theirs, False, USUAL).state_dict()
    state["enc_spatial_transformer.norm_out.beta"] += 1
    with pytest.raises(WeightsError, match=r"norm_out\.beta' holds other values"):
        chosen.weight_map(config).load(state)
