"""timm's vision transformers: ViT, DeiT, DINO, SigLIP and CLIP towers.

timm names an architecture and, in `model_args`, where a model differs from it; `pretrained_cfg`
says how pictures become pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._preprocessor import whole
from zoo.weights.formats._timm_architectures import ARCHITECTURES, DEFAULTS
from zoo.weights.formats._vit import checked
from zoo.weights.formats.keys import Keys
from zoo.weights.map import Drop, Optional, Rename, Squeeze, WeightMap

__all__ = ["FORMAT"]

POOLS = {"token": "class", "avg": "mean", "map": "attention"}
NORMS = {"layernorm": "layer", "rmsnorm": "rms"}
SPELT_OUT = ("norm_eps", "mlp_layer", "distilled")  # of an architecture, never of model_args
REFUSED = (
    "scale_attn_norm", "scale_mlp_norm", "pool_include_prefix", "patch_drop_rate", "drop_rate",
)  # fmt: skip
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


# -- reading ---------------------------------------------------------------------------------------


def read_config(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of timm's config.json, as timm reads it (also its older flat form)."""
    if "pretrained_cfg" not in content:
        renamed = {"labels": "label_names"}
        inner = {renamed.get(key, key): value for key, value in content.items()}
        content = {key: inner.pop(key) for key in ("architecture", "num_features") if key in inner}
        content["pretrained_cfg"] = inner
    keys = Keys(content)
    name = keys.take("architecture", None, str)
    if name not in ARCHITECTURES:
        raise ConfigError(f"{keys.where}: architecture {name!r} is not implemented here.")
    keys.ignore("num_features", "global_pool")  # for people, says timm
    args, given = keys.section("model_args"), keys.section("pretrained_cfg")
    arguments = {**DEFAULTS, **ARCHITECTURES[name], **_read_arguments(args)}
    if "norm_layer" in args:
        arguments["norm_eps"] = DEFAULTS["norm_eps"]  # it replaces the architecture's whole norm
    pretrained = _read_pretrained(given, keys)
    channels, *size = given.take("input_size", [3, 224, 224], list)
    arguments["in_chans"] = args.take("in_chans", channels)
    fixed = given.take("fixed_input_size", False)
    image = args.pair("img_size", size if fixed else arguments["img_size"])
    size = image if fixed else size
    arguments["num_classes"] = keys.take(
        "num_classes", given.take("num_classes", args.take("num_classes", 1000))
    )
    for part in (args, given, keys):
        part.finish("timm-vit")
    node = read_arguments(arguments, image)
    node["tokenizer"].update(pretrained.pop("tokenizer"), size=None if size == image else size)
    labels = pretrained.pop("labels")
    node["labels"] = labels if len(labels) == node["classes"] else []
    return {**node, **pretrained}


def _read_arguments(args: Keys) -> dict[str, Any]:
    """Returns the model_args that differ from the architecture's; how weights start is let pass."""
    args.ignore("dynamic_img_size", "strict_img_size", "weight_init", "fix_init", "use_naflex")
    args.only("use_naflex", False, None)
    args.only("dynamic_img_pad", False, None)
    found = {}
    for key, default in DEFAULTS.items():
        if key in SPELT_OUT or key not in args:
            continue
        if key in ("img_size", "patch_size"):
            found[key] = args.pair(key)
        elif key == "init_values":
            found[key] = args.take(key, 0.0)
        elif key == "fc_norm":
            found[key] = args.take(key, False)
        else:
            found[key] = args.take(key, default)
    return found


def _read_pretrained(given: Keys, keys: Keys) -> dict[str, Any]:
    given.ignore(
        "url", "file", "hf_hub_id", "hf_hub_filename", "source", "architecture", "tag",
        "custom_load", "test_input_size", "min_input_size", "test_crop_pct", "label_offset",
        "pool_size", "test_pool_size", "first_conv", "classifier", "description", "origin_url",
        "paper_name", "notes", "state_dict", "num_features",
    )  # fmt: skip
    given.only("crop_border_pixels", None)
    modes = {"center": "shortest", "squash": "squash"}
    mode = given.take("crop_mode", "center")
    if mode not in modes:
        raise ConfigError(f"{given.where}: crop_mode {mode!r} is not implemented here.")
    names = keys.take("label_names", given.take("label_names", [], list, dict), list, dict)
    words = keys.take("label_descriptions", given.take("label_descriptions", {}), dict)
    ordered = names if isinstance(names, list) else [names[k] for k in sorted(names, key=int)]
    papers = given.take("paper_ids", [], list, str)
    paper = papers if isinstance(papers, str) else next(iter(papers), None)
    return {
        "tokenizer": {
            "resize": modes[mode],
            "crop": given.take("crop_pct", 0.875),
            "interpolation": given.take("interpolation", "bicubic"),
            "mean": given.take("mean", IMAGENET["mean"]),
            "std": given.take("std", IMAGENET["std"]),
        },
        "labels": [str(words.get(str(name), name)) for name in ordered],
        "card": {
            "license": given.take("license", None, str),
            "paper": paper.removeprefix("arXiv:") if paper else None,
        },
    }


def read_arguments(arguments: Mapping[str, Any], image: list[int]) -> dict[str, Any]:
    """Returns our node of the arguments of timm's VisionTransformer. Raises ConfigError."""
    a = arguments
    for key in REFUSED:
        if a[key]:
            raise ConfigError(f"timm's {key}={a[key]!r} is not implemented here.")
    for key, known in (("global_pool", POOLS), ("norm_layer", NORMS)):
        if a[key] not in known:
            raise ConfigError(f"timm's {key}={a[key]!r} is none of {', '.join(known)}.")
    if a["pos_drop_rate"] != a["proj_drop_rate"]:
        raise ConfigError("timm's pos_drop_rate and proj_drop_rate must be equal here.")
    if a["distilled"] and (a["no_embed_class"] or a["reg_tokens"] or a["global_pool"] != "token"):
        raise ConfigError("timm's distilled models have no registers and read the class token.")
    prefix = a["class_token"] + a["distilled"] + a["reg_tokens"]
    pooled = a["global_pool"] == "avg" if a["fc_norm"] is None else a["fc_norm"]
    norm = {"name": NORMS[a["norm_layer"]], "eps": a["norm_eps"]}
    position = {"name": "learned-grid", "prefix": 0 if a["no_embed_class"] and prefix else None}
    hidden = int(a["embed_dim"] * a["mlp_ratio"])
    gated = a["mlp_layer"] == "swiglu_packed"
    patch = a["patch_size"]
    activation = Keys({"act_layer": a["act_layer"]}).activation("act_layer", "gelu")
    return {
        "tokenizer": whole({
            "image": image,
            "patch": [patch, patch] if isinstance(patch, int) else patch,
            "channels": a["in_chans"],
            "bias": not a["pre_norm"],
        }),
        "backbone": {
            "depth": a["depth"],
            "width": a["embed_dim"],
            "norm": norm,
            "attention": {
                "heads": a["num_heads"],
                "qkv_bias": a["qkv_bias"],
                "out_bias": a["proj_bias"],
                "qk_norm": norm if a["qk_norm"] else None,
                "dropout": a["attn_drop_rate"],
            },
            "feedforward": {
                "name": "gated" if gated else "mlp",
                "hidden": hidden // 2 if gated else hidden,
                "activation": activation,
                "bias": a["proj_bias"],
                "dropout": a["proj_drop_rate"],
            },
            "position": "none" if a["pos_embed"] in ("", "none") else position,
            "embedding_norm": a["pre_norm"],
            "final_norm": a["final_norm"] and not pooled,
            "layer_scale": a["init_values"] or None,
            "dropout": a["proj_drop_rate"],
            "drop_path": a["drop_path_rate"],
        },
        "class_token": a["class_token"],
        "distillation_token": a["distilled"],
        "registers": a["reg_tokens"],
        "pool": POOLS[a["global_pool"]],
        "pool_norm": a["final_norm"] and pooled,
        "classes": a["num_classes"],
    }  # fmt: skip


# -- writing ---------------------------------------------------------------------------------------


def write_config(config: Any) -> dict[str, Any]:
    """Returns timm's config.json: the nearest architecture, and what differs from it.

    Raises: ConfigError naming what timm cannot say.
    """
    arguments = write_arguments(config)
    name = min(ARCHITECTURES, key=lambda known: len(_changes(arguments, known) or arguments))
    changes = _changes(arguments, name)
    if changes is None:
        raise ConfigError(
            f"Format 'timm-vit' cannot say backbone.norm.eps = {arguments['norm_eps']:g} beside "
            f"norm {arguments['norm_layer']!r} and feed-forward {arguments['mlp_layer']!r}."
        )
    tokenizer = config.tokenizer
    fixed = tokenizer.size is None or list(tokenizer.size) == list(tokenizer.image)
    if not fixed:  # positions of one size, pictures of another
        changes |= {"img_size": list(tokenizer.image), "dynamic_img_size": True}
    heads = ["head", "head_dist"] if config.distillation_token else "head"
    public: dict[str, Any] = {
        "architecture": name,
        "num_classes": config.classes,
        "num_features": config.backbone.width,
        "global_pool": arguments["global_pool"],
        "model_args": changes,
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [tokenizer.channels, *(tokenizer.size or tokenizer.image)],
            "fixed_input_size": fixed,
            "interpolation": tokenizer.interpolation,
            "crop_pct": tokenizer.crop,
            "crop_mode": {"shortest": "center"}.get(tokenizer.resize, tokenizer.resize),
            "mean": tokenizer.mean,
            "std": tokenizer.std,
            "num_classes": config.classes,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": heads,
        },
    }
    if config.card.license:
        public["pretrained_cfg"]["license"] = config.card.license
    if config.labels:
        public["label_names"] = config.labels
    return checked(FORMAT, config, public)


def write_arguments(config: Any) -> dict[str, Any]:
    """Returns all arguments of timm's VisionTransformer that come nearest to a config."""
    backbone, tokenizer = config.backbone, config.tokenizer
    attention, feedforward, norm = backbone.attention, backbone.feedforward, backbone.norm
    position = backbone.position[0] if backbone.position else None
    gated = feedforward.zoo_kind == "gated"
    hidden = feedforward.inner(backbone.width) * (2 if gated else 1)
    pools = {ours: theirs for theirs, ours in POOLS.items()}
    pool = pools.get(config.pool, "token")
    normed = backbone.final_norm or config.pool_norm
    usual = config.pool_norm == (pool == "avg") or not normed
    return {
        **DEFAULTS,
        "img_size": list(tokenizer.image),
        "patch_size": list(tokenizer.patch),
        "in_chans": tokenizer.channels,
        "num_classes": config.classes,
        "global_pool": pool,
        "embed_dim": backbone.width,
        "depth": backbone.depth,
        "num_heads": attention.shape(backbone.width)[0],
        "mlp_ratio": _ratio(hidden, backbone.width),
        "qkv_bias": getattr(attention, "qkv_bias", True),
        "qk_norm": getattr(attention, "qk_norm", None) is not None,
        "proj_bias": feedforward.bias,
        "init_values": backbone.layer_scale,
        "class_token": config.class_token,
        "pos_embed": "learn" if position else "none",
        "no_embed_class": getattr(position, "prefix", None) == 0 and config.prefix_tokens > 0,
        "reg_tokens": config.registers,
        "pre_norm": backbone.embedding_norm,
        "final_norm": normed,
        "fc_norm": None if usual else config.pool_norm,
        "pos_drop_rate": backbone.dropout,
        "proj_drop_rate": backbone.dropout,
        "attn_drop_rate": getattr(attention, "dropout", 0.0),
        "drop_path_rate": backbone.drop_path,
        "norm_layer": {o: t for t, o in NORMS.items()}.get(norm.zoo_kind, "layernorm"),
        "act_layer": feedforward.activation,
        "norm_eps": norm.eps,
        "mlp_layer": "swiglu_packed" if gated else "mlp",
        "distilled": config.distillation_token,
    }


def _ratio(hidden: int, width: int) -> float:
    """Returns the ratio that `int(width * ratio)`, as timm computes it, turns into `hidden`."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _changes(arguments: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Returns the model_args that make an architecture this model; None where none can."""
    known = {**DEFAULTS, **ARCHITECTURES[name]}
    replaced = arguments["norm_layer"] != known["norm_layer"]
    if replaced:
        known["norm_eps"] = DEFAULTS["norm_eps"]
    if any(arguments[key] != known[key] for key in SPELT_OUT):
        return None
    changes = {
        key: value
        for key, value in arguments.items()
        if value != known[key] and key not in (*SPELT_OUT, "img_size", "in_chans", "num_classes")
    }
    if changes.get("patch_size") == [known["patch_size"]] * 2:
        del changes["patch_size"]
    width, hidden = arguments["embed_dim"], int(arguments["embed_dim"] * arguments["mlp_ratio"])
    if int(width * known["mlp_ratio"]) == hidden:
        changes.pop("mlp_ratio", None)
    return changes


# -- weights ---------------------------------------------------------------------------------------


def weight_map(config: Any) -> WeightMap:
    """Returns the table of timm's names; its layout of qkv is ours."""
    gated = config.backbone.feedforward.zoo_kind == "gated"
    # timm stores CLIP's projection as a head with a bias of zeros; nodes that name such files know
    head = "pool.projection." if config.projection and not config.classes else "head."
    layer, ours = "blocks.*.", "backbone.layers.*."
    rows = [
        Rename("cls_token", "prefix.class_token", Squeeze(0)),
        Rename("dist_token", "prefix.distillation_token", Squeeze(0)),
        Rename("reg_token", "prefix.registers", Squeeze(0)),
        Rename("pos_embed", "backbone.positions.0.weight", Squeeze(0)),
        Rename("patch_embed.proj.", "tokenizer."),
        Rename("norm_pre.", "backbone.embedding_norm."),
        Rename(layer + "norm1.", ours + "attention_norm."),
        Rename(layer + "attn.qkv.", ours + "attention.qkv."),
        Rename(layer + "attn.q_norm.", ours + "attention.q_norm."),
        Rename(layer + "attn.k_norm.", ours + "attention.k_norm."),
        Rename(layer + "attn.proj.", ours + "attention.out."),
        Rename(layer + "ls1.gamma", ours + "attention_scale.weight"),
        Rename(layer + "norm2.", ours + "feedforward_norm."),
        Rename(layer + "mlp.fc1.", ours + f"feedforward.{'gate_up' if gated else 'up'}."),
        Rename(layer + "mlp.fc2.", ours + "feedforward.down."),
        Rename(layer + "ls2.gamma", ours + "feedforward_scale.weight"),
        Rename("norm.", "backbone.final_norm."),
        Rename("fc_norm.", "pool.norm."),
        Rename("attn_pool.latent", "pool.latent.query", Squeeze(0)),
        Rename("attn_pool.q.", "pool.latent.attention.q."),
        Rename("attn_pool.kv.", "pool.latent.attention.kv."),
        Rename("attn_pool.proj.", "pool.latent.attention.out."),
        Rename("attn_pool.norm.", "pool.latent.norm."),
        Rename("attn_pool.mlp.fc1.", "pool.latent.feedforward.up."),
        Rename("attn_pool.mlp.fc2.", "pool.latent.feedforward.down."),
        Rename("head.", head),
        Rename("head_dist.", "distillation_head."),
        Drop("pre_logits."),  # of old files; timm drops it too
    ]
    # Which of these a model has is its config's business; loading holds the result against it.
    return WeightMap(Optional(row) for row in rows)


FORMAT = Format(
    name="timm-vit",
    kind="vit",
    read_config=read_config,
    write_config=write_config,
    weight_map=weight_map,
    architectures=tuple(ARCHITECTURES),
)
