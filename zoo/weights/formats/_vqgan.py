"""What the public layouts of VQ-GAN share: the same network under four sets of names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zoo.errors import ConfigError
from zoo.registry import to_mapping
from zoo.weights.formats import _lossless
from zoo.weights.formats._text import stack_computation
from zoo.weights.map import Fuse, Optional, Rename, Rule, Squeeze

__all__ = ["Names", "checked", "network", "network_rows", "quantizer_rows", "same_network"]

# Keys of ours that no public config has: what it is for people, how it is trained, how raw pictures
# are brought to size.
NOT_STORED = (
    "weights", "card", "reconstruction", "resize", "interpolation", "image",
    *(f"quantizer.{key}" for key in ("commitment", "ema", "revive", "hard", "temperature", "kl",
                                     "anneal", "bias")),
)  # fmt: skip


def checked(format: Any, config: Any, public: dict[str, Any]) -> dict[str, Any]:
    """Returns `public` if a visual tokenizer comes back from it; raises ConfigError."""
    return _lossless.checked(format, config, public, _computation, ignore=NOT_STORED)


def _computation(config: Any) -> dict[str, Any]:
    """Returns the plain config, its stacks as what they compute."""
    plain = to_mapping(config)
    for half in ("encoder", "decoder"):
        for name in ("backbone", "spatial", "temporal"):
            stack = getattr(getattr(config, half), name, None)
            if stack is not None:
                plain[half][name] = stack_computation(stack)
    return plain


@dataclass(frozen=True)
class Names:
    """How one layout calls the parts. `{}` is the number of a level, `*` that of a block."""

    down: str = "encoder.down.{}."
    up: str = "decoder.up.{}."
    up_from_full: bool = True  # whether level 0 of `up` is the one at full resolution
    block: str = "block.*."
    attention: str = "attn.*."
    downsample: str = "downsample."
    upsample: str = "upsample."
    middle: tuple[str, str, str] = ("mid.block_1.", "mid.attn_1.", "mid.block_2.")
    shortcut: str = "nin_shortcut."
    norm_out: str = "norm_out."
    # norm, query, key, value, output of an attention; whether the last four are 1x1 convolutions
    attention_parts: tuple[str, ...] = ("norm.", "q.", "k.", "v.", "proj_out.")
    convolved: bool = True


def network(
    channels: int,
    multipliers: list[int],
    blocks: int,
    latent: int,
    attention: list[int],
    middle_attention: bool = True,
    groups: int = 32,
) -> dict[str, Any]:
    """Returns the `encoder` and `decoder` of our node."""
    half = {
        "kind": "vqgan",
        "channels": channels,
        "multipliers": list(multipliers),
        "latent": latent,
        "attention": attention,
        "middle_attention": middle_attention,
        "norm_groups": groups,
    }
    return {"encoder": half | {"blocks": blocks}, "decoder": half | {"blocks": blocks + 1}}


def same_network(config: Any, layout: str) -> Any:
    """Returns the encoder's config; raises ConfigError where the public layout, which describes
    encoder and decoder by one set of numbers, cannot say what ours is."""
    encoder, decoder = config.encoder, config.decoder
    if encoder.zoo_kind != "vqgan" or getattr(decoder, "zoo_kind", None) != "vqgan":
        raise ConfigError(f"Format {layout!r} holds vqgan encoders and decoders alone.")
    expected = {**vars(encoder), "blocks": encoder.blocks + 1}
    lost = [key for key, value in vars(decoder).items() if expected[key] != value]
    if lost:
        raise ConfigError(
            f"Format {layout!r} cannot say decoder.{lost[0]} = {getattr(decoder, lost[0])}; it "
            f"means {expected[lost[0]]}."
        )
    return encoder


def network_rows(config: Any, names: Names, halves: tuple[str, ...]) -> list[Rule]:
    """Returns the rows of encoder and decoder."""
    rows: list[Rule] = []
    for half in halves:
        part = getattr(config, half)
        rows += [
            Rename(f"{half}.conv_in.", f"{half}.input."),
            Rename(f"{half}.{names.norm_out}", f"{half}.norm."),
            Rename(f"{half}.conv_out.", f"{half}.output."),
        ]
        first, middle, second = (f"{half}.{name}" for name in names.middle)
        rows += _block(first, f"{half}.middle.first.", names, changes=False)
        rows += _block(second, f"{half}.middle.second.", names, changes=False)
        if part.middle_attention:
            rows += _attention(middle, f"{half}.middle.attention.", names)
        rows += _levels(half, part, names)
    return rows


def _levels(half: str, part: Any, names: Names) -> list[Rule]:
    rows: list[Rule] = []
    count = len(part.multipliers)
    down = half == "encoder"
    for index in range(count):
        resolution = index if down else count - 1 - index  # 0 is full
        theirs = (
            names.down.format(index)
            if down
            else names.up.format(resolution if names.up_from_full else index)
        )
        ours = f"{half}.levels.{index}."
        rows += _block(theirs + names.block, ours + "blocks.*.", names, changes=True)
        if resolution in part.attention:
            rows += _attention(theirs + names.attention, ours + "attentions.*.", names)
        if index < count - 1 and not (down and part.halving == "mean"):
            resample = names.downsample if down else names.upsample
            rows.append(Rename(f"{theirs}{resample}conv.", f"{ours}resample.conv."))
    return rows


def _block(theirs: str, ours: str, names: Names, changes: bool) -> list[Rule]:
    rows = [Rename(f"{theirs}{name}.", f"{ours}{name}.") for name in _BLOCK]
    if changes:  # only where a level is wider than the one before
        rows.append(Optional(Rename(theirs + names.shortcut, ours + "shortcut.")))
    return rows


_BLOCK = ("norm1", "conv1", "norm2", "conv2")


def _attention(theirs: str, ours: str, names: Names) -> list[Rule]:
    norm, *projections, out = (theirs + name for name in names.attention_parts)
    flat = (Squeeze(2, 3),) if names.convolved else ()
    return [
        Rename(norm, ours + "norm."),
        Fuse([p + "weight" for p in projections], ours + "attention.qkv.weight", *flat),
        Fuse([p + "bias" for p in projections], ours + "attention.qkv.bias"),
        Rename(out + "weight", ours + "attention.out.weight", *flat),
        Rename(out + "bias", ours + "attention.out.bias"),
    ]


def quantizer_rows(config: Any, gumbel: bool = False) -> list[Rule]:
    """Returns the rows of the table and of the 1x1 convolutions on both sides of it."""
    flat = Squeeze(2, 3)
    rows = [
        Rename("quant_conv.weight", "quantizer.project_in.weight", flat),
        Rename("quant_conv.bias", "quantizer.project_in.bias"),
        Rename("post_quant_conv.weight", "quantizer.project_out.weight", flat),
        Rename("post_quant_conv.bias", "quantizer.project_out.bias"),
    ]
    if gumbel:
        return [
            *rows,
            Rename("quantize.proj.weight", "quantizer.logits.weight", flat),
            Rename("quantize.proj.bias", "quantizer.logits.bias"),
            Rename("quantize.embed.weight", "quantizer.table"),
        ]
    return [*rows, Rename("quantize.embedding.weight", "quantizer.table")]
