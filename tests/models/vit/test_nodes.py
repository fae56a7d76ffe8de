"""Every vision node and every weights tag of it, held against what timm and transformers say."""

from __future__ import annotations

import json
import re
from functools import cache

import pytest
import timm
import torch
import transformers as hf
from timm.models import get_pretrained_cfg

import zoo
from tests.weights.formats.vision import EXACT, deviation, pictures, randomise
from zoo.models.base import build_empty
from zoo.models.vit.labels import class_names
from zoo.registry import resolve, to_mapping
from zoo.weights.formats import formats
from zoo.weights.formats._vit import computation
from zoo.weights.formats.keys import differences

NODES = [n for n in zoo.list("model") if "/" not in n and zoo.config(n).zoo_kind == "vit"]
TAGS = [(node, tag) for node in NODES for tag in zoo.config(node).weights]
OF_TIMM = [(n, t) for n, t in TAGS if zoo.config(n).weights[t].format == "timm-vit"]
OF_TRANSFORMERS = [
    (n, t) for n, t in TAGS if zoo.config(n).weights[t].format.startswith("transformers-")
]

# what a config need not agree in: how new weights start, names of classes
FREE = ("weights", "card", "labels", "label_set", "backbone.layer_scale", "backbone.init_std")


def tagged(node: str, tag: str):
    config = zoo.config(f"{node}.{tag}")
    return config, config.weights[tag]


def assert_equal_configs(ours, content, format: str, *free: str) -> None:
    names = {"pooler.dense.weight"} if ours.projection and format == "transformers-vit" else set()
    theirs = resolve("model", {"kind": "vit", **formats()[format].read_config(content, names)})
    found = differences(computation(ours), computation(theirs))
    wrong = [path for path in found if not path.startswith((*FREE, *free))]
    assert not wrong, [(path, to_mapping(theirs)) for path in wrong][:1]


def timm_name(repo: str) -> str:
    """timm's name of the model in one of its repositories; OpenAI's towers need their own gelu."""
    name = repo.removeprefix("timm/")
    return re.sub(r"_clip_(\d+)\.openai$", r"_clip_quickgelu_\1.openai", name)


@pytest.mark.parametrize(("node", "tag"), OF_TIMM)
def test_tags_say_what_timm_says(node, tag) -> None:
    config, weights = tagged(node, tag)
    cfg = get_pretrained_cfg(timm_name(weights.repo))
    assert cfg.hf_hub_id == weights.repo and weights.file == "model.safetensors"
    content = {
        "architecture": cfg.architecture,
        "num_classes": cfg.num_classes,
        "pretrained_cfg": {key: _listed(value) for key, value in cfg.to_dict().items()},
    }
    free = ()
    if config.projection:  # timm calls CLIP's projection a head
        assert cfg.num_classes == config.projection
        # and crops a tenth away, which OpenAI does not
        free = ("projection", "classes", "tokenizer.crop")
    elif cfg.license != "cc-by-nc-4.0":
        assert cfg.license == (weights.license or config.card.license)
    assert_equal_configs(config, content, "timm-vit", *free)


def _listed(value):
    return list(value) if isinstance(value, tuple) else value


@cache
def _timm_parameters(architecture: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = timm.create_model(architecture, weight_init="skip")
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(("node", "tag"), OF_TIMM)
def test_names_and_shapes_are_timms_at_true_size(node, tag) -> None:
    config, weights = tagged(node, tag)
    cfg = get_pretrained_cfg(timm_name(weights.repo))
    theirs = _timm_parameters(f"{cfg.architecture}.{cfg.tag}")
    weight_map = formats()["timm-vit"].weight_map(config)
    ours = {}
    for name, parameter in build_empty(config).named_parameters():
        (public,) = weight_map.origin(name)
        ours[public] = parameter.numel()
    assert ours == {name: torch.Size(shape).numel() for name, shape in theirs.items()}


def _of_transformers(config, weights):
    """The class of transformers for a tag, at true size, without memory."""
    public = formats()[weights.format].write_config(config)
    public = {key: value for key, value in public.items() if not key.endswith(".json")}
    made = hf.AutoConfig.for_model(**public)
    with torch.device("meta"):
        return getattr(hf, public["architectures"][0])(made)


@pytest.mark.parametrize(("node", "tag"), OF_TRANSFORMERS)
def test_parameters_are_those_of_transformers_at_true_size(node, tag) -> None:
    config, weights = tagged(node, tag)
    theirs = sum(p.numel() for p in _of_transformers(config, weights).parameters())
    assert sum(p.numel() for p in build_empty(config).parameters()) == theirs


@pytest.mark.parametrize(
    ("name", "public", "preprocessor"),
    [
        (
            "vit-base-16.google",
            hf.ViTConfig(num_labels=1000, architectures=["ViTForImageClassification"]),
            {"size": {"height": 224, "width": 224}, "resample": 2},
        ),
        (
            "vit-base-16.google_in21k",
            hf.ViTConfig(architectures=["ViTModel"]),
            {"size": {"height": 224, "width": 224}, "resample": 2},
        ),
        (
            "deit-base-distilled-16.facebook",
            hf.DeiTConfig(num_labels=1000, architectures=["DeiTForImageClassificationWithTeacher"]),
            {
                "size": 256,
                "crop_size": 224,
                "do_center_crop": True,
                "resample": 3,
                "feature_extractor_type": "DeiTFeatureExtractor",
                "image_mean": [0.485, 0.456, 0.406],
                "image_std": [0.229, 0.224, 0.225],
            },
        ),
        (
            "siglip-base-16.google",
            hf.SiglipVisionConfig(architectures=["SiglipVisionModel"]),
            {"size": {"height": 224, "width": 224}, "resample": 3},
        ),
        (
            "clip-vit-base-32.openai_transformers",
            hf.CLIPVisionConfig(architectures=["CLIPVisionModelWithProjection"]),
            {
                "size": 224,
                "crop_size": 224,
                "do_center_crop": True,
                "resample": 3,
                "feature_extractor_type": "CLIPFeatureExtractor",
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
            },
        ),
    ],
)
def test_defaults_of_transformers_are_our_nodes(name, public, preprocessor) -> None:
    """The defaults of these classes are, by their documentation, those of the named repository."""
    config = zoo.config(name)
    tag = name.partition(".")[2]
    content = json.loads(public.to_json_string(use_diff=False))
    content["preprocessor_config.json"] = preprocessor
    assert_equal_configs(config, content, config.weights[tag].format)


# name -> parameters as published (timm's results table, model cards), in millions
PUBLISHED = {
    "vit-tiny-16": 5.717416,
    "vit-small-16": 22.050664,
    "vit-small-32": 22.878952,
    "vit-base-16": 86.567656,
    "vit-base-32": 88.224232,
    "vit-large-16": 304.326632,
    "deit-tiny-16": 5.717416,
    "deit-tiny-distilled-16": 5.910800,
    "deit-small-distilled-16": 22.436432,
    "deit-base-distilled-16": 87.338192,
    "dinov2-small-14.facebook": 22.056576,
    "dinov2-base-14.facebook": 86.580480,
    "dinov2-large-14.facebook": 304.368640,
    "dinov2-giant-14.facebook": 1136.480768,
    "siglip-base-16": 92.884224,
    "siglip-so400m-14.google_384": 428.225600,
    "clip-vit-large-14.openai": 303.966208,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name) -> None:
    assert sum(p.numel() for p in build_empty(zoo.config(name)).parameters()) == round(
        PUBLISHED[name] * 1e6
    )


@pytest.mark.parametrize("node", NODES)
def test_nodes_have_a_card_and_tell_their_inputs(node) -> None:
    config = zoo.config(node)
    assert config.card.title and config.card.summary and config.card.license and config.card.paper
    rows, columns = (s // p for s, p in zip(config.tokenizer.image, config.tokenizer.patch))
    assert f"{rows} x {columns} patches" in config.inputs()
    for weights in config.weights.values():
        assert weights.revision is None or re.fullmatch("[0-9a-f]{40}", weights.revision)
        assert weights.format in (*formats(), "zoo")


def test_label_sets() -> None:
    names = class_names(zoo.config("vit-tiny-16"))
    assert len(names) == 1000 and names[0] == "tench, Tinca tinca"
    assert len(class_names(zoo.config("vit-tiny-16.augreg_in21k"))) == 21843
    assert class_names(zoo.config("vit-tiny-16", "classes=3")) == ["0", "1", "2"]
    assert class_names(zoo.config("vit-tiny-16", "classes=2", labels=["a", "b"])) == ["a", "b"]


def test_a_tag_chooses_size_and_head() -> None:
    assert zoo.config("vit-tiny-16.augreg_in21k_ft_in1k_384").tokenizer.image == [384, 384]
    assert zoo.config("vit-tiny-16.augreg_in21k").classes == 21843
    google = zoo.config("vit-base-16.google")
    assert google.backbone.norm.eps == 1e-12 and not google.backbone.position[0].antialias
    assert google.tokenizer.resize == "squash"
    assert zoo.config("vit-base-16").backbone.norm.eps == 1e-6


# -- loading a tag ---------------------------------------------------------------------------------

TINY = ("backbone.depth=2", "backbone.width=24", "backbone.attention.heads=2")
TIMM_TINY = {"depth": 2, "embed_dim": 24, "num_heads": 2}


@pytest.fixture
def repositories(monkeypatch, tmp_path):
    """Folders that stand for hub repositories, by name."""
    import zoo.hub.client as client

    def pull(repo, revision=None, **options):
        assert revision is None
        return tmp_path / repo

    monkeypatch.setattr(client, "pull", pull)
    return tmp_path


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "repo", "more"),
    [
        ("vit-tiny-16", "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", {}),
        ("deit-tiny-distilled-16.fb_in1k", "timm/deit_tiny_distilled_patch16_224.fb_in1k", {}),
        ("dinov2-small-14-reg", "timm/vit_small_patch14_reg4_dinov2.lvd142m", {"img_size": 518}),
        ("siglip-base-16.webli", "timm/vit_base_patch16_siglip_224.webli", {}),
        ("clip-vit-base-32", "timm/vit_base_patch32_clip_224.openai", {"num_classes": 512}),
    ],
)
def test_a_tag_of_timm_loads(name, repo, more, repositories) -> None:
    """The layout of each family's file, at a size that a test can afford."""
    from safetensors.torch import save_file

    architecture = timm_name(repo).removeprefix("timm/").partition(".")[0]
    theirs = randomise(timm.create_model(architecture, **TIMM_TINY, **more))
    (repositories / repo).mkdir(parents=True)
    save_file(theirs.state_dict(), repositories / repo / "model.safetensors")
    hidden = theirs.blocks[0].mlp.fc2.in_features
    ours = zoo.load(name, *TINY, f"backbone.feedforward.hidden={hidden}")
    pixels = pictures(3, *ours.config.tokenizer.image, count=1)
    out = ours(pixels)
    answer = theirs(pixels)
    assert deviation(out.pooled if out.logits is None else out.logits, answer) <= EXACT


SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
MLP = {**SMALL, "intermediate_size": 36}
TEXT = {**MLP, "vocab_size": 30, "max_position_embeddings": 8}
CLIP = {**MLP, "image_size": 224, "patch_size": 14}


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "make", "hidden"),
    [
        (
            "vit-base-16.google",
            lambda: hf.ViTForImageClassification(hf.ViTConfig(**MLP, num_labels=1000)),
            36,
        ),
        (
            "vit-base-16.google_in21k",
            lambda: hf.ViTModel(hf.ViTConfig(**MLP, pooler_output_size=768)),
            36,
        ),
        (
            "deit-base-distilled-16.facebook",
            lambda: hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**MLP, num_labels=1000)),
            36,
        ),
        (
            "dinov2-small-14.facebook",
            lambda: hf.Dinov2Model(hf.Dinov2Config(**SMALL, mlp_ratio=2, image_size=518)),
            48,
        ),
        (
            "dinov2-small-14-reg.facebook_in1k",
            lambda: hf.Dinov2WithRegistersForImageClassification(
                hf.Dinov2WithRegistersConfig(
                    **SMALL, mlp_ratio=2, image_size=518, patch_size=14, num_labels=1000
                )
            ),
            48,
        ),
        (
            "siglip-base-16.google",
            lambda: hf.SiglipModel(hf.SiglipConfig(vision_config=MLP, text_config=TEXT)),
            36,
        ),
        (
            "clip-vit-large-14",
            lambda: hf.CLIPModel(
                hf.CLIPConfig(vision_config=CLIP, text_config=TEXT, projection_dim=768)
            ),
            36,
        ),
    ],
)
def test_a_tag_of_transformers_loads(name, make, hidden, repositories) -> None:
    """As their repositories hold them: towers of two-tower files among them."""
    theirs = randomise(make())
    config = zoo.config(name)
    repo = config.weights[name.partition(".")[2] or next(iter(config.weights))].repo
    theirs.save_pretrained(repositories / repo)
    ours = zoo.load(name, *TINY, f"backbone.feedforward.hidden={hidden}")
    pixels = pictures(3, *ours.config.tokenizer.image, count=1)
    out = ours(pixels)
    if hasattr(theirs, "get_image_features"):
        answer = theirs.get_image_features(pixels).pooler_output
    else:
        answer = theirs(pixels)
        answer = answer.pooler_output if out.logits is None else answer.logits
    assert deviation(out.pooled if out.logits is None else out.logits, answer) <= EXACT
