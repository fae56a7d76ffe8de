"""Schemas of what a visual tokenizer is made of, but for its encoder and decoder. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zoo.errors import ConfigError
from zoo.registry import kind, part, setting

# -- quantizers ------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class QuantizerConfig:
    """How vectors become whole numbers and come back."""

    @property
    def codes(self) -> int:
        """How many codes there are: what a generator's vocabulary is."""
        raise NotImplementedError

    @property
    def depth(self) -> int:
        """How many codes stand at each place of the grid."""
        return 1


@kind("quantizer", "vq", builds="zoo.tokenizers.visual.quantizers.vq:VectorQuantizer")
@dataclass(kw_only=True)
class VectorQuantizerConfig(QuantizerConfig):
    """The nearest row of a learned table (van den Oord 2017, arXiv 1711.00937)."""

    size: int = setting(1024, "codes in the table", low=2)
    width: int | None = setting(
        None,
        "channels of a code; linear maps lead there and back (factorised, Yu 2021, arXiv "
        "2110.04627). null looks up the encoder's own channels, without maps",
        low=1,
    )
    l2: bool = setting(False, "vectors and codes have length 1, so the cosine decides")
    bias: bool = setting(True, "bias of those maps")
    commitment: float = setting(0.25, "weight of the loss that ties vectors to their code", low=0.0)
    ema: float | None = setting(
        None,
        "memory of the running means that codes are, instead of learning by gradient (appendix A)",
        above=0.0,
        high=1.0,
    )
    revive: float | None = setting(
        None,
        "a code whose share of the vectors, over the last steps, falls below this part of an even "
        "share is put onto a vector of the batch; null lets codes die",
        above=0.0,
        high=1.0,
    )

    @property
    def codes(self) -> int:
        return self.size


@kind("quantizer", "gumbel", builds="zoo.tokenizers.visual.quantizers.gumbel:GumbelQuantizer")
@dataclass(kw_only=True)
class GumbelQuantizerConfig(QuantizerConfig):
    """A categorical choice, relaxed in training (Jang 2016, arXiv 1611.01144; Ramesh 2021, arXiv
    2102.12092, section 2.1)."""

    size: int = setting(8192, "codes", low=2)
    width: int | None = setting(
        None, "channels of a code; null is what the decoder reads (taming: 256)", low=1
    )
    bias: bool = setting(False, "a bias that every code's vector shares (DALL-E has one)")
    hard: bool = setting(False, "straight-through: forward the choice, not the mixture")
    scale: float = setting(
        1.0, "factor on the logits' weights before anything is learned", above=0.0
    )
    temperature: float = setting(1.0, "of the relaxation at the first step", above=0.0)
    temperature_end: float = setting(0.0625, "and at the end of the annealing", above=0.0)
    kl: float = setting(
        6.6, "weight of each place's divergence from an even choice, per subpixel", low=0.0
    )
    diversity: float = setting(
        0.0,
        "weight of the divergence of a batch's mean choice from an even one, per subpixel: all "
        "codes are to be used, however sure each place is of its own",
        low=0.0,
    )
    anneal: float = setting(
        0.5, "share of the training over which the temperature falls, by a cosine", above=0, high=1
    )
    kl_warmup: float = setting(
        0.05, "share of the training over which the weight of the divergence grows", low=0, high=1
    )

    @property
    def codes(self) -> int:
        return self.size


@kind("quantizer", "fsq", builds="zoo.tokenizers.visual.quantizers.fsq:ScalarQuantizer")
@dataclass(kw_only=True)
class ScalarQuantizerConfig(QuantizerConfig):
    """Each channel rounded to a few levels; no table, no loss, no collapse (Mentzer 2023, arXiv
    2309.15505)."""

    levels: list[int] = setting([8, 5, 5, 5], "levels of each channel; codes are their product")

    def check(self) -> None:
        if not self.levels or min(self.levels) < 2:
            raise ConfigError("levels: give a list of two or more levels for each channel.")

    @property
    def codes(self) -> int:
        product = 1
        for level in self.levels:
            product *= level
        return product


@kind("quantizer", "lfq", builds="zoo.tokenizers.visual.quantizers.lfq:LookupFreeQuantizer")
@dataclass(kw_only=True)
class LookupFreeQuantizerConfig(QuantizerConfig):
    """The signs of the channels, kept even by an entropy loss (Yu 2023, arXiv 2310.05737)."""

    bits: int = setting(10, "channels; there are 2^bits codes", low=1, high=24)
    commitment: float = setting(0.25, "weight of the loss that ties vectors to their signs", low=0)
    entropy: float = setting(0.1, "weight of the entropy loss", low=0.0)
    diversity: float = setting(1.0, "how much it rewards an even use of all codes", low=0.0)
    sharpness: float = setting(100.0, "inverse temperature of the choice it looks at", above=0.0)

    @property
    def codes(self) -> int:
        return 2**self.bits


@kind("quantizer", "residual", builds="zoo.tokenizers.visual.quantizers.residual:Residual")
@dataclass(kw_only=True)
class ResidualConfig(QuantizerConfig):
    """Several quantizers, each of what those before it left over (Lee 2022, arXiv 2203.01941)."""

    steps: int = setting(4, "codes at each place", low=1)
    shared: bool = setting(False, "one quantizer for all steps, as RQ-VAE has it")
    quantizer: QuantizerConfig = part("quantizer", {"kind": "vq"}, "what each step uses")

    def check(self) -> None:
        if self.quantizer.depth > 1:
            raise ConfigError(
                "quantizer: a residual quantizer of residual quantizers adds nothing."
            )

    @property
    def codes(self) -> int:
        return self.quantizer.codes

    @property
    def depth(self) -> int:
        return self.steps


# -- reconstruction --------------------------------------------------------------------------------


@dataclass(kw_only=True)
class ReconstructionConfig:
    """What the decoder predicts for a pixel, and how far that is from the pixel."""

    zoo_kind: ClassVar[str]
    maps: ClassVar[int] = 1  # that the decoder gives for each channel of the picture


@kind("reconstruction", "l2", builds="zoo.tokenizers.visual.reconstruction:SquaredError")
@dataclass(kw_only=True)
class SquaredErrorConfig(ReconstructionConfig):
    """The mean squared difference: a Gaussian of fixed width."""


@kind("reconstruction", "l1", builds="zoo.tokenizers.visual.reconstruction:AbsoluteError")
@dataclass(kw_only=True)
class AbsoluteErrorConfig(ReconstructionConfig):
    """The mean absolute difference: a Laplacian of fixed width (taming VQ-GAN)."""


@kind("reconstruction", "logit-laplace", builds="zoo.tokenizers.visual.reconstruction:LogitLaplace")
@dataclass(kw_only=True)
class LogitLaplaceConfig(ReconstructionConfig):
    """A Laplacian of predicted centre and width over the pixel's logit, so that nothing outside
    of the range has any mass (Ramesh 2021, arXiv 2102.12092, appendix A.3)."""

    maps: ClassVar[int] = 2
    floor: float | None = setting(
        None,
        "smallest log-width: where areas are exactly even the density has no bound, and they alone "
        "would be learned",
    )
