"""One body of tests that every kind of model runs through.

A kind subclasses it under a name that pytest collects and says three things: which node, what goes
in, and which tensor comes out (with the batch first).

    class TestVisionTransformer(ModelCase):
        node = "vit-digits"

        def inputs(self, model, batch):
            return (torch.randn(batch, 1, 32, 32),), {}

        def answer(self, output):
            return output.logits
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import zoo
from zoo.errors import ConfigError
from zoo.registry import resolve, to_mapping

__all__ = ["ModelCase"]


class ModelCase:
    """See the module's text. Models are small: every test here takes a fraction of a second."""

    node: ClassVar[str]
    overrides: ClassVar[tuple[str, ...]] = ()
    exact: ClassVar[float] = 1e-5  # batch invariance, of the answer's scale, in fp32
    rough: ClassVar[float] = 5e-2  # bf16 against fp32, relative

    # -- what a kind says --------------------------------------------------------------------------

    def inputs(self, model: nn.Module, batch: int) -> tuple[tuple, dict[str, Any]]:
        """Arguments of `forward`, drawn from torch's generator; tensors have the batch first."""
        raise NotImplementedError

    def answer(self, output: Any) -> Tensor:
        """The tensor of an output that is compared, with the batch first."""
        raise NotImplementedError

    def every_output(self, output: Any) -> Tensor:
        """A number that every parameter has a part in; by default the answer's mean square."""
        return self.answer(output).float().square().mean()

    # -- what the tests need -----------------------------------------------------------------------

    def make(self, **options: Any) -> nn.Module:
        return zoo.create(self.node, *self.overrides, **{"seed": 0, **options})

    def draw(self, model: nn.Module, batch: int, seed: int = 1) -> tuple[tuple, dict[str, Any]]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.inputs(model, batch)

    @torch.no_grad()
    def ask(self, model: nn.Module, arguments: tuple[tuple, dict[str, Any]]) -> Tensor:
        positional, named = arguments
        return self.answer(model.eval()(*positional, **named))

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> nn.Module:
        """One model for the tests of a class that leave it as it is."""
        return cls().make().eval()

    # -- the tests ---------------------------------------------------------------------------------

    def test_forward(self, model: nn.Module) -> None:
        arguments = self.draw(model, 2)
        first, again = self.ask(model, arguments), self.ask(model, arguments)
        assert first.shape[0] == 2 and torch.isfinite(first).all()
        assert torch.equal(first, again)
        assert first.float().std() > 0

    def test_a_batch_is_its_samples(self, model: nn.Module) -> None:
        arguments = self.draw(model, 3)
        together = self.ask(model, arguments)
        alone = torch.cat([self.ask(model, _part(arguments, i, i + 1)) for i in range(3)])
        assert (together - alone).abs().max() <= self.exact * together.abs().max()

    def test_every_parameter_learns(self) -> None:
        model = self.make().train()
        positional, named = self.draw(model, 3)
        self.every_output(model(*positional, **named)).backward()
        idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        broken = [n for n, p in model.named_parameters() if not torch.isfinite(p.grad).all()]
        assert not idle and not broken

    def test_a_step_goes_downhill(self) -> None:
        model = self.make().eval()  # without dropout, so that the two losses can be compared
        positional, named = self.draw(model, 3)
        before = self.every_output(model(*positional, **named))
        before.backward()
        with torch.no_grad():
            squares = sum(p.grad.square().sum() for p in model.parameters())
            for parameter in model.parameters():
                parameter -= 1e-3 * before.detach() / squares * parameter.grad
            after = self.every_output(model(*positional, **named))
        assert after < before

    def test_the_seed_decides_the_weights(self) -> None:
        torch.manual_seed(5)
        expected = torch.rand(1)
        torch.manual_seed(5)
        first, again, other = (self.make(seed=seed).state_dict() for seed in (3, 3, 4))
        assert torch.equal(torch.rand(1), expected), "the global generator moved"
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)

    def test_storing_loses_nothing(self, model: nn.Module, tmp_path: Any) -> None:
        zoo.save(model, tmp_path)
        back = zoo.load(f"dir:{tmp_path}")
        assert not back.training
        ours, theirs = model.state_dict(), back.state_dict()
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), name
        omitted = ("weights",)  # tags belong to the node, not to what was made from it
        assert to_mapping(back.config, omit=omitted) == to_mapping(model.config, omit=omitted)
        arguments = self.draw(model, 2)
        assert torch.equal(self.ask(back, arguments), self.ask(model, arguments))

    def test_its_config_is_plain_data(self, model: nn.Module) -> None:
        plain = json.loads(json.dumps(to_mapping(model.config)))
        assert resolve("model", plain) == model.config
        with pytest.raises(ConfigError, match="no_such_key"):
            zoo.config(self.node, *self.overrides, "no_such_key=1")

    def test_half_precision(self, model: nn.Module) -> None:
        half = self.make(dtype="bf16")
        floats = {p.dtype for p in half.parameters() if p.is_floating_point()}
        assert floats == {torch.bfloat16}
        arguments = self.draw(model, 2)
        rough = self.ask(half, _cast(arguments, torch.bfloat16)).float()
        exact = self.ask(model, arguments).float()
        assert (rough - exact).norm() <= self.rough * exact.norm()

    def test_shapes_need_no_memory(self, model: nn.Module) -> None:
        empty = self.make(device="meta")
        assert all(p.is_meta for p in empty.parameters())
        shapes = {name: p.shape for name, p in empty.named_parameters()}
        assert shapes == {name: p.shape for name, p in model.named_parameters()}
        count = sum(p.numel() for p in model.parameters())
        assert zoo.info(self.node, *self.overrides).parameters == count

    def test_what_is_sharded_is_part_of_it(self, model: nn.Module) -> None:
        units, parts = model.fsdp_units(), set(model.modules())
        assert units and len(set(units)) == len(units) and set(units) <= parts


def _map(value: Any, change: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _map(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_map(item, change) for item in value)
    return value


def _part(arguments: Any, start: int, stop: int) -> Any:
    return _map(arguments, lambda tensor: tensor[start:stop])


def _cast(arguments: Any, dtype: torch.dtype) -> Any:
    return _map(arguments, lambda t: t.to(dtype) if t.is_floating_point() else t)
