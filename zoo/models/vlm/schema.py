"""Schemas of the vision-language models and of their adapters. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.backbones.schema import TransformerConfig
from zoo.errors import ConfigError
from zoo.models.schema import ModelConfig
from zoo.models.text.schema import CausalLMConfig
from zoo.nn.schema import Activation, NormConfig
from zoo.registry import kind, part, setting

# -- adapters --------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class AdapterConfig:
    """What every adapter is asked: its widths come from the two models that it joins."""

    pool: int = setting(
        1, "patches of a square of this side are averaged into one before anything else", low=1
    )


@kind("adapter", "linear", builds="zoo.models.vlm.adapters:LinearAdapter")
@dataclass(kw_only=True)
class LinearAdapterConfig(AdapterConfig):
    """One matrix (Liu et al. 2023, Visual Instruction Tuning, arXiv 2304.08485, section 4.1)."""

    bias: bool = setting(True, "whether a shift follows")


@kind("adapter", "mlp", builds="zoo.models.vlm.adapters:MLPAdapter")
@dataclass(kw_only=True)
class MLPAdapterConfig(AdapterConfig):
    """Linear maps with an activation between them (LLaVA 1.5, arXiv 2310.03744, section 3.2)."""

    depth: int = setting(2, "linear maps", low=1)
    hidden: int | None = setting(None, "width between them; null: the language model's", low=1)
    activation: Activation = setting("gelu", "between them")
    bias: bool = setting(True, "whether a shift follows each of them")


@kind("adapter", "pixel-shuffle", builds="zoo.models.vlm.adapters:PixelShuffleAdapter")
@dataclass(kw_only=True)
class PixelShuffleAdapterConfig(MLPAdapterConfig):
    """The patches of a square become one long token, then as `mlp`: fewer tokens, nothing thrown
    away (InternVL 1.5, arXiv 2404.16821, section 3.1; SmolVLM, arXiv 2504.05299)."""

    factor: int = setting(2, "side of the square, in patches", low=1)
    norm: NormConfig | None = part("norm", None, "norm of the long tokens (InternVL)")


@kind("adapter", "resampler", builds="zoo.models.vlm.adapters:ResamplerAdapter")
@dataclass(kw_only=True)
class ResamplerAdapterConfig(AdapterConfig):
    """A fixed number of learned queries read the patches by cross-attention (the Perceiver
    resampler of Flamingo, Alayrac et al. 2022, arXiv 2204.14198, section 3.1)."""

    queries: int = setting(64, "tokens that come out, whatever went in", low=1)
    backbone: TransformerConfig = part(
        "backbone",
        {
            "kind": "transformer",
            "depth": 2,
            "order": ["cross_attention", "feedforward"],
            "cross_attention": "multihead",
        },
        "what the queries go through, of a width of its own",
    )


# -- the model -------------------------------------------------------------------------------------


@kind("model", "vision-language", builds="zoo.models.vlm.model:VisionLanguageModel")
@dataclass(kw_only=True)
class VisionLanguageConfig(ModelConfig):
    """LLaVA and its like: pictures become tokens of a language model (Liu et al. 2023, arXiv
    2304.08485).

    The way of a picture: tiles, the vision tower, the outputs of one of its blocks, the adapter.
    Its tokens then stand where the prompt says `<image>`.
    """

    vision: ModelConfig = part(
        "model", {"kind": "vit", "classes": 0}, "sees: any model of pictures, timm's too"
    )
    adapter: AdapterConfig = part("adapter", "linear", "from its features to words")
    text: CausalLMConfig = part("model", {"kind": "causal-lm"}, "speaks: any decoder of text")
    layer: int | list[int] | None = setting(
        -2,
        "block of the vision tower whose output is read, counted as Python does (LLaVA: the last "
        "but one), or several side by side; null: what the tower gives, its final norm included",
    )
    class_token: bool = setting(
        False, "also read the tokens that the tower has before the patches (`cls_patch`)"
    )
    image_token: int = setting(
        -200, "id that stands for a picture in tokens; it may lie outside of the vocabulary"
    )
    before: list[str] = setting(
        [], "tokens of the vocabulary that stand before every picture (LLaVA v0: <im_start>)"
    )
    after: list[str] = setting([], "tokens that stand after it (LLaVA v0: <im_end>)")
    tiles: list[list[int]] = setting(
        [],
        "sizes (height, width) that a large picture may be cut into tiles at, beside a small copy "
        "of the whole (LLaVA 1.6); none: every picture is one tile",
    )

    def check(self) -> None:
        if self.layer == []:
            raise ConfigError("layer: names no block of the tower.")
        for size in self.tiles:
            if len(size) != 2 or min(size) < 1:
                raise ConfigError(f"tiles: {size} is no (height, width).")

    # What text models have at the top, for what reads text.

    @property
    def tokenizer(self) -> object:
        """The language model's tokenizer, null when the weights' folder holds one."""
        return self.text.tokenizer

    @property
    def special(self) -> dict[str, int]:
        """Ids of the language model's special tokens by role."""
        return self.text.special

    def inputs(self) -> str:
        """Returns what zoo.info says of the inputs."""
        describe = getattr(self.vision, "inputs", None)
        pictures = describe() if describe else "pictures"
        return f"text with any number of pictures; {self.text.inputs()}; {pictures}"
