"""The tensors of diffusers' `UVit2DModel`, and what they are called here."""

from __future__ import annotations

from typing import Any

from zoo.weights.map import (
    Fuse,
    Rename,
    Reorder,
    Reshape,
    Rule,
    Squeeze,
    Step,
    Transpose,
)

__all__ = ["transformer_rows"]


def transformer_rows(config: Any) -> list[Rule]:
    """Returns the rows of the transformer's file."""
    backbone = config.backbone
    flat, outer = Squeeze(2, 3), backbone.down.width
    rows: list[Rule] = [
        *_linear("encoder_proj", "prompt.project", config.prompt_bias),
        Rename("encoder_proj_layer_norm.weight", "prompt.features_norm.weight"),
        *_linear("cond_embed.linear_1", "prompt.vector.up", config.prompt_bias),
        *_linear("cond_embed.linear_2", "prompt.vector.down", config.prompt_bias),
        Rename("embed.embeddings.weight", "embedding.table.weight"),
        Rename("embed.layer_norm.weight", "backbone.input_norm.weight"),
        *_linear("embed.conv", "backbone.input", backbone.bias, flat),
        *_stem_rows("down_block.", "backbone.down.", backbone.down),
        Rename("project_to_hidden_norm.weight", "backbone.down.final_norm.weight"),
        *_linear("project_to_hidden", "backbone.widen", backbone.bias),
        *(_middle_rows(backbone.middle, backbone.bias) if backbone.middle.depth else ()),
        Rename("project_from_hidden_norm.weight", "backbone.middle.final_norm.weight"),
        *_linear("project_from_hidden", "backbone.narrow", backbone.bias),
        *_stem_rows("up_block.", "backbone.up.", backbone.up),
        *_linear("mlm_layer.conv1", "backbone.output", backbone.bias, flat),
        Rename("mlm_layer.layer_norm.weight", "backbone.output_norm.weight"),
        *_linear("mlm_layer.conv2", "head", config.head_bias, flat),
    ]
    if backbone.factor == 2:
        block = Reshape((outer, outer, 2, 2), (outer, 4 * outer))
        rows += [
            Rename("down_block.downsample.norm.weight", "backbone.shrink.norm.weight"),
            *_linear("down_block.downsample.conv", "backbone.shrink.map", backbone.bias, block),
            Rename("up_block.upsample.norm.weight", "backbone.grow.norm.weight"),
            Rename("up_block.upsample.conv.weight", "backbone.grow.map.weight", block, Transpose()),
        ]
        if backbone.bias:
            rows.append(Rename("up_block.upsample.conv.bias", "backbone.grow.bias"))
    return rows


def _linear(theirs: str, ours: str, bias: bool, *steps: Step) -> list[Rule]:
    rows: list[Rule] = [Rename(f"{theirs}.weight", f"{ours}.weight", *steps)]
    return [*rows, Rename(f"{theirs}.bias", f"{ours}.bias")] if bias else rows


def _attention(theirs: str, ours: str, bias: bool, cross: bool) -> list[Rule]:
    rows: list[Rule] = []
    for end in ("weight", "bias") if bias else ("weight",):
        query, key, value = (f"{theirs}to_{name}.{end}" for name in "qkv")
        if cross:
            rows += [Rename(query, f"{ours}q.{end}"), Fuse([key, value], f"{ours}kv.{end}")]
        else:
            rows.append(Fuse([query, key, value], f"{ours}qkv.{end}"))
        rows.append(Rename(f"{theirs}to_out.0.{end}", f"{ours}out.{end}"))
    return rows


def _stem_rows(theirs: str, ours: str, stack: Any) -> list[Rule]:
    bias, rows = stack.cross_attention.qkv_bias, []
    for index in range(stack.depth // 2):
        block, layer = f"{theirs}res_blocks.{index}.", f"{ours}layers.{2 * index}."
        inner = f"{layer}convolution.feedforward."
        rows += [
            *_linear(f"{block}depthwise", f"{layer}convolution.depthwise", False, Squeeze(1)),
            Rename(f"{block}norm.weight", f"{layer}convolution.norm.weight"),
            *_linear(f"{block}channelwise_linear_1", f"{inner}up", bias),
            Rename(f"{block}channelwise_norm.gamma", f"{inner}inner_norm.weight", Squeeze(0, 1, 2)),
            Rename(f"{block}channelwise_norm.beta", f"{inner}inner_norm.bias", Squeeze(0, 1, 2)),
            *_linear(f"{block}channelwise_linear_2", f"{inner}down", bias),
            *_linear(f"{block}cond_embeds_mapper", f"{layer}convolution_norm.map", bias),
        ]
        if bias:
            rows.append(Rename(f"{block}depthwise.bias", f"{layer}convolution.depthwise.bias"))
        block, layer = f"{theirs}attention_blocks.{index}.", f"{ours}layers.{2 * index + 1}."
        if stack.memory_map:
            rows += _linear(f"{block}kv_mapper", f"{layer}memory_map", bias)
        for number, name in ((1, "cross_attention"), (2, "cross_attention_2")):
            rows.append(Rename(f"{block}norm{number}.weight", f"{layer}{name}_norm.weight"))
            rows += _attention(f"{block}attn{number}.", f"{layer}{name}.", bias, cross=True)
    return rows


def _middle_rows(stack: Any, bias: bool) -> list[Rule]:
    theirs, ours = "transformer_layers.*.", "backbone.middle.layers.*."
    rows: list[Rule] = []
    for number, name in ((1, "attention"), (2, "cross_attention"), (3, "feedforward")):
        rows += _linear(f"{theirs}norm{number}.linear", f"{ours}{name}_norm.map", bias)
        rows += _linear(
            f"{theirs}norm{number}.norm", f"{ours}{name}_norm.norm", bias and number == 3
        )
    rows += _attention(f"{theirs}attn1.", f"{ours}attention.", bias, cross=False)
    rows += _attention(f"{theirs}attn2.", f"{ours}cross_attention.", bias, cross=True)
    hidden = stack.feedforward.inner(stack.width)
    swapped = Reorder((hidden, hidden), (1, 0))
    up, down = f"{ours}feedforward.gate_up", f"{ours}feedforward.down"
    rows.append(Rename(f"{theirs}ff.net.0.proj.weight", f"{up}.weight", swapped))
    if bias:
        rows.append(Rename(f"{theirs}ff.net.0.proj.bias", f"{up}.bias", swapped))
    return [*rows, *_linear(f"{theirs}ff.net.2", down, bias)]
