"""zoo.load(dtype=…): what each precision gives, and what is refused with advice."""

import pytest
import torch

import zoo
from tests.generation.conftest import make
from zoo.errors import ConfigError, WeightsError
from zoo.nn import forms


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    zoo.save(make("gqa"), path)
    return f"dir:{path}"


TOKENS = torch.tensor([[5, 1, 30, 7]])


@pytest.mark.parametrize(("dtype", "error"), [("bf16", 5e-2), ("int8", 0.1), ("int8-weight", 5e-2)])
def test_a_precision_is_near_fp32(folder, dtype, error):
    with torch.inference_mode():
        exact = zoo.load(folder)(TOKENS).logits
        found = zoo.load(folder, dtype=dtype)(TOKENS).logits.float()
    assert (found - exact).norm() / exact.norm() < error
    assert not torch.equal(found, exact)


def test_layers_take_the_form_that_was_asked_for(folder):
    kinds = {"int8": forms.Int8, "int8-weight": forms.Int8Weight, "fp32": None, None: None}
    if forms._packs():
        kinds["bf16"] = forms.Packed
    for dtype, kind in kinds.items():
        layer = zoo.load(folder, dtype=dtype).backbone.layers[0].feedforward.up
        assert layer.form is None if kind is None else type(layer.form) is kind


def test_a_bf16_model_is_saved_and_trained_as_ever(folder, tmp_path):
    model = zoo.load(folder, dtype="bf16")
    zoo.save(model, tmp_path)
    again = zoo.load(f"dir:{tmp_path}").state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())
    loss = model.train()(TOKENS).logits.float().logsumexp(-1).sum()
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert len(list(model.parameters())) == len(list(zoo.load(folder).parameters()))


def test_what_a_device_cannot_do_well_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="fp16 is slower than fp32 on a CPU; take dtype bf16"):
        zoo.load(folder, dtype="fp16")
    with pytest.raises(ConfigError, match="dtype int8 is for CPUs; on cuda take bf16"):
        zoo.load(folder, dtype="int8", device="cuda")
    with pytest.raises(ConfigError, match="Unknown dtype 'int4'"):
        zoo.load(folder, dtype="int4")
    with pytest.raises(WeightsError, match="is in int8"):
        zoo.save(zoo.load(folder, dtype="int8"), tmp_path)


@pytest.mark.parametrize("device", ["quantum", "cpu:x", "fpga"])
def test_a_device_that_is_not_there_is_refused(folder, device):
    with pytest.raises(ConfigError, match=f"device: '{device}' cannot be used here"):
        zoo.load(folder, device=device)
    with pytest.raises(ConfigError, match=f"device: '{device}' cannot be used here"):
        zoo.create("vit-digits", device=device)


def test_compile_is_asked_for_and_not_for_int8(folder):
    assert zoo.load(folder, compile=True).compiled and not zoo.load(folder).compiled
    assert (
        zoo.load(folder, compile=True, dtype="bf16").backbone.layers[0].attention.out.form is None
    )
    with pytest.raises(ConfigError, match="int8 has kernels that are not compiled"):
        zoo.load(folder, compile=True, dtype="int8")
    with pytest.raises(ConfigError, match="'vit-digits' is no decoder of text"):
        zoo.load("vit-digits", compile=True)
