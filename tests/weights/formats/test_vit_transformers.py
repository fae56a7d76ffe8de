"""transformers' vision encoders: weights saved by it, loaded here, written back, read again."""

from __future__ import annotations

import json

import pytest
import torch
import transformers as hf
from safetensors.torch import save_file

import zoo
from tests.weights.formats.vision import (
    EXACT,
    ROUGH,
    assert_same_files,
    deviation,
    pictures,
    randomise,
    relative_error,
    tensors,
)
from zoo.errors import ConfigError, UnknownName

hf.logging.disable_progress_bar()
hf.logging.set_verbosity_error()

SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "image_size": 16,
    "patch_size": 8,
}
DINO = {key: value for key, value in SMALL.items() if key != "intermediate_size"}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "vocab_size": 30,
    "max_position_embeddings": 8,
}


def vit(**more):
    return hf.ViTConfig(**{**SMALL, **more})


def deit(**more):
    return hf.DeiTConfig(**{**SMALL, **more})


def dinov2(**more):
    return hf.Dinov2Config(**{**DINO, "mlp_ratio": 2, **more})


def registers(**more):
    return hf.Dinov2WithRegistersConfig(**{**DINO, "mlp_ratio": 2, **more})


def siglip(**more):
    return hf.SiglipVisionConfig(**{**SMALL, **more})


def clip(**more):
    return hf.CLIPVisionConfig(**{**SMALL, **more})


# name -> (our format, how transformers makes the model)
MODELS = {
    "vit classifier, three classes": (
        "transformers-vit",
        lambda: hf.ViTForImageClassification(vit(num_labels=3)),
    ),
    "vit classifier, two classes that its config does not mention": (
        "transformers-vit",
        lambda: hf.ViTForImageClassification(vit(layer_norm_eps=1e-3, image_size=24)),
    ),
    "vit with a narrow pooler": (
        "transformers-vit",
        lambda: hf.ViTModel(vit(pooler_output_size=10, pooler_act="relu")),
    ),
    "vit, oblong, free head size, no qkv bias, tanh-gelu, mask token": (
        "transformers-vit",
        lambda: hf.ViTModel(
            vit(
                image_size=[16, 24],
                patch_size=[8, 4],
                hidden_act="gelu_pytorch_tanh",
                qkv_bias=False,
                head_dim=5,
            ),
            add_pooling_layer=False,
            use_mask_token=True,
        ),
    ),
    "vit, grey, relu, seven heads": (
        "transformers-vit",
        lambda: hf.ViTForImageClassification(
            vit(num_channels=1, hidden_size=28, num_attention_heads=7, hidden_act="relu")
        ),
    ),
    "deit with a teacher": (
        "transformers-deit",
        lambda: hf.DeiTForImageClassificationWithTeacher(deit(num_labels=4)),
    ),
    "deit with one head": (
        "transformers-deit",
        lambda: hf.DeiTForImageClassification(deit(num_labels=4)),
    ),
    "deit with a pooler": ("transformers-deit", lambda: hf.DeiTModel(deit())),
    "dinov2": (
        "transformers-dinov2",
        lambda: hf.Dinov2Model(dinov2(layerscale_value=0.3, patch_size=4)),
    ),
    "dinov2 classifier, SwiGLU": (
        "transformers-dinov2",
        lambda: hf.Dinov2ForImageClassification(dinov2(use_swiglu_ffn=True, num_labels=5)),
    ),
    "dinov2 without a mask token": (
        "transformers-dinov2",
        lambda: hf.Dinov2Model(dinov2(use_mask_token=False, qkv_bias=False)),
    ),
    "dinov2 with registers": (
        "transformers-dinov2-registers",
        lambda: hf.Dinov2WithRegistersModel(registers(num_register_tokens=3)),
    ),
    "dinov2 classifier with registers, SwiGLU": (
        "transformers-dinov2-registers",
        lambda: hf.Dinov2WithRegistersForImageClassification(
            registers(num_labels=3, use_swiglu_ffn=True, mlp_ratio=3)
        ),
    ),
    "siglip": ("transformers-siglip", lambda: hf.SiglipVisionModel(siglip())),
    "siglip without its head, pixels past the last patch": (
        "transformers-siglip",
        lambda: hf.SiglipVisionModel(siglip(vision_use_head=False, image_size=20)),
    ),
    "clip": ("transformers-clip", lambda: hf.CLIPVisionModel(clip(layer_norm_eps=1e-4))),
    "clip with its projection, exact gelu": (
        "transformers-clip",
        lambda: hf.CLIPVisionModelWithProjection(clip(projection_dim=9, hidden_act="gelu")),
    ),
    "clip, quick gelu, four channels": (
        "transformers-clip",
        lambda: hf.CLIPVisionModelWithProjection(clip(projection_dim=30, num_channels=4)),
    ),
}


def stored(folder, make):
    """A random model of transformers, saved by transformers."""
    model = randomise(make())
    model.save_pretrained(folder)
    return model


def compared(ours, theirs):
    """(ours, theirs) of every output that both give."""
    embedding = getattr(theirs, "image_embeds", None)
    if embedding is None:
        embedding = getattr(theirs, "pooler_output", None)
    pairs = {
        "logits": (ours.logits, getattr(theirs, "logits", None)),
        "hidden": (ours.hidden, getattr(theirs, "last_hidden_state", None)),
        "pooled": (ours.pooled, embedding),
    }
    found = {key: pair for key, pair in pairs.items() if pair[1] is not None}
    assert found
    return found


@torch.no_grad()
def run(model, pixels, **options):
    return model(pixels, **options)


@pytest.mark.parametrize("name", MODELS)
def test_equal_and_back(name, tmp_path) -> None:
    format, make = MODELS[name]
    theirs = stored(tmp_path / "theirs", make)
    ours = zoo.load(f"dir:{tmp_path / 'theirs'}")
    pixels = pictures(ours.config.tokenizer.channels, *ours.config.tokenizer.image)
    found, answer = run(ours, pixels), run(theirs, pixels)
    for key, pair in compared(found, answer).items():
        assert deviation(*pair) <= EXACT, key
    if found.logits is not None:
        encoded = run(theirs.base_model, pixels).last_hidden_state
        assert deviation(found.hidden, encoded) <= EXACT

    zoo.save(ours, tmp_path / "back", format=format)
    assert_same_files(tmp_path / "back", tensors(tmp_path / "theirs"))
    options = {"add_pooling_layer": theirs.pooler is not None} if hasattr(theirs, "pooler") else {}
    if ours.config.mask_token and format == "transformers-vit":
        options["use_mask_token"] = True
    again = type(theirs).from_pretrained(tmp_path / "back", **options).eval()
    for key, value in run(again, pixels).items():
        assert torch.equal(value, answer[key]), key


@pytest.mark.parametrize(
    "name",
    [
        "vit classifier, three classes",
        "deit with a teacher",
        "dinov2 classifier, SwiGLU",
        "dinov2 with registers",
        "siglip",
        "clip, quick gelu, four channels",
    ],
)
def test_close_in_bfloat16(name, tmp_path) -> None:
    theirs = stored(tmp_path, MODELS[name][1])
    ours = zoo.load(f"dir:{tmp_path}", dtype="bf16")
    pixels = pictures(ours.config.tokenizer.channels, *ours.config.tokenizer.image)
    for key, pair in compared(run(ours, pixels.bfloat16()), run(theirs, pixels)).items():
        assert relative_error(*pair) <= ROUGH, key


@pytest.mark.parametrize("size", [(24, 40), (40, 40), (8, 32), (8, 8)])
@pytest.mark.parametrize(
    "name", ["vit with a narrow pooler", "deit with a teacher", "dinov2", "dinov2 with registers",
             "siglip", "clip"],
)  # fmt: skip
def test_other_sizes_interpolate_positions_as_transformers(name, size, tmp_path) -> None:
    theirs = stored(tmp_path, MODELS[name][1])
    ours = zoo.load(f"dir:{tmp_path}")
    options = {} if "dinov2" in name else {"interpolate_pos_encoding": True}
    pixels = pictures(3, *size)
    for key, pair in compared(run(ours, pixels), run(theirs, pixels, **options)).items():
        assert deviation(*pair) <= EXACT, key


@pytest.mark.parametrize(
    "name",
    [
        "dinov2",
        "dinov2 with registers",
        "vit, oblong, free head size, no qkv bias, tanh-gelu, mask token",
    ],
)
def test_masked_patches(name, tmp_path) -> None:
    theirs = stored(tmp_path, MODELS[name][1])
    ours = zoo.load(f"dir:{tmp_path}")
    pixels = pictures(3, *ours.config.tokenizer.image)
    rows, columns = ours.tokenizer.grid
    masked = torch.arange(2 * rows * columns).reshape(2, -1) % 3 == 0
    answer = run(theirs, pixels, bool_masked_pos=masked)
    assert deviation(run(ours, pixels, masked=masked).hidden, answer.last_hidden_state) <= EXACT


# -- files with two towers -------------------------------------------------------------------------


def test_the_vision_tower_of_a_clip_file(tmp_path) -> None:
    config = hf.CLIPConfig(vision_config=SMALL, text_config=TEXT, projection_dim=9)
    theirs = stored(tmp_path / "theirs", lambda: hf.CLIPModel(config))
    ours = zoo.load(f"dir:{tmp_path / 'theirs'}")
    pixels = pictures(3, 16, 16)
    with torch.no_grad():
        answer = theirs.get_image_features(pixels)
    for pair in compared(run(ours, pixels), answer).values():
        assert deviation(*pair) <= EXACT

    zoo.save(ours, tmp_path / "back", format="transformers-clip")
    whole = tensors(tmp_path / "theirs")
    kept = ("vision_model.", "visual_projection.")
    vision = {k: v for k, v in whole.items() if k.startswith(kept)}
    assert_same_files(tmp_path / "back", vision)
    again = hf.CLIPVisionModelWithProjection.from_pretrained(tmp_path / "back").eval()
    assert torch.equal(run(again, pixels).image_embeds, answer.pooler_output)


def test_the_vision_tower_of_a_siglip_file(tmp_path) -> None:
    config = hf.SiglipConfig(vision_config=SMALL, text_config=TEXT)
    theirs = stored(tmp_path / "theirs", lambda: hf.SiglipModel(config))
    ours = zoo.load(f"dir:{tmp_path / 'theirs'}")
    pixels = pictures(3, 16, 16)
    with torch.no_grad():
        answer = theirs.vision_model(pixels)
    for pair in compared(run(ours, pixels), answer).values():
        assert deviation(*pair) <= EXACT

    zoo.save(ours, tmp_path / "back", format="transformers-siglip")
    tower = "vision_model."
    whole = tensors(tmp_path / "theirs").items()
    assert_same_files(
        tmp_path / "back", {k[len(tower) :]: v for k, v in whole if k.startswith(tower)}
    )


def test_a_siglip_classifier_does_not_ask_its_head(tmp_path) -> None:
    config = hf.SiglipConfig(vision_config=SMALL, text_config=TEXT, num_labels=3)
    theirs = stored(tmp_path / "theirs", lambda: hf.SiglipForImageClassification(config))
    ours = zoo.load(f"dir:{tmp_path / 'theirs'}")
    pixels = pictures(3, 16, 16)
    answer = run(theirs, pixels)
    assert deviation(run(ours, pixels).logits, answer.logits) <= EXACT
    zoo.save(ours, tmp_path / "back", format="transformers-siglip")
    whole = tensors(tmp_path / "theirs").items()
    assert_same_files(tmp_path / "back", {k: v for k, v in whole if ".head." not in k})
    again = hf.SiglipForImageClassification.from_pretrained(tmp_path / "back").eval()
    assert torch.equal(run(again, pixels).logits, answer.logits)


# -- older layouts of the hub ----------------------------------------------------------------------


def rewritten(folder, rename, extra=None):
    """The folder's weights under other names, with some more tensors."""
    weights = {rename(name): tensor.clone() for name, tensor in tensors(folder).items()}
    save_file({**weights, **(extra or {})}, folder / "model.safetensors")


OLD = {
    "without the prefix": (
        "vit classifier, three classes",
        lambda name: name.removeprefix("vit."),
        {},
    ),
    "with the prefix": ("vit with a narrow pooler", lambda name: "vit." + name, {}),
    "a pooler beside a classifier": (
        "vit classifier, three classes",
        lambda name: name,
        {"vit.pooler.dense.weight": torch.zeros(2, 2), "vit.pooler.dense.bias": torch.zeros(2)},
    ),
    "a state dict of transformers 5": (
        "vit classifier, three classes",
        lambda name: (
            name.replace("encoder.layer.", "layers.")
            .replace("attention.attention.query", "attention.q_proj")
            .replace("attention.attention.key", "attention.k_proj")
            .replace("attention.attention.value", "attention.v_proj")
            .replace("attention.output.dense", "attention.o_proj")
            .replace("intermediate.dense", "mlp.fc1")
            .replace("output.dense", "mlp.fc2")
        ),
        {},
    ),
    "clip with its prefix and position numbers": (
        "clip",
        lambda name: "vision_model." + name,
        {"vision_model.embeddings.position_ids": torch.arange(5)[None]},
    ),
    "siglip with its prefix and position numbers": (
        "siglip",
        lambda name: "vision_model." + name,
        {"vision_model.embeddings.position_ids": torch.arange(4)[None]},
    ),
    "dinov2 with its prefix": ("dinov2", lambda name: "dinov2." + name, {}),
}


@pytest.mark.parametrize("layout", OLD)
def test_older_layouts(layout, tmp_path) -> None:
    name, rename, extra = OLD[layout]
    theirs = stored(tmp_path, MODELS[name][1])
    rewritten(tmp_path, rename, extra)
    ours = zoo.load(f"dir:{tmp_path}")
    pixels = pictures(3, *ours.config.tokenizer.image)
    for key, pair in compared(run(ours, pixels), run(theirs, pixels)).items():
        assert deviation(*pair) <= EXACT, key


def test_the_full_dump_of_early_clip_configs(tmp_path) -> None:
    config = hf.CLIPConfig(vision_config=SMALL, text_config=TEXT, projection_dim=9)
    stored(tmp_path, lambda: hf.CLIPModel(config))
    early = {
        "add_cross_attention": False, "bad_words_ids": None, "chunk_size_feed_forward": 0,
        "cross_attention_hidden_size": None, "diversity_penalty": 0.0, "do_sample": False,
        "dropout": 0.0, "early_stopping": False, "is_decoder": False, "is_encoder_decoder": False,
        "length_penalty": 1.0, "num_beams": 1, "pruned_heads": {}, "return_dict": True,
        "temperature": 1.0, "tie_encoder_decoder": False, "tie_word_embeddings": True, "top_k": 50,
        "torchscript": False, "transformers_version": "4.16.0.dev0", "use_bfloat16": False,
    }  # fmt: skip
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    content["vision_config"] |= early
    content["vision_config_dict"] = {"layer_norm_eps": 0.25}
    content["text_config_dict"] = None
    file.write_text(json.dumps(content))
    assert zoo.load(f"dir:{tmp_path}").config.backbone.norm.eps == 0.25


# -- preprocessing ---------------------------------------------------------------------------------


def gradient():
    from PIL import Image

    return Image.radial_gradient("L").resize((61, 43)).convert("RGB")


def pil_processors():
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    square = {"height": 16, "width": 16}
    odd = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    return {
        "vit classifier, three classes": ViTImageProcessorPil(size=square, resample=3, **odd),
        "vit with a narrow pooler": ViTImageProcessorPil(size=square, do_normalize=False),
        "deit with a teacher": DeiTImageProcessorPil(
            size={"height": 19, "width": 19}, crop_size=square
        ),
        "dinov2": BitImageProcessorPil(
            size={"shortest_edge": 11}, crop_size={"height": 8, "width": 8}
        ),
        "dinov2 with registers": BitImageProcessorPil(size={"shortest_edge": 19}, crop_size=square),
        "siglip": SiglipImageProcessorPil(size=square),
        "clip": CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=square),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(pil_processors()))
def test_preprocessing_is_the_files_own_and_is_written_back(name, tmp_path) -> None:
    format, make = MODELS[name]
    processor = pil_processors()[name]
    stored(tmp_path / "theirs", make)
    processor.save_pretrained(tmp_path / "theirs")
    ours = zoo.load(f"dir:{tmp_path / 'theirs'}")
    expected = processor(gradient(), return_tensors="pt").pixel_values
    assert torch.equal(ours.tokenizer.preprocess(gradient()), expected)
    zoo.save(ours, tmp_path / "back", format=format)
    again = type(processor).from_pretrained(tmp_path / "back")
    assert torch.equal(again(gradient(), return_tensors="pt").pixel_values, expected)
    assert zoo.load(f"dir:{tmp_path / 'back'}").config.tokenizer == ours.config.tokenizer


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"do_resize": False}, "do_resize"),
        ({"rescale_factor": 1.0}, "rescale_factor"),
        ({"resample": 5}, "resample"),
        ({"size": {"longest_edge": 20}}, "size"),
        ({"size": {"shortest_edge": 20}}, "shortest_edge"),
        ({"sharpen": True}, "sharpen"),
        ({"do_center_crop": True, "crop_size": {"height": 9, "width": 14}}, "keeps different"),
    ],
)
def test_preprocessing_that_is_not_understood_is_refused(change, words, tmp_path) -> None:
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    stored(tmp_path, MODELS["vit classifier, three classes"][1])
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ConfigError, match=words) as error:
        zoo.load(f"dir:{tmp_path}")
    assert "preprocessor_config.json" in str(error.value) and "\n" not in str(error.value)


# -- configs ---------------------------------------------------------------------------------------

SCALED = ["backbone.layer_scale=1"]
FAMILIES = (
    "vit classifier, three classes", "deit with a teacher", "dinov2", "dinov2 with registers",
    "siglip", "clip",
)  # fmt: skip


def changed(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return f"dir:{folder}"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rotary_theta": 100}, "'rotary_theta'"),
        ({"architectures": ["SomethingElse"]}, "SomethingElse"),
        ({"hidden_act": "mish"}, "mish"),
        ({"is_decoder": True}, "is_decoder"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"hidden_size": "wide"}, "'hidden_size' must be int"),
        ({"num_hidden_layers": True}, "'num_hidden_layers' must be int"),
        ({"patch_size": [8, 8, 8]}, "'patch_size' must be one or two sizes"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(name, change, words, tmp_path) -> None:
    stored(tmp_path, MODELS[name][1])
    with pytest.raises(ConfigError, match=words) as error:
        zoo.load(changed(tmp_path, **change))
    assert "\n" not in str(error.value)


def test_inner_configs_are_read_as_strictly(tmp_path) -> None:
    config = hf.CLIPConfig(vision_config=SMALL, text_config=TEXT)
    stored(tmp_path, lambda: hf.CLIPModel(config))
    inner = json.loads((tmp_path / "config.json").read_text())["vision_config"]
    with pytest.raises(ConfigError, match="vision_config: 'gating'"):
        zoo.load(changed(tmp_path, vision_config={**inner, "gating": 1}))


def test_unknown_model_types(tmp_path) -> None:
    stored(tmp_path, MODELS["clip"][1])
    with pytest.raises(UnknownName, match="vit_hybrid"):
        zoo.load(changed(tmp_path, model_type="vit_hybrid"))


def test_a_training_setting_of_dinov2_that_means_another_thing(tmp_path) -> None:
    stored(tmp_path, MODELS["dinov2"][1])
    with pytest.raises(ConfigError, match="drop_path_rate"):
        zoo.load(changed(tmp_path, drop_path_rate=0.1))


def test_class_names_travel(tmp_path) -> None:
    names = {0: "cat", 1: "dog", 2: "fox"}
    stored(tmp_path / "a", lambda: hf.ViTForImageClassification(vit(id2label=names)))
    ours = zoo.load(f"dir:{tmp_path / 'a'}")
    assert ours.config.labels == ["cat", "dog", "fox"]
    zoo.save(ours, tmp_path / "b", format="transformers-vit")
    assert hf.ViTConfig.from_pretrained(tmp_path / "b").id2label == names
    assert ours.classify(gradient(), top=1)[0].label in names.values()


@pytest.mark.parametrize(
    ("format", "overrides", "words"),
    [
        ("transformers-vit", ["backbone.position=rope"], "backbone.position"),
        ("transformers-vit", ["backbone.norm={name: rms}"], "backbone.norm"),
        ("transformers-vit", ["backbone.layer_scale=0.1"], "layer_scale"),
        ("transformers-vit", ["pool=mean"], "pool"),
        ("transformers-vit", ["registers=2"], "registers"),
        ("transformers-vit", ["backbone.attention.out_bias=false"], "out_bias"),
        ("transformers-vit", ["backbone.position.0.antialias=true"], "antialias"),
        ("transformers-deit", [], "registers"),
        ("transformers-dinov2", [], "layer_scale"),
        ("transformers-dinov2", [*SCALED, "backbone.feedforward.hidden=100"], "hidden"),
        ("transformers-dinov2-registers", SCALED, "registers"),
        ("transformers-siglip", [], "class_token"),
        ("transformers-clip", [], "tokenizer.bias"),
    ],
)  # fmt: skip
def test_what_a_format_has_no_word_for_is_not_dropped(format, overrides, words, tmp_path) -> None:
    plain = ["backbone.position=[{name: learned-grid, antialias: false}]"]
    model = zoo.create("vit-digits", *plain, *overrides, seed=0)
    with pytest.raises(ConfigError, match=words) as error:
        zoo.save(model, tmp_path, format=format)
    assert format in str(error.value)
