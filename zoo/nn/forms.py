"""Inference forms: what a linear layer turns its weight into when it will only be read.

| form          | weight                          | activations | a step reads | same numbers      |
|---------------|---------------------------------|-------------|--------------|-------------------|
| `packed`      | in oneDNN's own layout          | bf16 (fp32) | 2 (4) bytes  | yes, up to order  |
| `int8`        | int8, a scale per output        | int8        | 1 byte       | to about 1.5 %    |
| `int8-weight` | int8, a scale per output        | bf16        | 1 byte       | to about 1 %      |

`freeze` puts a whole model into a form, `thaw` takes it out. A packed model gives its weights back
bit for bit, and does so by itself when it is trained, moved or saved; int8 numbers can be neither
trained nor saved, and say so.

fp32 weights stay where they are: they may lie in a mapped file, be trained, be shared. `prepare`,
which decoding calls, and a stack that reads a second batch, lays copies beside them, and beside
packed bf16 ones, that few rows are multiplied with faster (`native.Panels`, where C was compiled):
as much memory again, and none where memory is short. int8 numbers lie so from the beginning. On an
Intel Xeon an fp32 product of one row takes 0.55 of MKL's time so, of sixteen 0.4, of 64 0.75; a
bf16 one of one row 0.45 of oneDNN's, of 128 0.9; int8 ones of 512 rows 0.8. Copies for more rows of
fp32 are packed by the library at home: BERT takes 0.8 of the time for 128 rows with MKL's, 0.87 for
256, 0.85 to 0.98 for a thousand, on an AMD EPYC 0.96 with oneDNN's.
"""

# m rows, i inputs, o outputs

from __future__ import annotations

from fnmatch import fnmatchcase as fnmatch
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError, WeightsError
from zoo.nn import native
from zoo.nn.matmul import (
    FUSED,
    activate,
    has_mkl,
    has_onednn,
    has_tiles,
    linear,
    runs_as_called,
    uses_onednn,
)

__all__ = [
    "FORMS",
    "MANY",
    "Form",
    "Freezable",
    "freeze",
    "prepare",
    "quantise",
    "refuse_inexact",
    "thaw",
]

MANY = 512  # rows, whose product takes several times what laying out their weight does


class Form:
    """A weight ready for products. Never written to, so that copies of a model share it."""

    exact: ClassVar[bool]  # whether `dense` gives back what it was made from
    # what products begin with and, given that, answer in; None: with whatever is given
    begins_in: ClassVar[torch.dtype | None] = None
    bias: Tensor | None  # o
    nbytes: int

    @staticmethod
    def serves(weight: Tensor) -> bool:
        """Returns whether this form is any use for a weight."""
        return weight.device.type == "cpu"

    def dense(self) -> Tensor:
        """Returns the weight (o i)."""
        raise NotImplementedError

    def product(self, x: Tensor, activation: str) -> Tensor:
        """Returns activation(x W^T + b): (... i) -> (... o)."""
        raise NotImplementedError

    def attends_in(self) -> torch.dtype | None:
        """Returns the type in which attention to what this gives loses nothing, and is faster; None
        where that is the type that it has."""
        return torch.bfloat16 if not self.exact and has_tiles() else None

    def prepare(self, rows: int) -> None:
        """Readies itself for products of so many rows, where that is of use."""

    def __call__(self, x: Tensor, activation: str = "linear") -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():  # what is behind it may be trained
            return linear(x, self.dense().to(x.dtype), self.bias, activation)
        return self.product(x, activation)

    def __deepcopy__(self, memo: dict) -> Form:
        return self


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (int8 numbers, scale per row of the last axis): x is about numbers * scale."""
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-8) / 127
    return torch.round(x / scale).to(torch.int8), scale


class Packed(Form):
    """In the layout that oneDNN multiplies with: bf16, one row costs 0.6 of what the plain layout
    does; fp32, sixteen rows two thirds. The kernel for four rows is faster than those for fewer, so
    that fewer are repeated to make as many."""

    exact = True
    LEAST = 2  # rows of fp32 that a copy beside the weight is made for
    STEP = 16  # rows that are decoded side by side
    FEW = 4  # rows
    LARGE = 2_000_000  # numbers in a weight that is worth repeating rows for

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 4 * self.FEW)
        self.bias = bias
        self.nbytes = weight.nbytes
        self.few = self.FEW if weight.numel() >= self.LARGE else 1
        self.call = torch.ops.mkldnn._linear_pointwise.default
        self.panels: native.Panels | None = None

    @staticmethod
    def serves(weight: Tensor) -> bool:
        return weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _packs()

    @staticmethod
    def may_pack(weight: Tensor) -> bool:
        """Returns whether memory for a copy beside an fp32 weight is free."""
        return native.has_room(weight)

    def prepare(self, rows: int) -> None:
        few = rows <= self.STEP  # who brings more does not decode, and one batch is as another
        if few and self.panels is None and native.Panels.suits(self.weight, rows):
            self.panels = native.Panels(self.dense(), self.bias)

    def product(self, x: Tensor, activation: str) -> Tensor:
        rows = x.numel() // x.shape[-1]
        if self.panels is not None and self.panels.serves(rows) and runs_as_called():
            return self.panels(x, activation)
        attribute, algorithm = FUSED.get(activation, ("none", ""))
        if rows >= self.few or rows == 0:
            return self.call(x, self.weight, self.bias, attribute, [], algorithm)
        few = x.reshape(rows, -1)  # m i
        few = few.expand(self.few, -1) if rows == 1 else few.repeat(2, 1)
        out = self.call(few, self.weight, self.bias, attribute, [], algorithm)
        return out[:rows].view(*x.shape[:-1], -1)

    def dense(self) -> Tensor:
        return self.weight.to_dense()


class PackedByMKL:
    """fp32 in MKL's own layout, for many rows."""

    LEAST = 65  # rows that it is made for: fewer have panels
    ROWS = 1024  # that it is laid out for, and serves more and fewer as well

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self.packed = torch.ops.mkl._mkl_reorder_linear_weight(weight.detach(), self.ROWS)
        self.weight, self.bias = weight, bias
        self.call = torch.ops.mkl._mkl_linear.default

    @staticmethod
    def may_pack(weight: Tensor) -> bool:
        """Returns whether MKL is at home, and memory for a copy is free."""
        return has_mkl() and native.has_room(weight)

    def product(self, x: Tensor, activation: str) -> Tensor:
        later = activation != "linear"  # MKL would write the bias first, and read it once more
        bias = None if later else self.bias
        out = self.call(x, self.packed, self.weight, bias, x.numel() // x.shape[-1])
        return native.finish_(out, self.bias, activation) if later else out


class Beside:
    """Copies of an fp32 weight (o i) in the orders that decoding reads fastest, while the weight
    stays a parameter; of no use once that has changed. Few rows multiply with a copy as it is, in
    better memory; more rows with a packed one, by whichever library is at home."""

    WORTH_IT = 200_000  # numbers; smaller weights stay in the processor's cache

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        self.inputs, self.stamp = weight.shape[1], self._stamp()
        self.panels: native.Panels | None = None
        self.packed: Packed | PackedByMKL | None = None

    def make(self, rows: int) -> None:
        """Makes the copy that so many rows are multiplied with, if there is none."""
        if self.panels is None and native.Panels.suits(self.weight, rows):
            self.panels = native.Panels(self.weight, self.bias)
        if self.panels is not None and self.panels.serves(rows):
            return
        kind = Packed if uses_onednn(self.weight, self.weight) else PackedByMKL
        if self.packed is None and rows >= kind.LEAST and kind.may_pack(self.weight):
            self.packed = kind(self.weight, self.bias)

    @staticmethod
    def serves(weight: Tensor) -> bool:
        """Returns whether copies would be of use: plain fp32 of some size, where oneDNN is."""
        return (
            weight.numel() >= Beside.WORTH_IT
            and weight.dtype == torch.float32
            and weight.device.type == "cpu"
            and not weight.is_inference()
            and type(weight) is nn.Parameter  # nothing sharded
            and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
            and has_onednn(weight.dtype)
            and runs_as_called()
        )

    @staticmethod
    def renewed(
        old: Beside | None, weight: Tensor | None, bias: Tensor | None, rows: int
    ) -> Beside | None:
        """Returns copies for so many rows: those that there are, if they still serve, or new ones;
        None where they would be of no use."""
        if weight is None or not Beside.serves(weight):
            return None
        same = old is not None and old.stands_for(weight, bias)
        found = old if old is not None and same else Beside(weight, bias)
        found.make(rows)
        return found

    def stands_for(self, weight: Tensor | None, bias: Tensor | None) -> bool:
        """Returns whether a product with these may be had from the copies now."""
        return (
            weight is self.weight
            and bias is self.bias
            and self.is_current
            and not torch.is_grad_enabled()
            and runs_as_called()
        )

    @property
    def is_current(self) -> bool:
        """Whether weight and bias are what they were."""
        return self.stamp == self._stamp()

    def _stamp(self) -> tuple[int, ...]:
        weight, bias = self.weight, self.bias
        return weight._version, weight.data_ptr(), 0 if bias is None else bias.data_ptr()

    def product(self, x: Tensor, activation: str) -> Tensor:
        """Returns activation(x W^T + b): (... i) -> (... o)."""
        rows = x.numel() // self.inputs
        if self.panels is not None and self.panels.serves(rows):
            return self.panels(x, activation)
        if self.packed is not None and rows >= self.packed.LEAST:
            return self.packed.product(x, activation)
        return linear(x, self.weight, self.bias, activation)

    def __deepcopy__(self, memo: dict) -> None:
        return None  # a copied model has weights of its own


class Int8(Form):
    """int8 times int8: activations are quantised as they come, each row by its own scale, so that
    what a row gets does not depend on those beside it."""

    exact = False

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        numbers, scale = quantise(weight.detach().float())
        self.bias = None if bias is None else bias.detach().float()
        self.scale = scale[:, 0].clone()
        self.weight: Tensor | native.Panels = numbers
        if native.Panels.fits(numbers):
            self.weight = native.Panels(numbers, self.bias, self.scale)
        self.nbytes = numbers.nbytes + scale.nbytes

    def product(self, x: Tensor, activation: str) -> Tensor:
        wide = x if x.dtype == torch.float32 else x.float()
        if isinstance(self.weight, native.Panels):
            out = self.weight(wide, activation)
        else:
            numbers, scale = quantise(wide)
            sums = _whole_product(numbers.reshape(-1, x.shape[-1]), self.weight)
            out = sums.view(*x.shape[:-1], -1) * scale * self.scale
            out = activate(out if self.bias is None else out.add_(self.bias), activation)
        return out if wide is x else out.to(x.dtype)

    def dense(self) -> Tensor:
        weight = self.weight
        numbers = weight.dense() if isinstance(weight, native.Panels) else weight
        return numbers * self.scale[:, None]


def _whole_product(x: Tensor, weight: Tensor) -> Tensor:  # m i, o i, both int8 -> m o, int32
    if _counts_exactly():
        return torch._int_mm(x, weight.t())
    return (x.float() @ weight.float().t()).int()


@cache
def _counts_exactly() -> bool:
    """Returns whether PyTorch's product of int8 is oneDNN's, and that one's sums have 32 bits all
    the way: without VNNI two products of full range would overflow 16."""
    return torch.backends.mkldnn.is_available() and bool(torch.cpu._is_vnni_supported())


class Int8Weight(Form):
    """int8 weights, bf16 activations: half of bf16's memory, and numbers nearer to it than
    `int8`. Few rows multiply with the int8 numbers; many are worth expanding them once."""

    exact = False
    begins_in = torch.bfloat16
    MANY = 8  # rows

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.numbers, scale = quantise(weight.detach().float())
        self.scale = scale[:, 0].bfloat16()
        self.bias = None if bias is None else bias.detach().bfloat16()
        self.nbytes = self.numbers.nbytes + self.scale.nbytes

    def product(self, x: Tensor, activation: str) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).bfloat16()  # m i
        # PyTorch's kernel reads 16 inputs at a time, beyond the end of the last row if it must
        if len(rows) >= self.MANY or rows.shape[-1] % 16:
            out = linear(rows, self.dense(), self.bias, activation)
        else:
            out = torch._weight_int8pack_mm(rows.contiguous(), self.numbers, self.scale)
            out = activate(out if self.bias is None else out + self.bias, activation)
        return out.view(*x.shape[:-1], -1).to(x.dtype)

    def dense(self) -> Tensor:
        return self.numbers.bfloat16().mul_(self.scale[:, None])


FORMS: dict[str, type[Any]] = {"packed": Packed, "int8": Int8, "int8-weight": Int8Weight}


@cache
def _packs() -> bool:
    """Returns whether this processor and this PyTorch have the packed product."""
    mkldnn = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(mkldnn, "_reorder_linear_weight"):
        return False
    return bool(mkldnn._is_mkldnn_bf16_supported())


class Freezable(nn.Module):
    """A module with a `weight` (o i) and a `bias` that are used in one product only."""

    weight: Any  # a parameter; None in a form
    bias: nn.Parameter | None
    form: Form | None = None
    beside: Beside | None = None

    def prepare(self, rows: int) -> None:
        """Lays copies for products of so many rows beside the weight, where that is of use."""
        if self.form is not None:
            self.form.prepare(rows)
        else:
            self.beside = Beside.renewed(self.beside, self._parameters["weight"], self.bias, rows)

    def freeze(self, name: str) -> None:
        """Replaces the weight by one of FORMS, where that form is of use."""
        weight = self._parameters["weight"]
        if self.form is None and weight is not None and FORMS[name].serves(weight):
            self.form = FORMS[name](weight, self.bias)
            self._parameters["weight"] = None

    def thaw(self) -> None:
        """Makes the weight a parameter again. Raises ConfigError for int8."""
        self.beside = None
        if self.form is None:
            return
        if not self.form.exact:
            raise ConfigError(
                "int8 weights are for inference on the CPU where they were made; load the model "
                "with dtype=fp32 or bf16."
            )
        self._parameters["weight"] = nn.Parameter(self.form.dense())
        self.form = None

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if found is None and name == "weight" and self.form is not None:
            return self.form.dense()
        return found

    def train(self, mode: bool = True) -> Any:
        if mode:
            self.thaw()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.beside = None
        if self.form is not None:  # moved or cast: not the form's business
            kind = torch.bfloat16 if self.form.exact else torch.float32
            same = fn(torch.empty(0, dtype=kind))
            if self.form.exact or same.device.type != "cpu" or same.dtype != kind:
                self.thaw()
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self.form is not None and self._parameters["weight"] is None:
            destination[prefix + "weight"] = self.form.dense()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, *args: Any) -> None:
        self.thaw()
        super()._load_from_state_dict(*args)


def freeze(model: nn.Module, form: str) -> nn.Module:
    """Puts every linear layer of a model into an inference form; returns the model.

    Layers that a form does not serve (`packed` serves bf16 on a CPU) stay as they are. Where the
    processor multiplies bf16 in tiles, `int8` is `int8-weight` for those that a model's
    `reads_windows` names by pattern: products of a thousand rows, which are faster so and nearer to
    bf16's.
    """
    long = getattr(model, "reads_windows", ()) if form == "int8" and has_tiles() else ()
    for name, module in model.named_modules():
        if isinstance(module, Freezable):
            module.freeze("int8-weight" if any(fnmatch(name, one) for one in long) else form)
    return model


def prepare(model: nn.Module, rows: int = 1) -> None:
    """Lays copies beside the weights of a model that is about to multiply so many rows at a time on
    a CPU; does nothing for one that is being trained or compiled."""
    if model.training or torch.is_grad_enabled() or getattr(model, "compiled", False):
        return
    for module in model.modules():
        if isinstance(module, Freezable):
            module.prepare(rows)


def thaw(model: nn.Module) -> nn.Module:
    """Takes every layer out of its form; returns the model. Raises ConfigError for int8."""
    for module in model.modules():
        if isinstance(module, Freezable):
            module.thaw()
    return model


def refuse_inexact(model: nn.Module) -> None:
    """Raises WeightsError when a model's weights are not what it was given."""
    forms = (m.form for m in model.modules() if isinstance(m, Freezable))
    if any(form is not None and not form.exact for form in forms):
        raise WeightsError("This model is in int8; load it with dtype=fp32 or bf16 to save it.")
