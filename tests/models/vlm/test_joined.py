"""Models that lie in several places: LLaVA v1's projector beside its two ends, its differences to a
Llama, an adapter that is pushed alone."""

import json

import pytest
import torch
from safetensors.torch import save_file

import zoo
from tests.hub.conftest import api, environment, hub, start_hub  # noqa: F401
from tests.models.vlm.conftest import TINY
from tests.weights.formats.parity import (
    TOLERANCE,
    distance,
    random_weights,
    tensors,
    transformers,
)
from tests.weights.formats.test_llava import FORMAT, SMALL, config
from tests.weights.formats.test_llava_transformers import MARK, TEXT, make, prompt, spread
from zoo.errors import ConfigError, WeightsError
from zoo.models.vlm.prompts import question_about

SMALL_TEXT = (
    "text={vocabulary: 99, backbone: {depth: 2, width: 40, attention: {heads: 4, kv_heads: 2},"
    " feedforward: {hidden: 56}}}"
)


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Returns (transformers' LLaVA v1: one matrix and an identity; folders of its tower and of its
    language model, as their own classes save them)."""
    reference = make(projector_hidden_act="linear")
    eyes, mouth = (tmp_path_factory.mktemp(name) for name in ("clip", "vicuna"))
    inner = reference.model
    tower = transformers.CLIPVisionModel(reference.config.vision_config)
    tower.load_state_dict(inner.vision_tower.state_dict())
    tower.save_pretrained(eyes)
    words = transformers.LlamaForCausalLM(reference.config.text_config)
    words.model.load_state_dict(inner.language_model.state_dict())
    words.lm_head.load_state_dict(reference.lm_head.state_dict())
    words.save_pretrained(mouth)
    return reference, eyes, mouth


def projector(reference):
    linear = reference.model.multi_modal_projector.linear_1
    return {
        f"model.mm_projector.{key}": value.detach().clone() for key, value in
        (("weight", linear.weight), ("bias", linear.bias))
    }  # fmt: skip


@torch.no_grad()
def same_logits(ours, reference):
    pixels = torch.randn(3, 3, 28, 28)
    tokens = prompt(3)
    found = ours(tokens.where(tokens != MARK, ours.config.image_token), pixels).logits
    wanted = reference(input_ids=spread(tokens, [16] * 3), pixel_values=pixels).logits
    return distance(found, wanted) <= TOLERANCE


def test_v1_is_a_projector_between_two_repositories(ends, hub, api, tmp_path):  # noqa: F811
    """The published node: its own file is a pickle of one matrix; its bases are pulled too."""
    reference, *folders = ends
    (tmp_path / "projector").mkdir()
    torch.save(projector(reference), tmp_path / "projector" / "mm_projector.bin")
    repos = ["openai/clip-vit-large-patch14", "lmsys/vicuna-7b-v1.3"]
    repos.append("liuhaotian/llava-pretrain-vicuna-7b-v1.3")
    for repo, folder in zip(repos, [*folders, tmp_path / "projector"], strict=True):
        api.create_repo(repo)
        api.upload_folder(repo_id=repo, folder_path=folder)
    bases = {"vision": f"hf:{repos[0]}", "text": f"hf:{repos[1]}"}
    ours = zoo.load("llava-v1-7b", SMALL, SMALL_TEXT, {"bases": bases}, allow_pickle=True)
    assert same_logits(ours, reference)
    tokenizer = ours.vision.tokenizer.config  # v1 crops the middle, 1.5 pads to a square
    assert (tokenizer.resize, ours.config.adapter.zoo_kind) == ("shortest", "linear")
    assert zoo.config("llava-1.5-7b").vision.tokenizer.resize == "pad"
    with pytest.raises(WeightsError, match="allow_pickle=True"):
        zoo.load("llava-v1-7b", SMALL, SMALL_TEXT, {"bases": bases})


def test_differences_are_added_to_a_llama(ends, tmp_path):
    """As apply_delta of LLaVA's code does it: the base has three tokens less, the projector is in
    the file as it is."""
    reference, eyes, mouth = ends
    base = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**TEXT, "vocab_size": 96}))
    random_weights(base, seed=7).save_pretrained(tmp_path / "llama")
    old, new = tensors(tmp_path / "llama"), tensors(mouth)
    delta, whole = {}, {}
    for name, tensor in new.items():
        rows = old[name].shape[0]
        delta[name] = tensor.clone()
        delta[name][:rows] -= old[name]
        whole[name] = delta[name].clone()
        whole[name][:rows] += old[name]  # not quite what it was: sums are rounded
    (tmp_path / "delta").mkdir()
    save_file({**delta, **projector(reference)}, tmp_path / "delta" / "model.safetensors")
    keys = {"mm_vision_tower": "openai/clip-vit-large-patch14", "image_aspect_ratio": "square"}
    keys |= {"mm_projector_type": "linear", "mm_use_im_start_end": True}
    (tmp_path / "delta" / "config.json").write_text(json.dumps(config(**keys)))
    where = {"deltas": {"text": f"dir:{tmp_path / 'llama'}"}, "bases": {"vision": f"dir:{eyes}"}}
    ours = zoo.load(f"dir:{tmp_path / 'delta'}", SMALL, where)
    (tmp_path / "whole").mkdir()
    save_file(whole, tmp_path / "whole" / "model.safetensors")
    (tmp_path / "whole" / "config.json").write_text((mouth / "config.json").read_text())
    wanted = zoo.load(f"dir:{tmp_path / 'whole'}").state_dict()
    assert all(torch.equal(ours.text.state_dict()[name], wanted[name]) for name in wanted)
    assert same_logits(ours, reference)
    # the added tokens stand around a picture
    assert (ours.config.before, ours.config.after) == (["<im_start>"], ["<im_end>"])
    # what is stored afterwards is no difference
    again = zoo.load(f"dir:{zoo.save(ours, tmp_path / 'stored')}")
    assert again.config.deltas == {} and same_logits(again, reference)
    zoo.save(ours, tmp_path / "public", format="llava")
    written = json.loads((tmp_path / "public" / "config.json").read_text())
    assert written["mm_use_im_start_end"] is True
    back = zoo.load(f"dir:{tmp_path / 'public'}", SMALL, bases=where["bases"])
    assert back.config.after == ["<im_end>"] and same_logits(back, reference)


def test_tokens_around_pictures(tiny):
    special = "special: {eos: </s>, unk: <unk>, pad: <pad>, extra: [<im_start>, <im_end>]}"
    words = f"text.tokenizer={{name: byte, chat: llava-v1, {special}}}", "image_token=-200"
    model = tiny(*words, "before=[<im_start>]", "after=[<im_end>]")
    start, end = (model.tokenizer.token_to_id(name) for name in ("<im_start>", "<im_end>"))
    asked = question_about(["a", "b"], "<image> or <image>?")
    ids = model.prompt(asked)
    marks = [place for place, token in enumerate(ids) if token == -200]
    assert [ids[place - 1 : place + 2] for place in marks] == [[start, -200, end]] * 2
    assert [token for token in ids if token not in (start, end)] == tiny(*words).prompt(asked)
    with pytest.raises(ConfigError, match="before: the tokenizer has no token '<ears>'"):
        tiny(*words, "before=[<ears>]").prompt(asked)
    with pytest.raises(ConfigError, match="before: format 'llava' knows"):
        FORMAT.write_config(zoo.config("llava-v1-7b", "before=[<ears>]"))


def test_an_adapter_is_pushed_alone_and_finds_its_ends(hub, tmp_path):  # noqa: F811
    for number, name in enumerate(("vision", "text")):
        part = getattr(zoo.create("llava-1.5-7b", *TINY, seed=number), name)
        zoo.push(part, f"acme/{name}")
    bases = {"vision": "hf:acme/vision", "text": "hf:acme/text"}
    model = zoo.create("llava-1.5-7b", *TINY, {"bases": bases, "image_token": -200}, seed=9)
    for name, base in bases.items():
        model.get_submodule(name).load_state_dict(zoo.load(base).state_dict())
    done = zoo.push(model, "acme/adapter", only=["adapter.*"])
    assert ("model.safetensors", "new") in done.files
    with_names = tensors(zoo.pull("hf:acme/adapter"))
    assert with_names and all(name.startswith("adapter.") for name in with_names)
    again = zoo.load("hf:acme/adapter")
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with pytest.raises(ConfigError, match="only: a folder goes as it is"):
        zoo.push(str(tmp_path), "acme/adapter", only=["adapter.*"])


def test_an_adapter_on_somebody_s_folders(hub, tmp_path):  # noqa: F811
    parts = {name: zoo.create("llava-1.5-7b", *TINY, seed=1) for name in ("vision", "text")}
    bases = {name: f"dir:{zoo.save(getattr(parts[name], name), tmp_path / name)}" for name in parts}
    model = zoo.create("llava-1.5-7b", *TINY, {"bases": bases}, seed=1)
    zoo.push(model, "acme/adapter", only=["adapter.*"])
    with pytest.raises(ConfigError, match=r"a folder of whoever pushed it; say where yours"):
        zoo.load("hf:acme/adapter")
    for name in bases:
        (tmp_path / name).rename(tmp_path / f"my-{name}")
    mine = {name: f"dir:{tmp_path / f'my-{name}'}" for name in bases}
    again = zoo.load("hf:acme/adapter", bases=mine)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))
