"""What timm's architecture names mean: name -> the arguments with which timm builds it.

The names are timm's (`vision_transformer.py`, `deit.py` of timm 1.0); the arguments those of its
`VisionTransformer`, as far as they differ from its defaults. Three that JSON cannot hold are spelt
out: `norm_eps` (1e-6 unless said), `mlp_layer` (mlp or swiglu_packed), `distilled`. A test holds
the table against the installed timm. Not here are architectures with other blocks (xp, rpn, 18x2,
diff), norms inside attention and MLP (BEiT-3), norms of patches (AIMv2), files in another layout
(RADIO) or pools that read prefix tokens (test_vit3).
"""

from __future__ import annotations

from typing import Any

__all__ = ["ARCHITECTURES", "DEFAULTS"]

# timm's own defaults
DEFAULTS: dict[str, Any] = {
    "img_size": 224,
    "patch_size": 16,
    "in_chans": 3,
    "num_classes": 1000,
    "global_pool": "token",
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "qk_norm": False,
    "scale_attn_norm": False,
    "scale_mlp_norm": False,
    "proj_bias": True,
    "init_values": None,
    "class_token": True,
    "pos_embed": "learn",
    "no_embed_class": False,
    "reg_tokens": 0,
    "pre_norm": False,
    "final_norm": True,
    "fc_norm": None,
    "pool_include_prefix": False,
    "drop_rate": 0.0,
    "pos_drop_rate": 0.0,
    "patch_drop_rate": 0.0,
    "proj_drop_rate": 0.0,
    "attn_drop_rate": 0.0,
    "drop_path_rate": 0.0,
    "norm_layer": "layernorm",
    "act_layer": "gelu",
    "norm_eps": 1e-6,
    "mlp_layer": "mlp",
    "distilled": False,
}


def _size(embed_dim: int, depth: int, num_heads: int, **more: Any) -> dict[str, Any]:
    return {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads, **more}


WEE = _size(256, 14, 4, mlp_ratio=5)
LITTLE = _size(320, 14, 5, mlp_ratio=5.6)
TINY = _size(192, 12, 3)
SMALL = _size(384, 12, 6)
MEDIUM = _size(512, 12, 8)
MEDIUM_DEEP = _size(512, 20, 8)
BETWIXT = _size(640, 12, 10)
BASE = _size(768, 12, 12)
BASE_PLUS = _size(896, 12, 14)
LARGE = _size(1024, 24, 16)
HUGE = _size(1280, 32, 16)
GIANT = _size(1408, 40, 16, mlp_ratio=48 / 11)
GIANT_WIDE = _size(1536, 40, 16)
GIGANTIC = _size(1664, 48, 16, mlp_ratio=64 / 13)
SO150M = _size(896, 18, 14, mlp_ratio=2.572)
SO150M2 = _size(832, 21, 13, mlp_ratio=34 / 13, qkv_bias=False)
SO400M = _size(1152, 27, 16, mlp_ratio=3.7362)
SO400M_EXACT = _size(1152, 27, 16, mlp_ratio=4304 / 1152)
GIANT_SWIGLU = _size(
    1536, 40, 24, mlp_ratio=2.66667 * 2, mlp_layer="swiglu_packed", act_layer="silu"
)

MEAN = {"class_token": False, "global_pool": "avg"}  # fc_norm follows from the pool
GAP = {**MEAN, "fc_norm": False}
MAP = {"class_token": False, "global_pool": "map"}
CLIP = {"pre_norm": True, "norm_eps": 1e-5}
QUICK = {**CLIP, "act_layer": "quick_gelu"}
TANH = {"act_layer": "gelu_tanh"}
SCALED = {"init_values": 1e-5}
DINOV2 = {"patch_size": 14, **SCALED}
DINOV2_REG4 = {**DINOV2, "reg_tokens": 4, "no_embed_class": True}
TIPS = {"patch_size": 14, "init_values": 1.0, "reg_tokens": 1, "no_embed_class": True}
SW = {**GAP, "qkv_bias": False, "init_values": 1e-6}
SBB = {**MEAN, **SCALED, "no_embed_class": True}
REG1, REG4 = {"reg_tokens": 1}, {"reg_tokens": 4}
DEIT3 = {"no_embed_class": True, "init_values": 1e-6}
DISTILLED = {"distilled": True}

# (names, which differ in the size of pictures alone, then what they share)
_ROWS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    # ViT (Dosovitskiy 2020), augreg (Steiner 2021), DINO, MAE
    ("vit_tiny_patch16_224 vit_tiny_patch16_384", TINY, {}),
    ("vit_small_patch16_224 vit_small_patch16_384", SMALL, {}),
    ("vit_small_patch32_224 vit_small_patch32_384", SMALL, {"patch_size": 32}),
    ("vit_small_patch8_224", SMALL, {"patch_size": 8}),
    ("vit_base_patch16_224 vit_base_patch16_384", BASE, {}),
    ("vit_base_patch32_224 vit_base_patch32_384", BASE, {"patch_size": 32}),
    ("vit_base_patch8_224", BASE, {"patch_size": 8}),
    ("vit_base_patch16_224_miil", BASE, {"qkv_bias": False}),
    ("vit_large_patch16_224 vit_large_patch16_384", LARGE, {}),
    ("vit_large_patch32_224 vit_large_patch32_384", LARGE, {"patch_size": 32}),
    ("vit_large_patch14_224", LARGE, {"patch_size": 14}),
    ("vit_huge_patch14_224", HUGE, {"patch_size": 14}),
    ("vit_giant_patch14_224", GIANT, {"patch_size": 14}),
    ("vit_gigantic_patch14_224", GIGANTIC, {"patch_size": 14}),
    ("vit_small_patch16_36x1_224", SMALL, {"depth": 36, **SCALED}),
    ("vit_base_patch16_plus_240", BASE_PLUS, SCALED),
    ("vit_base_patch32_plus_256", BASE_PLUS, {"patch_size": 32, **SCALED}),
    # flexible patches (Beyer 2022)
    ("flexivit_small", SMALL, {"no_embed_class": True}),
    ("flexivit_base", BASE, {"no_embed_class": True}),
    ("flexivit_large", LARGE, {"no_embed_class": True}),
    # DeiT (Touvron 2020), distilled, DeiT III (2022)
    ("deit_tiny_patch16_224", TINY, {}),
    ("deit_small_patch16_224", SMALL, {}),
    ("deit_base_patch16_224 deit_base_patch16_384", BASE, {}),
    ("deit_tiny_distilled_patch16_224", TINY, DISTILLED),
    ("deit_small_distilled_patch16_224", SMALL, DISTILLED),
    ("deit_base_distilled_patch16_224 deit_base_distilled_patch16_384", BASE, DISTILLED),
    ("deit3_small_patch16_224 deit3_small_patch16_384", SMALL, DEIT3),
    ("deit3_medium_patch16_224", MEDIUM, DEIT3),
    ("deit3_base_patch16_224 deit3_base_patch16_384", BASE, DEIT3),
    ("deit3_large_patch16_224 deit3_large_patch16_384", LARGE, DEIT3),
    ("deit3_huge_patch14_224", HUGE, {"patch_size": 14, **DEIT3}),
    # DINOv2 (Oquab 2023), with registers (Darcet 2023), TIPS v2
    ("vit_small_patch14_dinov2", SMALL, DINOV2),
    ("vit_base_patch14_dinov2", BASE, DINOV2),
    ("vit_large_patch14_dinov2", LARGE, DINOV2),
    ("vit_giant_patch14_dinov2", GIANT_SWIGLU, DINOV2),
    ("vit_small_patch14_reg4_dinov2", SMALL, DINOV2_REG4),
    ("vit_base_patch14_reg4_dinov2", BASE, DINOV2_REG4),
    ("vit_large_patch14_reg4_dinov2", LARGE, DINOV2_REG4),
    ("vit_giant_patch14_reg4_dinov2", GIANT_SWIGLU, DINOV2_REG4),
    ("vit_base_patch14_reg1_tipsv2", BASE, TIPS),
    ("vit_large_patch14_reg1_tipsv2", LARGE, TIPS),
    ("vit_so400m_patch14_reg1_tipsv2", SO400M_EXACT, TIPS),
    ("vit_giant_patch14_reg1_tipsv2", GIANT_SWIGLU, TIPS),
    # CLIP towers
    ("vit_xsmall_patch16_clip_224", _size(256, 10, 4), CLIP),
    ("vit_medium_patch16_clip_224", MEDIUM, CLIP),
    ("vit_medium_patch32_clip_224", MEDIUM, {"patch_size": 32, **CLIP}),
    ("vit_betwixt_patch32_clip_224", BETWIXT, {"patch_size": 32, **CLIP}),
    ("vit_base_patch16_clip_224 vit_base_patch16_clip_384", BASE, CLIP),
    (
        "vit_base_patch32_clip_224 vit_base_patch32_clip_256 vit_base_patch32_clip_384 "
        "vit_base_patch32_clip_448",
        BASE,
        {"patch_size": 32, **CLIP},
    ),
    ("vit_base_patch16_plus_clip_240", BASE_PLUS, CLIP),
    ("vit_large_patch14_clip_224 vit_large_patch14_clip_336", LARGE, {"patch_size": 14, **CLIP}),
    (
        "vit_huge_patch14_clip_224 vit_huge_patch14_clip_336 vit_huge_patch14_clip_378",
        HUGE,
        {"patch_size": 14, **CLIP},
    ),
    ("vit_giant_patch14_clip_224", GIANT, {"patch_size": 14, **CLIP}),
    (
        "vit_gigantic_patch14_clip_224 vit_gigantic_patch14_clip_378",
        GIGANTIC,
        {"patch_size": 14, **CLIP},
    ),
    ("vit_gigantic_patch14_clip_quickgelu_224", GIGANTIC, {"patch_size": 14, **QUICK}),
    ("vit_base_patch16_clip_quickgelu_224", BASE, QUICK),
    ("vit_base_patch32_clip_quickgelu_224", BASE, {"patch_size": 32, **QUICK}),
    (
        "vit_large_patch14_clip_quickgelu_224 vit_large_patch14_clip_quickgelu_336",
        LARGE,
        {"patch_size": 14, **QUICK},
    ),
    (
        "vit_huge_patch14_clip_quickgelu_224 vit_huge_patch14_clip_quickgelu_378",
        HUGE,
        {"patch_size": 14, **QUICK},
    ),
    # SigLIP (Zhai 2023) with its attention pool, and with the mean instead
    (
        "vit_base_patch16_siglip_224 vit_base_patch16_siglip_256 vit_base_patch16_siglip_384 "
        "vit_base_patch16_siglip_512",
        BASE,
        MAP,
    ),
    ("vit_base_patch32_siglip_256", BASE, {"patch_size": 32, **MAP, **TANH}),
    ("vit_large_patch16_siglip_256 vit_large_patch16_siglip_384", LARGE, MAP),
    ("vit_large_patch16_siglip_512", LARGE, {**MAP, **TANH}),
    (
        "vit_so400m_patch14_siglip_224 vit_so400m_patch14_siglip_378 vit_so400m_patch14_siglip_384",
        SO400M,
        {"patch_size": 14, **MAP},
    ),
    (
        "vit_so400m_patch16_siglip_256 vit_so400m_patch16_siglip_384 vit_so400m_patch16_siglip_512",
        SO400M,
        {**MAP, **TANH},
    ),
    (
        "vit_base_patch16_siglip_gap_224 vit_base_patch16_siglip_gap_256 "
        "vit_base_patch16_siglip_gap_384 vit_base_patch16_siglip_gap_512",
        BASE,
        GAP,
    ),
    ("vit_base_patch32_siglip_gap_256", BASE, {"patch_size": 32, **GAP, **TANH}),
    ("vit_large_patch16_siglip_gap_256 vit_large_patch16_siglip_gap_384", LARGE, GAP),
    ("vit_large_patch16_siglip_gap_512", LARGE, {**GAP, **TANH}),
    (
        "vit_so400m_patch14_siglip_gap_224 vit_so400m_patch14_siglip_gap_378 "
        "vit_so400m_patch14_siglip_gap_384 vit_so400m_patch14_siglip_gap_448 "
        "vit_so400m_patch14_siglip_gap_896",
        SO400M,
        {"patch_size": 14, **GAP},
    ),
    (
        "vit_so400m_patch16_siglip_gap_256 vit_so400m_patch16_siglip_gap_384 "
        "vit_so400m_patch16_siglip_gap_512",
        SO400M,
        {**GAP, **TANH},
    ),
    (
        "vit_giantopt_patch16_siglip_256 vit_giantopt_patch16_siglip_384",
        GIANT_WIDE,
        {**MAP, **TANH},
    ),
    (
        "vit_giantopt_patch16_siglip_gap_256 vit_giantopt_patch16_siglip_gap_384",
        GIANT_WIDE,
        {**GAP, **TANH},
    ),
    # the mean instead of a class token, registers, other widths (timm's own, I-JEPA, EVA)
    ("vit_base_patch16_gap_224", BASE, {**GAP, "num_heads": 16}),
    ("vit_huge_patch14_gap_224", HUGE, {"patch_size": 14, **GAP}),
    ("vit_huge_patch16_gap_448", HUGE, GAP),
    ("vit_giant_patch16_gap_224", GIANT, GAP),
    (
        "vit_medium_patch16_gap_240 vit_medium_patch16_gap_256 vit_medium_patch16_gap_384",
        MEDIUM,
        SW,
    ),
    ("vit_betwixt_patch16_gap_256", BETWIXT, SW),
    ("vit_wee_patch16_reg1_gap_256", WEE, {**SBB, **REG1}),
    ("vit_little_patch16_reg1_gap_256", LITTLE, {**SBB, **REG1}),
    ("vit_little_patch16_reg4_gap_256", LITTLE, {**SBB, **REG4}),
    ("vit_medium_patch16_reg1_gap_256", MEDIUM, {**SBB, **REG1}),
    ("vit_medium_patch16_reg4_gap_256", MEDIUM, {**SBB, **REG4}),
    (
        "vit_mediumd_patch16_reg4_gap_256 vit_mediumd_patch16_reg4_gap_384",
        MEDIUM_DEEP,
        {**SBB, **REG4},
    ),
    ("vit_betwixt_patch16_reg1_gap_256", BETWIXT, {**SBB, **REG1}),
    ("vit_betwixt_patch16_reg4_gap_256 vit_betwixt_patch16_reg4_gap_384", BETWIXT, {**SBB, **REG4}),
    ("vit_base_patch16_reg4_gap_256", BASE, {**MEAN, **REG4, "no_embed_class": True}),
    ("vit_so150m_patch16_reg4_gap_256 vit_so150m_patch16_reg4_gap_384", SO150M, {**GAP, **REG4}),
    ("vit_so150m_patch16_reg4_map_256", SO150M, {**MAP, **REG4}),
    (
        "vit_so150m2_patch16_reg1_gap_256 vit_so150m2_patch16_reg1_gap_384 "
        "vit_so150m2_patch16_reg1_gap_448",
        SO150M2,
        {**MEAN, **REG1, **SCALED},
    ),
    (
        "eva_large_patch14_196 eva_large_patch14_336",
        LARGE,
        {"patch_size": 14, "global_pool": "avg"},
    ),
    (
        "vit_intern300m_patch14_448",
        LARGE,
        {"patch_size": 14, "init_values": 0.1, "final_norm": False},
    ),
    # timm's own small ones, for tests
    ("test_vit", _size(64, 6, 2, mlp_ratio=3), {}),
    ("test_vit2", _size(64, 8, 2, mlp_ratio=3), {**MEAN, **REG1, **SCALED}),
    (
        "test_vit4",
        _size(96, 9, 3, mlp_ratio=3),
        {**MEAN, **REG1, **SCALED, "norm_layer": "rmsnorm"},
    ),
]

ARCHITECTURES: dict[str, dict[str, Any]] = {
    name: {**size, **more} for names, size, more in _ROWS for name in names.split()
}
