"""Training as published: any part swapped, LoRA in the second stage, a folder of conversations."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import zoo
from zoo.training.run import train

FEW = ["trainer.batch=4", "trainer.steps=1", "data.held_out=6", "schedule.warmup=0"]
SMALL = "depth: 1, width: 32, attention: {heads: 2}"
READS = f"backbone: {{{SMALL}, cross_attention: {{heads: 2}}}}"
SPEAKS = f"vocabulary: 400, tokenizer: digits-bpe, backbone: {{{SMALL}, length: 128}}"
SWAPS = {
    "vision": [
        "model.vision=timm/test_vit",
        "model.bases.vision=null",
        "model.adapter.pool=5",
        "model.class_token=false",
    ],
    "adapter": [f"model.adapter={{name: resampler, queries: 3, {READS}}}"],
    "text": [f"model.text={{name: gpt2, {SPEAKS}}}", "model.bases.text=null"],
}


def run(folder, *words, experiment="digits_llava_adapter"):
    """Trains as a program would; returns the names that were stored, and the whole."""
    overrides = [*FEW, *words, f"run.dir={folder}"]
    train(zoo.config(experiment, *overrides, group="experiment"), quiet=True)
    return stored(folder), zoo.load(f"dir:{folder}")


def stored(folder):
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.parametrize("part", SWAPS)
def test_each_part_swaps_from_python_and_from_the_command_line(part, tmp_path, monkeypatch):
    """One step with it; Hydra's reading of the words trains the same weights."""
    from zoo.cli import main

    words = [*SWAPS[part], "trainable=['*']", "export=all"]
    ours, model = run(tmp_path / "python", *words)
    shipped = zoo.config("llava-digits")
    assert getattr(model.config, part) != getattr(shipped, part)
    monkeypatch.chdir(tmp_path)
    hydra = ["experiment=digits_llava_adapter", *FEW, *words, "run.dir=hydra"]
    assert main(["train", *hydra]) == 0
    theirs = stored(tmp_path / "hydra")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert isinstance(model.answer(Image.new("L", (32, 32)), "is it odd?", max_new_tokens=2), str)


def test_lora_in_the_second_stage(tmp_path):
    """The adapter and small additions to the language model learn and are stored; merged into it
    they give the same outputs."""
    words = ["model.text.tuning={name: lora, rank: 2}", "trainable=['adapter.*', '*.lora_*']"]
    names, model = run(tmp_path, *words, "trainer.steps=3", experiment="digits_llava")
    assert all(name.startswith("adapter.") or ".lora_" in name for name in names)
    assert any(name.startswith("text.") for name in names)
    assert not any(name.startswith("vision.") for name in names)  # of the text decoder alone
    base = zoo.load("llava-digits.adapter")
    plain = dict(base.text.named_parameters())
    ours = dict(model.text.named_parameters())
    assert all(torch.equal(ours[name], plain[name]) for name in plain if name in ours)
    tokens, pixels = torch.tensor([[5, -200, 6, 7]]), torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        tuned = model(tokens, pixels).logits
        assert not torch.allclose(tuned, base(tokens, pixels).logits)
        merged = zoo.load(f"dir:{zoo.save(zoo.merge(model), tmp_path / 'merged')}")
        assert merged.config.text.tuning is None
        assert torch.allclose(merged(tokens, pixels).logits, tuned, atol=1e-4)


def test_a_folder_of_conversations_is_trained_on_and_gone_on_with(tmp_path):
    """LLaVA's JSON beside its pictures, packed; a run cut in two is the run."""
    talks = []
    for number in range(5):
        Image.new("RGB", (20 + number, 30), (50 * number, 0, 0)).save(tmp_path / f"{number}.png")
        turns = [("human", "<image>\nis it odd?"), ("gpt", "yes" if number % 2 else "no")]
        turns += [("human", "is it even?"), ("gpt", "no" if number % 2 else "yes")]
        talk = [{"from": who, "value": text} for who, text in turns]
        talks.append({"id": number, "image": f"{number}.png", "conversations": talk})
    talks.append({"id": 9, "conversations": talk[2:]})
    (tmp_path / "talks.json").write_text(json.dumps(talks))
    data = ["data=llava", f"data.file={tmp_path / 'talks.json'}", "data.held_out=0.0"]
    data += ["objective.pack=120", "trainer.save_every=1", "schedule=constant"]
    whole, _ = run(tmp_path / "whole", *data, "trainer.steps=2")
    run(tmp_path / "cut", *data, "trainer.steps=1")
    again, model = run(tmp_path / "cut", *data, "trainer.steps=2")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    start = zoo.load("llava-digits.adapter").adapter.state_dict()
    assert not torch.equal(model.adapter.linear.weight, start["linear.weight"])
