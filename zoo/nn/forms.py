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
which decoding calls, and a stack that reads a second batch, lays copies beside them that are read
faster. That is as much memory again for a batch, two thirds of it for one sequence (pages of a
mapped file are given back when memory is short). Products of a few rows take 0.6 to 0.7 of the
time, those of a thousand 0.96 (an AMD EPYC); on Intel's, where MKL is at home, those of 4 to 64
rows take 0.5 to 0.9 and nothing is won beyond, so that no copies are made for them.
"""

# m rows, i inputs, o outputs

from __future__ import annotations

import warnings
from fnmatch import fnmatchcase as fnmatch
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError, WeightsError
from zoo.nn.matmul import FUSED, activated, has_onednn, has_tiles, linear, uses_onednn

__all__ = [
    "FORMS",
    "Form",
    "Freezable",
    "freeze",
    "prepare",
    "quantise",
    "refuse_inexact",
    "thaw",
]


class Form:
    """A weight ready for products. Never written to, so that copies of a model share it."""

    exact: ClassVar[bool]  # whether `dense` gives back what it was made from
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
    FEW = 4  # rows
    LARGE = 2_000_000  # numbers in a weight that is worth repeating rows for

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 4 * self.FEW)
        self.bias = bias
        self.nbytes = weight.nbytes
        self.few = self.FEW if weight.numel() >= self.LARGE else 1
        self.call = torch.ops.mkldnn._linear_pointwise.default

    @staticmethod
    def serves(weight: Tensor) -> bool:
        return weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _packs()

    def product(self, x: Tensor, activation: str) -> Tensor:
        attribute, algorithm = FUSED.get(activation, ("none", ""))
        rows = x.numel() // x.shape[-1]
        if rows >= self.few or rows == 0:
            return self.call(x, self.weight, self.bias, attribute, [], algorithm)
        few = x.reshape(rows, -1)  # m i
        few = few.expand(self.few, -1) if rows == 1 else few.repeat(2, 1)
        out = self.call(few, self.weight, self.bias, attribute, [], algorithm)
        return out[:rows].view(*x.shape[:-1], -1)

    def dense(self) -> Tensor:
        return self.weight.to_dense()


class Beside:
    """Copies of an fp32 weight (o i) in the orders that decoding reads fastest, while the weight
    stays a parameter; of no use once that has changed. One row multiplies with the weight turned
    (i o), whose rows are longer, where it is wide; more rows with the packed one."""

    WORTH_IT = 200_000  # numbers; smaller weights stay in the processor's cache
    FEW = range(4, 65)  # rows for which a packed copy is faster than MKL where that is at home

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias, self.version = weight, bias, weight._version
        self.inputs = weight.shape[1]
        self.few = range(2, 1 << 62) if uses_onednn(weight, weight) else self.FEW
        self.turned: Tensor | None = None  # o i, the outputs of one input side by side
        self.packed: Packed | None = None

    def make(self, rows: int) -> None:
        """Makes the copy that so many rows are multiplied with, if there is none."""
        if rows in self.few:
            self.packed = self.packed or Packed(self.weight, self.bias)
        elif rows == 1 and self.turned is None and self.weight.shape[0] >= self.weight.shape[1]:
            with torch.inference_mode(False), torch.no_grad():
                self.turned = self.weight.detach().t().contiguous().t()

    def ready(self, rows: int) -> bool:
        """Returns whether there is a copy for so many rows, and the weight is what it was."""
        made = self.turned if rows == 1 else self.packed
        return made is not None and self.stands_for(self.weight)

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
            and not torch.compiler.is_compiling()
            and not torch.is_autocast_enabled("cpu")
        )

    @staticmethod
    def renewed(
        old: Beside | None, weight: Tensor | None, bias: Tensor | None, rows: int
    ) -> Beside | None:
        """Returns copies for so many rows: those that there are, if they still serve, or new ones;
        None where they would be of no use."""
        if weight is None or not Beside.serves(weight):
            return None
        found = old if old is not None and old.stands_for(weight) else Beside(weight, bias)
        found.make(rows)
        return found

    def stands_for(self, weight: Tensor | None) -> bool:
        """Returns whether a product with this weight may be had from the copies now."""
        return (
            weight is self.weight
            and self.version == self.weight._version
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not torch.is_autocast_enabled("cpu")
        )

    def product(self, x: Tensor, activation: str) -> Tensor:
        """Returns activation(x W^T + b): (... i) -> (... o)."""
        rows = x.numel() // self.inputs
        if self.packed is not None and rows in self.few:
            return self.packed.product(x, activation)
        if rows != 1 or self.turned is None:
            return linear(x, self.weight, self.bias, activation)
        row, bias = x.reshape(-1), self.bias
        out = torch.mv(self.turned, row) if bias is None else torch.addmv(bias, self.turned, row)
        out = out if activation == "linear" else activated(out, activation)
        return out.view(*x.shape[:-1], -1)

    def __deepcopy__(self, memo: dict) -> None:
        return None  # a copied model has weights of its own


class Int8(Form):
    """int8 times int8: activations are quantised as they come, each row by its own scale. FBGEMM
    where there is one (x86), else what PyTorch has for the processor. A row's last digits depend on
    the rows beside it, so that batches do not answer bit for bit as single prompts do."""

    exact = False

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        numbers, scale = quantise(weight.detach().float())
        self.bias = None if bias is None else bias.detach().float()
        zeros = torch.zeros(len(scale), dtype=torch.long)
        engines = torch.backends.quantized.supported_engines
        before = torch.backends.quantized.engine
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # that quantised tensors will go; this is the one user
            torch.backends.quantized.engine = "fbgemm" if "fbgemm" in engines else before
            try:
                weight = torch._make_per_channel_quantized_tensor(
                    numbers, scale[:, 0].double(), zeros, 0
                )
                self.packed = torch.ops.quantized.linear_prepack(weight, None)
            finally:
                torch.backends.quantized.engine = before
        self.nbytes = numbers.nbytes + scale.nbytes
        # without VNNI, sums of two products of full range would overflow 16 bits
        self.narrow = not torch.cpu._is_vnni_supported()
        self.call = torch.ops.quantized.linear_dynamic.default

    def product(self, x: Tensor, activation: str) -> Tensor:
        kind, rows = x.dtype, x.numel() // x.shape[-1]
        x = x.float()
        if rows == 1:
            out = self.call(x, self.packed, self.narrow)
            out = out if self.bias is None else out.add_(self.bias)
        else:  # the kernel has one scale for all rows: make them alike first
            peak = torch.maximum(x.amax(-1, keepdim=True), -x.amin(-1, keepdim=True))
            peak.clamp_(min=1e-8)
            out = self.call(x / peak, self.packed, self.narrow)
            if self.bias is None:
                out.mul_(peak)
            else:
                torch.addcmul(self.bias, out, peak, out=out)
        return activated(out, activation).to(kind)

    def dense(self) -> Tensor:
        return torch.ops.quantized.linear_unpack(self.packed)[0].dequantize()


class Int8Weight(Form):
    """int8 weights, bf16 activations: half of bf16's memory, and numbers nearer to it than
    `int8`. Few rows multiply with the int8 numbers; many are worth expanding them once."""

    exact = False
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
            out = activated(out if self.bias is None else out + self.bias, activation)
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
    """Lays copies beside the fp32 weights of a model that is about to multiply so many rows at a
    time on a CPU; does nothing for one that is being trained, compiled, or in another precision."""
    if model.training or torch.is_grad_enabled() or getattr(model, "compiled", False):
        return
    for module in model.modules():
        if isinstance(module, Freezable):
            if module.form is not None:
                return  # so is all that comes after: who gives and takes does so throughout
            if module.beside is None or not module.beside.ready(rows):
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
