"""aMUSEd against diffusers: its transformer, its whole pipeline, and the way back."""

import numpy as np
import pytest
import torch

import zoo
from tests.weights.formats.parity import clip_words, distance
from zoo.errors import ConfigError
from zoo.registry import resolve
from zoo.weights.formats import find_format

transformers = pytest.importorskip("transformers")
diffusers = pytest.importorskip("diffusers")
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()

SMALL = {
    "hidden_size": 32,
    "cond_embed_dim": 20,
    "micro_cond_encode_dim": 8,
    "micro_cond_embed_dim": 40,
    "encoder_hidden_size": 24,
    "vocab_size": 70,
    "codebook_size": 64,
    "in_channels": 16,
    "block_out_channels": 24,
    "num_res_blocks": 1,
    "block_num_heads": 3,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 44,
    "sample_size": 8,
}
HALVED = {"downsample": True, "upsample": True}
ODD = {
    "as aMUSEd 256": {},
    "as aMUSEd 512": HALVED,
    "one width": {"block_out_channels": 32, "block_num_heads": 4, "num_res_blocks": 3},
    "with biases": {**HALVED, "use_bias": True, "block_out_channels": 18, "layer_norm_eps": 1e-3},
    "nothing in the middle": {"use_bias": True, "num_hidden_layers": 0, "in_channels": 40},
}


def spread(model, seed=0):
    """Random values everywhere, so that nothing hides behind a zero or a one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fan = max(1, parameter[0].numel()) if parameter.ndim > 1 else 25
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan**0.5)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    return model.eval()


@pytest.mark.parametrize("odd", ODD)
def test_the_transformer_is_diffusers_and_goes_back(odd, tmp_path):
    theirs = spread(diffusers.UVit2DModel(**{**SMALL, **ODD[odd]}))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = zoo.load(f"dir:{tmp_path / 'theirs'}")
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 70, (2, 6, 8), generator=generator)  # another grid than configured
    text = torch.randn(2, 7, 24, generator=generator)
    pooled = torch.randn(2, 20, generator=generator)
    told = torch.tensor([[512.0, 300, 2, 0, 6], [64, 64, 0, 9, 4.5]])
    with torch.no_grad():
        expected = theirs(codes, text, pooled, told).flatten(2).transpose(1, 2)
        found = ours(codes, features=text, pooled=pooled, measures=told).logits
    assert expected.std() > 0.1
    assert distance(found, expected) <= 1e-5
    zoo.save(ours, tmp_path / "back", format="diffusers-uvit2d")
    back = diffusers.UVit2DModel.from_pretrained(tmp_path / "back", low_cpu_mem_usage=False)
    state = back.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in theirs.state_dict().items())
    assert back.config["sample_size"] == 8 and back.config["downsample"] == bool(
        ODD[odd].get("downsample")
    )


# -- the pipeline ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("amused")
    words, size = clip_words(folder / "words", 11)
    text = transformers.CLIPTextModelWithProjection(
        transformers.CLIPTextConfig(
            vocab_size=size,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=11,
            projection_dim=20,
            bos_token_id=size - 2,
            eos_token_id=2,
        )
    )
    visual = diffusers.VQModel(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=16,
        num_vq_embeddings=64,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
        force_upcast=True,
        sample_size=16,
    )
    made = diffusers.AmusedPipeline(
        vqvae=spread(visual, 1),
        tokenizer=words,
        text_encoder=spread(text, 2),
        transformer=spread(diffusers.UVit2DModel(**SMALL), 3),
        scheduler=diffusers.AmusedScheduler(mask_token_id=69),
    )
    made.save_pretrained(folder / "theirs")
    made.set_progress_bar_config(disable=True)
    return made, folder / "theirs", zoo.load(f"dir:{folder / 'theirs'}")


def random(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize("steps", [1, 6])
def test_the_pipeline_draws_the_same_codes(pipeline, guidance, steps):
    theirs, _, ours = pipeline
    asked = {"num_inference_steps": steps, "guidance_scale": guidance, "negative_prompt": "dull"}
    prompts = ["a red dog", "Ein \u00e4u\u00dferst langer Satz"]
    if guidance == 1.5:
        asked["negative_prompt"] = ["dull"] * 2
    codes = theirs(prompts, **asked, output_type="latent", generator=random(3))[0].flatten(1)
    found = ours.draw_codes(prompts, seed=3, steps=steps, guidance=guidance, negative="dull")
    assert torch.equal(found, codes)
    assert len(codes.unique()) > 10 and not torch.equal(codes[0], codes[1])


def test_the_pipeline_draws_the_same_picture(pipeline):
    theirs, _, ours = pipeline
    asked = {"num_inference_steps": 12, "guidance_scale": 10.0, "generator": random(0)}
    expected = theirs("a red dog", **asked, output_type="np")[0][0]
    found = np.asarray(ours.draw("a red dog", seed=0)[0]) / 255  # 12 passes, guidance 10
    assert expected.std() > 0.05
    assert np.abs(found - expected).max() <= 0.5 / 255 + 1e-5


def test_no_prompt_is_an_empty_one_and_numbers_are_told(pipeline):
    theirs, _, ours = pipeline
    asked = {"num_inference_steps": 4, "guidance_scale": 1.0, "output_type": "latent"}
    told = {"micro_conditioning_aesthetic_score": 9, "micro_conditioning_crop_coord": (3, 1)}
    codes = theirs("", **asked, **told, generator=random(5))[0].flatten(1)
    measures = {"score": 9, "top": 3, "left": 1}
    given = {"seed": 5, "steps": 4, "guidance": 1}
    assert torch.equal(ours.draw_codes([None], measures=measures, **given), codes)
    assert not torch.equal(ours.draw_codes([None], **given), codes)
    with pytest.raises(ConfigError, match=r"no 'scor' here\. Did you mean 'score'"):
        ours.draw(measures={"scor": 9})


def test_inpainting_is_the_same_too(pipeline):
    theirs, _, ours = pipeline
    scheduler = diffusers.AmusedScheduler(mask_token_id=69)  # which it sets to linear
    inpaint = diffusers.AmusedInpaintPipeline(**{**theirs.components, "scheduler": scheduler})
    inpaint.set_progress_bar_config(disable=True)
    pixels = torch.rand(1, 3, 16, 16, generator=random(1))
    codes = ours.visual.encode(pixels).ids.flatten(1)
    latents = theirs.vqvae.encode(pixels).latents
    assert torch.equal(theirs.vqvae.quantize(latents)[2][2], codes.flatten())
    hidden = torch.zeros(8, 8, dtype=torch.bool)
    hidden[2:7, 3:] = True
    mask = hidden.repeat_interleave(2, 0).repeat_interleave(2, 1).float()[None, None]
    asked = {"num_inference_steps": 6, "guidance_scale": 1.5, "strength": 1.0}
    expected = inpaint(
        "a red dog", pixels, mask, **asked, output_type="latent", generator=random(4)
    )[0].flatten(1)
    known = torch.where(hidden.flatten(), -1, codes)
    given = {"seed": 4, "steps": 6, "guidance": 1.5, "schedule": "linear"}
    found = ours.draw_codes(["a red dog"], known, **given)
    assert torch.equal(found, expected)
    assert torch.equal(found[:, ~hidden.flatten()], codes[:, ~hidden.flatten()])
    picture = ours.visual.pictures(pixels)[0]
    (edited,) = ours.edit(picture, mask[0, 0].numpy(), "a red dog", seed=4, steps=6)
    assert edited.size == (16, 16)


@pytest.mark.parametrize(("steps", "strength"), [(6, 0.5), (10, 0.1), (12, 0.8)])
def test_a_picture_as_the_beginning_is_the_same_too(pipeline, steps, strength):
    theirs, _, ours = pipeline
    begun = diffusers.AmusedImg2ImgPipeline(**theirs.components)
    begun.set_progress_bar_config(disable=True)
    pixels = torch.rand(1, 3, 16, 16, generator=random(1))
    asked = {"num_inference_steps": steps, "guidance_scale": 1.5, "strength": strength}
    expected = begun("a red dog", pixels, **asked, output_type="latent", generator=random(4))[0]
    codes = ours.visual.encode(pixels).ids.flatten(1)
    given = {"seed": 4, "steps": steps, "guidance": 1.5, "begin": 1 - strength}
    found = ours.draw_codes(["a red dog"], codes, **given)
    assert torch.equal(found, expected.flatten(1))
    kept = float((found == codes).float().mean())
    assert 0.05 < kept < 1 and (strength > 0.2 or kept > 0.5)
    picture = ours.visual.pictures(pixels)[0]
    (edited,) = ours.edit(picture, None, "a red dog", **given)
    assert edited.size == (16, 16)
    with pytest.raises(ConfigError, match="begin: the whole picture is drawn anew"):
        ours.edit(picture, torch.ones(16, 16).numpy(), "a red dog", begin=0.5)


def test_the_pipeline_goes_back(pipeline, tmp_path):
    theirs, _, ours = pipeline
    zoo.save(ours, tmp_path, format="public")
    back = diffusers.AmusedPipeline.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    back.set_progress_bar_config(disable=True)
    for name in ("vqvae", "transformer", "text_encoder"):
        state = getattr(back, name).state_dict()
        before = getattr(theirs, name).state_dict()
        assert before.keys() == state.keys()
        assert all(torch.equal(before[key], state[key]) for key in state)
    asked = {"num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "np"}
    one = theirs("A dog!", **asked, generator=random(0))[0]
    assert np.abs(one - back("A dog!", **asked, generator=random(0))[0]).max() <= 1e-6
    again = zoo.load(f"dir:{tmp_path}")
    given = {"seed": 0, "steps": 3, "guidance": 2}
    assert torch.equal(again.draw_codes(["A dog!"], **given), ours.draw_codes(["A dog!"], **given))


def test_our_own_layout_holds_it_whole(pipeline, tmp_path):
    ours = pipeline[2]
    zoo.save(ours, tmp_path)
    again = zoo.load(f"dir:{tmp_path}")
    given = {"seed": 1, "steps": 2}
    assert torch.equal(again.draw_codes(["dog"], **given), ours.draw_codes(["dog"], **given))


# -- configs ---------------------------------------------------------------------------------------


def released(side, halved):
    """What lies in amused/amused-256 and -512."""
    return {
        "_class_name": "AmusedPipeline",
        "transformer/config.json": {
            "_class_name": "UVit2DModel", "sample_size": side, "downsample": halved,
            "upsample": halved,
        },
        "vqvae/config.json": {
            "_class_name": "VQModel", "block_out_channels": [128, 256, 256, 512, 768],
            "down_block_types": ["DownEncoderBlock2D"] * 5, "layers_per_block": 2,
            "up_block_types": ["UpDecoderBlock2D"] * 5, "latent_channels": 64,
            "mid_block_add_attention": False, "num_vq_embeddings": 8192, "vq_embed_dim": None,
            "lookup_from_codebook": True, "force_upcast": True, "sample_size": 32,
        },
        "text_encoder/config.json": {
            "architectures": ["CLIPTextModelWithProjection"], "model_type": "clip_text_model",
            "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
            "num_hidden_layers": 12, "projection_dim": 768, "eos_token_id": 2,
        },
        "scheduler/scheduler_config.json": {
            "_class_name": "AmusedScheduler", "mask_token_id": 8255, "masking_schedule": "cosine",
        },
    }  # fmt: skip


@pytest.mark.parametrize(("name", "side", "halved"), [("amused-256", 16, 0), ("amused-512", 32, 1)])
def test_the_nodes_are_the_released_configs(name, side, halved):
    chosen, node = find_format("diffusers-amused", "generator"), zoo.config(name)
    found = resolve(
        "model", {"kind": "generator", **chosen.read_config(released(side, bool(halved)), ())}
    )
    assert chosen.write_config(found) == chosen.write_config(node)
    assert node.sampling == found.sampling and node.shape == (side, side)
    assert node.measures == found.measures and node.weights[name[-3:]].license == "openrail++"


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("transformer", "upsample", True, "'upsample' = True"),
        ("transformer", "codebook_size", 4096, "'codebook_size' is 4096, and the tokenizer has"),
        ("transformer", "micro_cond_embed_dim", 256, "'micro_cond_embed_dim' = 256"),
        ("transformer", "new_key", 1, "'new_key' is not known"),
        ("scheduler", "mask_token_id", 8192, "'mask_token_id' = 8192"),
        ("text_encoder", "architectures", ["CLIPTextModel"], "reads a CLIPTextModelWithProj"),
        ("text_encoder", "hidden_size", 384, "features: the reader gives 384 channels, not 768"),
    ],
)
def test_what_is_another_model_is_refused(file, key, value, message):
    content = released(16, False)
    name = f"{file}/{'scheduler_' if file == 'scheduler' else ''}config.json"
    content[name] = {**content[name], key: value}
    chosen = find_format("diffusers-amused", "generator")
    with pytest.raises(ConfigError, match=message):
        resolve("model", {"kind": "generator", **chosen.read_config(content, ())})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("backbone.middle.position=rope", r"no word for backbone\.middle\.position"),
        ("backbone.up.depth=4", r"no word for backbone\.up\.depth = 4"),
        ("reader_layer=-1", "no word for reader_layer = -1"),
        ("learned_nothing=true", "no word for learned_nothing = True"),
        ("visual.span=[-1, 1]", "visual.span"),
        ("reader.backbone.position=rope", "no word for position 'rope'"),
    ],
)
def test_an_export_refuses_what_it_has_no_word_for(override, message):
    with pytest.raises(ConfigError, match=message):
        find_format("diffusers-amused", "generator").write_config(
            zoo.config("amused-256", override)
        )


def test_a_model_without_a_prompt_of_nothing_says_so(tmp_path):
    diffusers.UVit2DModel(**SMALL).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="has learned none for no prompt; give features and"):
        zoo.load(f"dir:{tmp_path}").draw_codes([None], steps=1)
