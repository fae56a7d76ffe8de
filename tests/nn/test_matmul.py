"""The linear product: whichever library computes it, the numbers and gradients are those of the
formula."""

import pytest
import torch
from torch.nn import functional as F

from zoo.nn import matmul
from zoo.nn.matmul import FUSED, linear


@pytest.fixture(params=["onednn", "torch"])
def library(request, monkeypatch):
    monkeypatch.setenv("ZOO_LINEAR", request.param)
    matmul._onednn.cache_clear()
    if request.param == "onednn" and matmul._onednn(torch.float32) is None:
        pytest.skip("this PyTorch has no oneDNN")
    yield request.param
    matmul._onednn.cache_clear()


@pytest.mark.parametrize("shape", [(3, 70, 96), (1, 1, 1024)])
@pytest.mark.parametrize("activation", ["linear", *FUSED])
def test_values_follow_the_formula(library, shape, activation):
    x, weight, bias = torch.randn(shape), torch.randn(1500, shape[-1]), torch.randn(1500)
    assert matmul.uses_onednn(x, weight) == (library == "onednn")
    expected = F.linear(x.double(), weight.double(), bias.double())
    expected = matmul.activated(expected, activation)
    with torch.inference_mode():
        found = linear(x, weight, bias, activation)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


def test_gradients_follow_the_formula(library):
    x = torch.randn(4, 64, 96, requires_grad=True)
    weight = torch.randn(200, 96, requires_grad=True)
    bias = torch.randn(200, requires_grad=True)
    assert matmul.uses_onednn(x, weight) == (library == "onednn")
    downstream = torch.randn(4, 64, 200)
    (linear(x, weight, bias, "gelu") * downstream).sum().backward()
    copies = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    (F.gelu(F.linear(*copies)) * downstream.double()).sum().backward()
    for ours, exact in zip((x, weight, bias), copies, strict=True):
        torch.testing.assert_close(ours.grad.double(), exact.grad, rtol=1e-4, atol=1e-3)


def test_a_frozen_weight_still_passes_the_gradient_on(library):
    x = torch.randn(64, 96, requires_grad=True)
    weight = torch.randn(200, 96)
    linear(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(64, -1), rtol=1e-4, atol=1e-4)


def test_small_products_and_autocast_stay_with_torch(library):
    assert not matmul.uses_onednn(torch.randn(1, 8), torch.randn(8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert not matmul.uses_onednn(torch.randn(512, 96), torch.randn(200, 96))
        assert linear(torch.randn(512, 96), torch.randn(200, 96)).dtype == torch.bfloat16


@pytest.mark.skipif(not matmul.has_onednn(torch.float32), reason="this PyTorch has no oneDNN")
def test_a_dear_activation_is_fused_also_where_mkl_is_at_home(monkeypatch):
    monkeypatch.setattr(matmul, "_intel", lambda: True)
    matmul._onednn.cache_clear()
    x, weight, bias = torch.randn(70, 96), torch.randn(1500, 96), torch.randn(1500)
    assert not matmul.uses_onednn(x, weight, "gelu")
    assert matmul.uses_onednn(x, weight, "gelu_tanh")
    exact = F.gelu(F.linear(x.double(), weight.double(), bias.double()), approximate="tanh")
    with torch.inference_mode():
        found = linear(x, weight, bias, "gelu_tanh")
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-4)
    linear(x.requires_grad_(), weight, bias, "gelu_tanh").sum().backward()  # by PyTorch
    found, x.grad = x.grad, None
    F.gelu(F.linear(x, weight, bias), approximate="tanh").sum().backward()
    torch.testing.assert_close(found, x.grad, rtol=1e-4, atol=1e-3)
    matmul._onednn.cache_clear()
