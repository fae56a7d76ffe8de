"""LLaVA and LLaVA-NeXT against transformers: logits, key layouts, configs, exports."""

# n given tokens, k expanded ones, c channels, h w pixels

import json

import pytest
import torch
from PIL import Image

import zoo
from tests.weights.formats.parity import (
    TOLERANCE,
    distance,
    export,
    random_tokens,
    random_weights,
    relative,
    rewrite,
    tensors,
    transformers,
)
from zoo.errors import ConfigError
from zoo.registry import resolve
from zoo.weights.formats import format_for

MARK, TILES = 98, [[28, 56], [56, 28], [56, 56], [84, 28]]
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 7,
}
TEXT = {
    "vocab_size": 99,
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CASES = {
    "1.5": {},
    "linear": {"projector_hidden_act": "linear"},
    "no bias": {"multimodal_projector_bias": False, "vision_feature_layer": -1},
    "siglip": {"tower": "siglip", "vision_feature_select_strategy": "full"},
    "qwen2": {"text": "qwen2", "vision_feature_layer": 1},
    "layers": {"vision_feature_layer": [-1, 1, -2]},
    "1.6": {"tiles": True},
    "1.6 mistral": {"tiles": True, "text": "mistral"},
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Returns a function: (random model of transformers, the folder that it was saved to)."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = make(**CASES[name])
            folder = tmp_path_factory.mktemp("llava")
            made[name].save_pretrained(folder)
            made[name] = made[name], folder
        return made[name]

    return get


def make(tiles=False, tower="clip", text="llama", **keys):
    named = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}[text]
    words = getattr(transformers, f"{named}Config")(**TEXT, sliding_window=None)
    eyes = {
        "clip": lambda: transformers.CLIPVisionConfig(**TOWER),
        "siglip": lambda: transformers.SiglipVisionConfig(**TOWER, vision_use_head=False),
    }[tower]()
    kind = "LlavaNext" if tiles else "Llava"
    if tiles:
        keys["image_grid_pinpoints"] = TILES
    config = getattr(transformers, f"{kind}Config")(
        vision_config=eyes, text_config=words, image_token_index=MARK, **keys
    )
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    random_weights(model, seed=len(named))
    if keys.get("projector_hidden_act") == "linear":  # LLaVA v1's one matrix, written as two
        second = model.model.multi_modal_projector.linear_2
        with torch.no_grad():
            second.weight.copy_(torch.eye(40))
            second.bias.zero_()
    return model


def prompt(pictures):
    tokens = random_tokens(90, 1, 9)
    tokens[0, [2, 4, 5][:pictures]] = MARK
    return tokens


def spread(tokens, counts):
    """What a processor of transformers makes of marks: as many of them as the picture has
    tokens."""
    waiting = iter(counts)
    return torch.tensor(
        [
            [
                t
                for token in tokens[0].tolist()
                for t in [token] * (next(waiting) if token == MARK else 1)
            ]
        ]
    )


@pytest.mark.parametrize("pictures", [0, 1, 3])
@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("1.6")])
@torch.no_grad()
def test_logits(reference, name, pictures):
    theirs, folder = reference(name)
    ours, tokens = zoo.load(f"dir:{folder}"), prompt(pictures)
    pixels = torch.randn(pictures, 3, 28, 28) if pictures else None
    found = ours(tokens, pixels).logits
    wanted = theirs(input_ids=spread(tokens, [16] * pictures), pixel_values=pixels).logits
    assert wanted.std() > 0.1
    assert distance(found, wanted) <= TOLERANCE


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("1.6")])
@torch.no_grad()
def test_logits_of_tiles(reference, name):
    """Pictures of any shape: thin ones, small ones, one of each beside text."""
    theirs, folder = reference(name)
    ours, tokens = zoo.load(f"dir:{folder}"), prompt(3)
    sizes = [(28, 56), (200, 40), (33, 90)]
    shapes = [ours.tiles.shape(size, (28, 28)) for size in sizes]
    counts = [1 + rows * columns for rows, columns in shapes]
    tiles = torch.randn(sum(counts), 3, 28, 28)
    found = ours(tokens, tiles, sizes=sizes)
    padded = torch.nn.utils.rnn.pad_sequence(tiles.split(counts), batch_first=True)
    lengths = [len(seen) for seen in ours.see(tiles, sizes)]
    wanted = theirs(
        input_ids=spread(tokens, lengths), pixel_values=padded, image_sizes=torch.tensor(sizes)
    ).logits
    assert distance(found.logits, wanted) <= TOLERANCE


def hub(state):
    return {
        name.replace("vision_tower.", "vision_tower.vision_model."): t for name, t in state.items()
    }


def newest(state):
    found = {}
    for name, tensor in state.items():
        name = name.replace("language_model.model.", "model.language_model.")
        name = name.replace("language_model.lm_head.", "lm_head.")
        inner = name.startswith(("vision_tower", "multi_modal", "image_newline"))
        found[f"model.{name}" if inner else name] = tensor
    return found


@pytest.mark.parametrize("layout", [hub, newest])
@pytest.mark.parametrize("name", ["1.5", "1.6", "siglip"])
@torch.no_grad()
def test_layouts(reference, name, layout, tmp_path):
    """The names of the hub's old files and of the newest ones mean the same as those that version
    5 writes."""
    _, folder = reference(name)
    plain = zoo.load(f"dir:{folder}").state_dict()
    path = rewrite(folder, layout, tmp_path / "other")
    assert tensors(path).keys() != tensors(folder).keys()
    other = zoo.load(f"dir:{path}").state_dict()
    assert plain.keys() == other.keys()
    assert all(torch.equal(plain[key], other[key]) for key in plain)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_export(reference, name, tmp_path):
    """The same bits under the names of the hub's files, and transformers computes the same."""
    theirs, folder = reference(name)
    path = export(
        zoo.load(f"dir:{folder}"), rewrite(folder, hub, tmp_path / "hub"), tmp_path / "to"
    )
    back = type(theirs).from_pretrained(path).eval()
    tokens = random_tokens(90, 1, 9)
    assert torch.equal(back(input_ids=tokens).logits, theirs(input_ids=tokens).logits)
    found, wanted = back.state_dict(), theirs.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in found)
    for key in ("vision_feature_layer", "image_token_index", "projector_hidden_act"):
        assert getattr(back.config, key) == getattr(theirs.config, key)


@torch.no_grad()
def test_two_matrices_can_be_one(reference):
    """LLaVA v1's linear projector: an identity behind it changes nothing."""
    _, folder = reference("linear")
    two = zoo.load(f"dir:{folder}")
    one = zoo.load(f"dir:{folder}", "adapter=linear", partial=True)
    one.adapter.linear.load_state_dict(two.adapter.layers[0].state_dict())
    pixels = torch.randn(3, 3, 28, 28)
    assert torch.equal(two(prompt(3), pixels).logits, one(prompt(3), pixels).logits)


@torch.no_grad()
def test_what_stands_behind_the_feature_layer_is_not_read(reference):
    _, folder = reference("1.5")
    ours, pixels = zoo.load(f"dir:{folder}", copy=True), torch.randn(1, 3, 28, 28)
    before = ours(prompt(1), pixels).logits
    for module in (ours.vision.backbone.layers[2], ours.vision.pool):
        for parameter in module.parameters():
            parameter.normal_()
    assert torch.equal(ours(prompt(1), pixels).logits, before)
    for parameter in ours.vision.backbone.layers[1].parameters():
        parameter.normal_()
    assert not torch.equal(ours(prompt(1), pixels).logits, before)


@torch.no_grad()
def test_bf16(reference):
    _, folder = reference("1.5")
    ours, half = zoo.load(f"dir:{folder}"), zoo.load(f"dir:{folder}", dtype="bf16")
    pixels = torch.randn(3, 3, 28, 28)
    found = half(prompt(3), pixels.bfloat16()).logits
    assert found.dtype == torch.bfloat16
    assert relative(found, ours(prompt(3), pixels).logits) <= 2e-2


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("vision_feature_select_strategy", "full", "vision_feature_select_strategy"),
        ("vision_feature_layer", [], "names no blocks"),
        ("vision_feature_layer", [-2, "x"], "names no blocks"),
        ("vision_feature_layer", [-2, 0], "reads no block"),
        ("vision_feature_layer", 0, "reads no block"),
        ("projector_hidden_act", "maxout", "maxout"),
        ("use_image_newline_parameter", False, "use_image_newline_parameter"),
        ("attention_sinks", 4, "attention_sinks"),
        ("text_config", {"model_type": "opt"}, "language model of type 'opt'"),
        ("vision_config", {"model_type": "swin"}, "vision tower of type 'swin'"),
        ("architectures", ["TheirModel"], "TheirModel"),
    ],
)
def test_what_is_not_understood_is_refused(reference, key, value, words):
    content = json.loads((reference("1.5")[1] / "config.json").read_text())
    with pytest.raises(ConfigError, match=words):
        format_for(content).read_config({**content, key: value}, frozenset())


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("adapter=linear", "adapter: format 'transformers-llava' holds an mlp"),
        ("adapter.depth=3", "holds an mlp of two equal matrices"),
        ("class_token=true", "class_token"),
        ("layer=null", "layer: "),
        ("image_token=-200", "image_token: "),
        ("vision.classes=3", "vision.classes: LLaVA's layouts hold towers without a head"),
        ("vision.backbone.norm=rms", "has no word for backbone.norm"),
        ("text.backbone.norm=layer", "norm"),
        ("vision.tokenizer.resize=squash", None),
    ],
)
def test_what_the_layout_cannot_say_is_not_written(reference, override, words, tmp_path):
    model = zoo.load(f"dir:{reference('1.5')[1]}", override, partial=True)
    if words is None:
        zoo.save(model, tmp_path, format="transformers-llava")
        assert zoo.load(f"dir:{tmp_path}").config.vision.tokenizer.resize == "squash"
    else:
        with pytest.raises(ConfigError, match=words):
            zoo.save(model, tmp_path, format="transformers-llava")


# -- pictures --------------------------------------------------------------------------------------


def picture(height, width):
    generator = torch.Generator().manual_seed(height + width)
    noise = torch.randint(0, 256, (5, 7, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(noise.numpy()).resize((width, height))


@pytest.mark.parametrize("size", [(28, 28), (40, 100), (101, 33), (5, 300)])
def test_pixels_of_1_5(size, tmp_path, reference):
    """Padded to a square, as LlavaImageProcessor does; cropped, as CLIP's does."""
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    model = zoo.load(f"dir:{reference('1.5')[1]}", "vision.tokenizer.resize=pad")
    zoo.save(model, tmp_path, format="transformers-llava")
    theirs = LlavaImageProcessorPil.from_pretrained(tmp_path)
    assert theirs.do_pad
    for pads in (True, False):
        wanted = theirs(picture(*size), return_tensors="pt", do_pad=pads)["pixel_values"]
        how = "pad" if pads else "shortest"
        ours = zoo.load(
            f"dir:{tmp_path}",
            f"vision.tokenizer.resize={how}",
            "vision.tokenizer.crop_offset=floor",
        )
        pixels, sizes = ours.preprocess([picture(*size)])
        assert sizes == [size]
        assert (pixels[0] - wanted).abs().max() <= 1e-6


@pytest.mark.parametrize("size", [(28, 28), (40, 100), (101, 33), (5, 300), (2, 1)])
def test_pixels_of_1_6(size, tmp_path, reference):
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    model = zoo.load(f"dir:{reference('1.6')[1]}")
    zoo.save(model, tmp_path, format="transformers-llava-next")
    theirs = LlavaNextImageProcessorPil.from_pretrained(tmp_path)
    wanted = theirs(picture(*size), return_tensors="pt")
    pixels, sizes = model.preprocess([picture(*size)])
    assert sizes == [tuple(wanted["image_sizes"][0].tolist())]
    assert pixels[0].shape == wanted["pixel_values"][0].shape
    assert (pixels[0] - wanted["pixel_values"][0]).abs().max() <= 1e-6


# -- nodes -----------------------------------------------------------------------------------------


def test_hub_configs_that_say_little():
    """config.json of llava-hf/llava-1.5-7b-hf leaves what its classes mean by themselves out."""
    content = {
        "architectures": ["LlavaForConditionalGeneration"],
        "ignore_index": -100,
        "image_token_index": 32000,
        "model_type": "llava",
        "pad_token_id": 32001,
        "projector_hidden_act": "gelu",
        "text_config": {
            "_name_or_path": "lmsys/vicuna-7b-v1.5",
            "architectures": ["LlamaForCausalLM"],
            "max_position_embeddings": 4096,
            "model_type": "llama",
            "rms_norm_eps": 1e-05,
            "torch_dtype": "float16",
            "vocab_size": 32064,
        },
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "vision_config": {
            "hidden_size": 1024,
            "image_size": 336,
            "intermediate_size": 4096,
            "model_type": "clip_vision_model",
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
            "projection_dim": 768,
            "vocab_size": 32000,
        },
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
    node = format_for(content).read_config(content, frozenset())
    read, ours = resolve("model", {"kind": "vision-language", **node}), zoo.config("llava-1.5-7b")
    assert parts(read) == parts(ours)
    with torch.device("meta"):
        theirs = transformers.LlavaForConditionalGeneration(
            transformers.LlavaConfig.from_dict(content)
        )
    count = sum(p.numel() for p in theirs.parameters())
    assert count == sum(p.numel() for p in zoo.create("llava-1.5-7b", device="meta").parameters())


def parts(config):
    from zoo.weights.formats import _vit
    from zoo.weights.formats._text import computation

    vision = _vit.computation(config.vision)
    for key in ("weights", "card"):
        vision.pop(key)
    vision["tokenizer"].pop("resize")
    vision["tokenizer"].pop("crop_offset")
    rest = {key: getattr(config, key) for key in ("adapter", "layer", "image_token", "tiles")}
    return vision, computation(config.text), rest
