"""Schemas of the parts. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from zoo.errors import ConfigError
from zoo.registry import kind, part, setting

Activation = Literal[
    "relu", "gelu", "gelu_tanh", "quick_gelu", "silu", "tanh", "sigmoid", "relu_squared", "linear"
]


# -- norms -----------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class NormConfig:
    """What every norm is asked: its width comes from where it stands."""

    adaptive: ClassVar[bool] = False  # whether it reads the vector that a stack is told


@kind("norm", "layer", builds="zoo.nn.norm:LayerNorm")
@dataclass(kw_only=True)
class LayerNormConfig(NormConfig):
    """Ba et al. 2016, arXiv 1607.06450."""

    eps: float = setting(1e-5, "added to the variance", low=0.0)
    bias: bool = setting(True, "whether a learned shift follows the learned scale")


@kind("norm", "rms", builds="zoo.nn.norm:RMSNorm")
@dataclass(kw_only=True)
class RMSNormConfig(NormConfig):
    """Zhang and Sennrich 2019, arXiv 1910.07467: no mean is subtracted, no shift is learned."""

    eps: float = setting(1e-6, "added to the mean square", low=0.0)


@kind("norm", "scale", builds="zoo.nn.norm:ScaleNorm")
@dataclass(kw_only=True)
class ScaleNormConfig(NormConfig):
    """Nguyen and Salazar 2019, arXiv 1910.05895: unit length times one learned scalar, which
    starts at sqrt(width)."""

    eps: float = setting(1e-5, "smallest length that is divided by", above=0.0)


@kind("norm", "response", builds="zoo.nn.norm:ResponseNorm")
@dataclass(kw_only=True)
class ResponseNormConfig(NormConfig):
    """Woo et al. 2023, arXiv 2301.00808: a channel counts by its length over all tokens against
    that of the other channels. It is added to its input, and starts as nothing."""

    eps: float = setting(1e-6, "added to the mean length", low=0.0)


@kind("norm", "adaptive", builds="zoo.nn.norm:AdaptiveNorm")
@dataclass(kw_only=True)
class AdaptiveNormConfig(NormConfig):
    """A norm whose scale and shift are read from a vector that the whole stack is told (Perez et
    al. 2017, arXiv 1709.07871; Peebles and Xie 2022, arXiv 2212.09748): norm(x) (1 + scale) +
    shift."""

    adaptive: ClassVar[bool] = True
    norm: NormConfig | None = part("norm", "layer", "what is scaled and shifted; null: x itself")
    bias: bool = setting(True, "bias of the linear map from the vector")

    def check(self) -> None:
        if self.norm is not None and self.norm.adaptive:
            raise ConfigError("norm: an adaptive norm stands around a plain one.")


# -- positions -------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class PositionConfig:
    """How a stack knows where a token stands. A stack may hold several."""

    biases_scores: ClassVar[bool] = False  # whether a kernel must be able to add a bias


@kind("position", "learned", builds="zoo.nn.position:LearnedPosition")
@dataclass(kw_only=True)
class LearnedPositionConfig(PositionConfig):
    """A table with one row per position, added to the input."""

    length: int | None = setting(None, "rows of the table; null takes the stack's `length`", low=1)
    offset: int = setting(0, "row of position 0 (RoBERTa, OPT and FSMT start at 2)", low=0)


@kind("position", "learned-grid", builds="zoo.nn.position:LearnedGridPosition")
@dataclass(kw_only=True)
class LearnedGridPositionConfig(PositionConfig):
    """A table over a grid of image patches, added to the input and interpolated to other grids
    (Dosovitskiy 2020)."""

    prefix: int | None = setting(
        None, "how many of the tokens before the grid have rows too; null gives all of them", low=0
    )
    antialias: bool = setting(
        True, "low-pass filter when a grid shrinks (timm does, transformers does not)"
    )


@kind("position", "learned-axial", builds="zoo.nn.grid:LearnedAxialPosition")
@dataclass(kw_only=True)
class LearnedAxialPositionConfig(PositionConfig):
    """A table for every axis of a grid of codes, (time,) rows and columns, added up, and one row
    for each token before the grid (Ramesh et al. 2021, arXiv 2102.12092, appendix B)."""

    before: bool = setting(True, "whether the tokens before the grid have rows too")


@kind("position", "sinusoidal", builds="zoo.nn.position:SinusoidalPosition")
@dataclass(kw_only=True)
class SinusoidalPositionConfig(PositionConfig):
    """Fixed sines and cosines added to the input (Vaswani et al. 2017, section 3.5)."""

    layout: Literal["split", "interleaved"] = setting(
        "split", "sines then cosines, or in turns as the paper writes it"
    )
    spacing: Literal["paper", "tensor2tensor"] = setting(
        "paper",
        "exponent of the frequencies: 2i/d, or i/(d/2-1) as in tensor2tensor, fairseq and Whisper",
    )
    offset: int = setting(
        0, "sine position of position 0 (fairseq starts after the padding index)", low=0
    )
    period: float = setting(10000.0, "longest wave length over 2 pi", above=1.0)


@kind("position", "rope", builds="zoo.nn.position:RotaryPosition")
@dataclass(kw_only=True)
class RotaryPositionConfig(PositionConfig):
    """Rotation of queries and keys (Su et al. 2021, arXiv 2104.09864), half-split layout."""

    theta: float = setting(10000.0, "base of the frequencies", above=0.0)
    fraction: float = setting(
        1.0, "share of each head's channels that turns (GPT-NeoX: 0.25)", above=0.0, high=1.0
    )
    scaling: Literal["none", "linear", "dynamic", "llama3", "yarn"] = setting(
        "none", "how contexts grow past training"
    )
    factor: float = setting(1.0, "how many times longer the context becomes", low=1.0)
    original_length: int = setting(2048, "context length of the training before scaling", low=1)
    low_frequency_factor: float = setting(
        1.0, "llama3: wave lengths above original/this are stretched fully", above=0.0
    )
    high_frequency_factor: float = setting(
        4.0, "llama3: wave lengths below original/this are kept", above=0.0
    )
    beta_fast: float = setting(
        32.0, "yarn: turns over the original context above which a channel is kept", above=0.0
    )
    beta_slow: float = setting(
        1.0, "yarn: turns below which a channel is stretched fully", above=0.0
    )
    attention_factor: float | None = setting(
        None, "yarn: factor on cos and sin; null takes 0.1 ln(factor) + 1"
    )


@kind("position", "rope-grid", builds="zoo.nn.position:RotaryGridPosition")
@dataclass(kw_only=True)
class RotaryGridPositionConfig(PositionConfig):
    """Rotary positions over a grid: an equal share of the channels turns with each of (time,) row
    and column."""

    theta: float = setting(100.0, "base of the frequencies", above=0.0)
    before: Literal["still", "blank"] = setting(
        "still",
        "tokens before the grid are not turned, or (LlamaGen) their queries and keys are nothing",
    )


@kind("position", "alibi", builds="zoo.nn.position:AlibiPosition")
@dataclass(kw_only=True)
class AlibiPositionConfig(PositionConfig):
    """A penalty on the scores that grows with distance (Press et al. 2021, arXiv 2108.12409)."""

    biases_scores: ClassVar[bool] = True
    max_bias: float = setting(
        8.0, "the steepest heads halve per head down to 2^-max_bias", above=0.0
    )
    factor: float = setting(1.0, "factor on the whole bias", above=0.0)
    rounding: Literal["none", "bfloat16"] = setting(
        "none",
        "bfloat16: slope times place of the key, both rounded so, as Falcon-RW was trained; "
        "none: slope times distance",
    )


@kind("position", "t5", builds="zoo.nn.relative:BucketPosition")
@dataclass(kw_only=True)
class BucketPositionConfig(PositionConfig):
    """A learned bias per head and bucket of distances (Raffel et al. 2020, arXiv 1910.10683,
    section 2.1)."""

    biases_scores: ClassVar[bool] = True
    buckets: int = setting(
        32, "rows of the table; in both directions half of them serve each", low=2
    )
    max_distance: int = setting(128, "distances from here on share the last bucket", low=1)
    per_layer: bool = setting(False, "a table in every layer (UMT5) instead of one for the stack")


@kind("position", "shaw", builds="zoo.nn.relative:ShawPosition")
@dataclass(kw_only=True)
class ShawPositionConfig(PositionConfig):
    """Learned vectors for clipped distances, added to keys and values (Shaw et al. 2018, arXiv
    1803.02155)."""

    distance: int = setting(16, "distances are clipped to [-distance, distance]", low=1)
    values: bool = setting(True, "whether values get vectors too")
    shared: bool = setting(False, "one table for keys and values")


@kind("position", "transformer-xl", builds="zoo.nn.relative:RelativePosition")
@dataclass(kw_only=True)
class RelativePositionConfig(PositionConfig):
    """Scores from content and from a projected sinusoid of the distance (Dai et al. 2019, arXiv
    1901.02860).

    Transformer-XL, XLNet (with segments) and the Conformer (interleaved).
    """

    biases_scores: ClassVar[bool] = True
    layout: Literal["split", "interleaved"] = setting(
        "split", "of the sinusoid: sines then cosines, or in turns"
    )
    segments: bool = setting(False, "a third term: same segment as the query or another (XLNet)")
    clamp: int | None = setting(
        None, "distances are clipped to [-clamp, clamp]; null clips none", low=1
    )


@kind("position", "continuous", builds="zoo.nn.relative:ContinuousPosition")
@dataclass(kw_only=True)
class ContinuousPositionConfig(PositionConfig):
    """A bias per head that a small network makes of the offset on each axis of a grid, which it
    sees as sign(x) log(1 + |x|) (Liu et al. 2021, arXiv 2111.09883, section 3.3)."""

    biases_scores: ClassVar[bool] = True
    width: int | None = setting(None, "of its hidden layers; null: as the stack", low=1)
    layers: int = setting(1, "hidden layers", low=1)
    slope: float = setting(0.0, "of their activation below zero; 0 is a ReLU", low=0.0)


# -- attention -------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class KernelConfig:
    """How outputs come from projected q, k and v."""


@kind("kernel", "sdpa", builds="zoo.nn.kernel:SDPAKernel")
@dataclass(kw_only=True)
class SDPAKernelConfig(KernelConfig):
    """PyTorch's scaled_dot_product_attention: flash, memory-efficient or math, as the machine
    has them."""

    backend: Literal["auto", "flash", "efficient", "math", "cudnn"] = setting(
        "auto", "which of them; auto lets torch choose"
    )


@kind("kernel", "plain", builds="zoo.nn.kernel:PlainKernel")
@dataclass(kw_only=True)
class PlainKernelConfig(KernelConfig):
    """softmax(q k^T * scale + bias) v written out: the path that others are tested against, and
    that shows its weights."""

    softmax: Literal["input", "float32"] = setting("input", "dtype of the softmax")


@dataclass(kw_only=True)
class MixerConfig:
    """What stands where attention stands: it takes and gives (b n d)."""

    zoo_kind: ClassVar[str]

    def shape(self, width: int) -> tuple[int, int, int]:
        """Returns (heads, key heads, channels of a head), as positions are told in a stack of this
        width; a mixer without heads counts as one."""
        return 1, 1, width


@kind("attention", "multihead", builds="zoo.nn.attention:Attention")
@dataclass(kw_only=True)
class AttentionConfig(MixerConfig):
    """Multi-head, grouped-query (kv_heads < heads) and multi-query (kv_heads = 1) attention."""

    heads: int | None = setting(None, "query heads; null gives one per 64 channels", low=1)
    kv_heads: int | None = setting(
        None, "key and value heads; null gives as many as query heads", low=1
    )
    head_dim: int | None = setting(None, "channels of a head; null gives width / heads", low=1)
    scale: float | None = setting(
        None, "factor on the scores; null gives head_dim^-0.5 (T5: 1)", above=0.0
    )
    qkv_bias: bool = setting(True, "bias on the query, key and value projections")
    out_bias: bool = setting(True, "bias on the output projection")
    clip: float | None = setting(
        None, "queries, keys and values are clipped to [-clip, clip] (MPT)", above=0.0
    )
    qk_norm: NormConfig | None = part(
        "norm", None, "norm over each head's queries and keys, before positions"
    )
    dropout: float = setting(
        0.0, "dropout on the attention weights, in training", low=0.0, high=1.0
    )
    window: int | None = setting(
        None, "only the last so many tokens are seen (Mistral); null sees all", low=1
    )
    pattern: Literal["full", "row", "column", "convolution"] = setting(
        "full",
        "which codes of a grid a code sees, besides all that stands before the grid: all, the last "
        "row of them, its column, or a square around it (DALL-E, Parti)",
    )
    pattern_size: int = setting(11, "side of that square", low=1)
    kernel: KernelConfig = part("kernel", "sdpa", "how outputs come from q, k and v")

    def shape(self, width: int) -> tuple[int, int, int]:
        """Returns (heads h, key heads g, head_dim c) in a stack of this width."""
        heads = self.heads or max(1, width // (self.head_dim or 64))
        return heads, self.kv_heads or heads, self.head_dim or width // heads

    def check(self) -> None:
        if self.heads and self.kv_heads and self.heads % self.kv_heads:
            raise ConfigError(
                f"kv_heads: {self.heads} query heads cannot share {self.kv_heads} key heads evenly."
            )


# -- feed-forward ----------------------------------------------------------------------------------


@dataclass(kw_only=True)
class FeedForwardConfig:
    """What happens to each token alone."""

    hidden: int | None = setting(None, "inner width; null gives ratio x width", low=1)
    ratio: float = setting(4.0, "inner width over width when `hidden` is null", above=0.0)
    activation: Activation = setting(
        "gelu", "gelu is the exact one (erf); gelu_tanh and quick_gelu are its approximations"
    )
    bias: bool = setting(True, "bias on its projections")
    dropout: float = setting(0.0, "dropout after the activation, in training", low=0.0, high=1.0)
    inner_norm: NormConfig | None = part(
        "norm", None, "norm before the projection down (NormFormer, arXiv 2110.09456)"
    )

    def inner(self, width: int) -> int:
        """Returns the inner width f in a stack of this width."""
        return self.hidden or round(self.ratio * width)


@kind("feedforward", "mlp", builds="zoo.nn.feedforward:MLP")
@dataclass(kw_only=True)
class MLPConfig(FeedForwardConfig):
    """down(activation(up(x)))."""


@kind("feedforward", "gated", builds="zoo.nn.feedforward:GatedMLP")
@dataclass(kw_only=True)
class GatedMLPConfig(FeedForwardConfig):
    """down(activation(gate(x)) * up(x)): the GLU family (Shazeer 2020, arXiv 2002.05202)."""

    activation: Activation = setting(
        "silu", "of the gate: silu is SwiGLU, gelu GEGLU, relu ReGLU, sigmoid GLU, linear bilinear"
    )


# -- convolution -----------------------------------------------------------------------------------


@dataclass(kw_only=True)
class ConvolutionConfig:
    """What mixes neighbouring tokens: it takes and gives (b n d), and knows which tokens are
    padding."""


@kind("convolution", "gated", builds="zoo.nn.convolution:GatedConvolution")
@dataclass(kw_only=True)
class GatedConvolutionConfig(ConvolutionConfig):
    """down(activation(norm(depthwise(glu(up(x)))))): the Conformer's module (Gulati et al. 2020,
    arXiv 2005.08100, section 2.2)."""

    kernel: int = setting(31, "tokens that the depthwise convolution sees", low=1)
    causal: bool = setting(False, "whether it sees only a token and what came before")
    norm: Literal["batch", "layer", "group", "none"] = setting(
        "batch",
        "after the depthwise convolution: statistics over all real tokens of a batch, over a "
        "token's channels, over all of a sequence (one group), none",
    )
    eps: float = setting(1e-5, "added to the norm's variance", low=0.0)
    momentum: float = setting(
        0.1, "share of a batch in the running statistics of norm 'batch'", low=0.0, high=1.0
    )
    activation: Activation = setting("silu", "after the norm")
    bias: bool = setting(True, "bias on its three convolutions")


@kind("convolution", "grid", builds="zoo.nn.convolution:GridConvolution")
@dataclass(kw_only=True)
class GridConvolutionConfig(ConvolutionConfig):
    """feedforward(norm(depthwise(x))) over the rows and columns of a grid: ConvNeXt's block without
    its residual (Liu et al. 2022, arXiv 2201.03545; with norm `response` within, Woo et al.
    2023)."""

    kernel: int = setting(3, "side of the square that the depthwise convolution sees", low=1)
    times: int | None = setting(None, "and times of a clip; null: a place's own alone", low=1)
    causal: bool = setting(False, "of those times, whether it sees only what came before")
    sequences: Literal["frames", "places"] = setting(
        "frames", "what a sequence holds of a clip: places of one time, or times of one place"
    )
    bias: bool = setting(True, "bias of the depthwise convolution")
    norm: NormConfig | None = part("norm", "layer", "after the depthwise convolution; null: none")
    feedforward: FeedForwardConfig | None = part(
        "feedforward", "mlp", "what each place goes through then; null: nothing"
    )

    def check(self) -> None:
        if not self.causal and self.times and self.times % 2 == 0:
            raise ConfigError(
                f"times: as many before as after make an odd number, not {self.times}."
            )
        if self.kernel % 2 == 0:
            raise ConfigError(
                f"kernel: a square around a place has an odd side, not {self.kernel}."
            )
