"""Schema of a stack: the axes on which every family is a point. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from zoo.errors import ConfigError
from zoo.nn.schema import (
    AttentionConfig,
    ConvolutionConfig,
    FeedForwardConfig,
    MixerConfig,
    NormConfig,
)
from zoo.registry import kind, part, parts, resolve, setting, to_mapping

Sublayer = Literal["attention", "cross_attention", "convolution", "feedforward"]


@dataclass(kw_only=True)
class BackboneConfig:
    """What takes and gives (b n d). A stack alone, or stacks around it."""

    @property
    def reads(self) -> int:
        """Channels of what it reads besides its input: a memory, a condition."""
        raise NotImplementedError


@kind("backbone", "transformer", builds="zoo.backbones.transformer:Transformer")
@dataclass(kw_only=True)
class TransformerConfig(BackboneConfig):
    """A stack of equal blocks: encoder, decoder, or (with `cross_attention`) the decoder of an
    encoder-decoder."""

    # size
    depth: int = setting(12, "blocks", low=0)
    width: int = setting(768, "channels d of the residual stream", low=1)
    length: int | None = setting(
        None, "context length: rows of a table of positions, and what an export states", low=1
    )
    # parts
    norm: NormConfig = part("norm", "layer", "every norm of the stack")
    outer_norm: NormConfig | None = part(
        "norm", None, "the norms before the first and after the last block; null: as `norm`"
    )
    feedforward_norm: NormConfig | None = part(
        "norm", None, "the feed-forward's norms; null: as `norm`"
    )
    attention: MixerConfig = part("attention", "multihead", "what mixes tokens")
    cross_attention: MixerConfig | None = part(
        "attention", None, "attention to a memory; null in a stack alone"
    )
    feedforward: FeedForwardConfig = part("feedforward", "mlp", "what happens to each token alone")
    convolution: ConvolutionConfig | None = part(
        "convolution", None, "what mixes neighbours, where `order` names it"
    )
    position: list = parts(
        "position", "none", "how it knows where a token stands: one part, a list, or none"
    )
    # shape of the block
    causal: bool = setting(False, "whether a token sees only itself and what came before")
    placement: Literal["pre", "post", "both", "none"] = setting(
        "pre", "norm before a sublayer, after its sum, both sides, none"
    )
    pre_norms: list[Sublayer] = setting(
        ["attention", "cross_attention", "convolution", "feedforward"],
        "with placement pre or both: sublayers that have the norm before them",
    )
    raw_keys: bool = setting(
        False, "keys and values of self-attention are made from what its norm reads, not gives"
    )
    post_norms: list[Sublayer] = setting(
        ["attention", "cross_attention", "convolution", "feedforward"],
        "with placement both: sublayers that have the norm after them (NormFormer: no feedforward)",
    )
    parallel: bool = setting(
        False, "attention and feed-forward read the same input and add up (GPT-J, Falcon)"
    )
    parallel_norms: Literal[1, 2] = setting(
        1, "norms of a parallel block: one shared, or one for each branch"
    )
    order: list[Sublayer] = setting(
        ["attention", "cross_attention", "feedforward"],
        "sublayers of a block, in order; all but attention may stand there twice",
    )
    memory_map: bool = setting(
        False,
        "each block reads the memory through silu and a linear map of its own (aMUSEd), which has "
        "a bias where the cross-attention's projections have",
    )
    residual: dict[str, list[float]] = setting(
        {},
        "factors of (stream, branch) in a sublayer's sum where they are not 1: "
        "{feedforward: [1, 0.5]} are half steps",
    )
    block_norm: bool = setting(False, "norm at the end of every block (Conformer)")
    final_norm: bool = setting(True, "norm after the last block")
    embedding_norm: bool = setting(False, "norm before the first block (BERT, Bloom, CLIP)")
    layer_scale: float | None = setting(
        None, "start value of a learned factor per channel on each sublayer (DINO, CaiT)"
    )
    # variation over depth
    layers: list[dict[str, Any]] = setting(
        [], "keys that differ by layer, cycled: [{}, {attention: {window: 256}}]"
    )
    # training
    dropout: float = setting(
        0.0, "dropout on each sublayer's output and on the embeddings", low=0.0, high=1.0
    )
    embedding_dropout: float | None = setting(
        None, "dropout on the embeddings where it is not `dropout`", low=0.0, high=1.0
    )
    drop_path: float = setting(
        0.0,
        "chance that a sample skips a sublayer, growing linearly to this at the top",
        low=0.0,
        high=1.0,
    )
    init_std: float = setting(0.02, "standard deviation of new weights", above=0.0)
    init_residual: Literal["plain", "depth"] = setting(
        "plain", "depth: output projections start smaller by sqrt(2 depth) (GPT-2)"
    )
    checkpoint: bool = setting(
        False, "recompute blocks in the backward pass instead of storing them"
    )

    @property
    def reads(self) -> int:
        return self.width

    def block(self, index: int) -> TransformerConfig:
        """Returns the config of one block: this one with the keys of `layers` that fall to it."""
        change = self.layers[index % len(self.layers)] if self.layers else None
        if not change:
            return self
        plain = _lay_over(to_mapping(self, omit=("layers",)), change)
        return resolve("backbone", plain, f"layers.{index % len(self.layers)}")

    def check(self) -> None:
        self._check_order()
        if self.feedforward_norm is not None and (
            self.feedforward_norm.adaptive != self.norm.adaptive or self.parallel
        ):
            raise ConfigError(
                "feedforward_norm: must be adaptive where `norm` is, and a block not parallel."
            )
        if self.parallel and self.parallel_norms == 2 and self.placement in ("post", "none"):
            raise ConfigError(
                "parallel_norms: two norms stand before the branches, so placement is pre or both, "
                f"not {self.placement}."
            )
        if self.raw_keys and (self.parallel or not isinstance(self.attention, AttentionConfig)):
            raise ConfigError(
                "raw_keys: is for multihead attention in a block that is not parallel."
            )
        heads = getattr(self.attention, "heads", None)
        if heads and getattr(self.attention, "head_dim", None) is None and self.width % heads:
            raise ConfigError(
                f"attention.heads: width {self.width} does not divide into {heads} heads; "
                "give head_dim."
            )

    def sublayers(self) -> list[tuple[str, str]]:
        """Returns (name, kind) of a block's sublayers in order; what stands there again is called
        feedforward_2."""
        found: list[tuple[str, str]] = []
        for sublayer in self.order:
            if sublayer == "cross_attention" and self.cross_attention is None:
                continue
            count = sum(sublayer == other for _, other in found) + 1
            found.append((sublayer if count == 1 else f"{sublayer}_{count}", sublayer))
        return found

    def _check_order(self) -> None:
        if self.order.count("attention") > 1:
            raise ConfigError("order: attention can stand in a block only once.")
        if self.order.count("cross_attention") > 1 and self.causal:
            raise ConfigError(
                "order: a causal stack keeps one memory a layer, so cross_attention can stand in a "
                "block only once."
            )
        if self.memory_map and self.cross_attention is None:
            raise ConfigError("memory_map: this stack reads no memory; set cross_attention.")
        if "convolution" in self.order and self.convolution is None:
            raise ConfigError("convolution: `order` names one; set it to gated.")
        for name, factors in self.residual.items():
            if name not in self.order:
                raise ConfigError(f"residual: {name!r} is none of the sublayers in `order`.")
            if len(factors) != 2:
                raise ConfigError(f"residual.{name}: needs two factors, of stream and branch.")
        if self.parallel and (self.residual or len(set(self.order)) < len(self.order)):
            raise ConfigError("parallel: its branches add up plainly, and each stands there once.")


@kind("backbone", "u-transformer", builds="zoo.backbones.ushape:UTransformer")
@dataclass(kw_only=True)
class UTransformerConfig(BackboneConfig):
    """A stack between two others that see the grid before and after it is made coarser and
    narrower (U-ViT: Hoogeboom et al. 2023, arXiv 2301.11093; aMUSEd)."""

    width: int = setting(768, "channels d that go in and come out", low=1)
    norm: NormConfig = part("norm", "rms", "of what goes in and what comes out, and of resampling")
    bias: bool = setting(False, "bias of the linear maps between the stacks")
    factor: Literal[1, 2] = setting(1, "how many places of the grid, each way, become one")
    down: TransformerConfig = part("backbone", "transformer", "before the middle")
    middle: TransformerConfig = part("backbone", "transformer", "most of it")
    up: TransformerConfig = part("backbone", "transformer", "after the middle; as wide as `down`")
    init_std: float = setting(0.02, "standard deviation of new weights of those maps", above=0.0)

    def check(self) -> None:
        if self.down.width != self.up.width:
            raise ConfigError(f"up.width: must be down's, {self.down.width}, not {self.up.width}.")
        for name in ("down", "middle", "up"):
            stack = getattr(self, name)
            if stack.causal:
                raise ConfigError(f"{name}.causal: places that become one cannot wait in line.")
            if (stack.cross_attention is None) != (self.middle.cross_attention is None):
                raise ConfigError(f"{name}.cross_attention: all three stacks read the memory.")
        if self.norm.adaptive:
            raise ConfigError("norm: these norms read no condition; the stacks' may.")

    @property
    def reads(self) -> int:
        return self.middle.width

    @property
    def causal(self) -> bool:
        """Whether a token sees only what came before: never."""
        return False

    @property
    def cross_attention(self) -> MixerConfig | None:
        """How the memory is read in most of it."""
        return self.middle.cross_attention


def _lay_over(base: Any, change: Any) -> Any:
    """Returns `base` with the keys of `change` laid over it; a part that is named is replaced."""
    if not isinstance(base, dict) or not isinstance(change, dict) or {"name", "kind"} & set(change):
        return change
    return {**base, **{key: _lay_over(base.get(key), value) for key, value in change.items()}}
