"""The shipped models of questions about digits answer as well as was measured, and are layered as
their node says."""

import json

import pytest
import torch
from safetensors.torch import load_file

import zoo
from zoo.data.digits import load_digits
from zoo.data.loader import EvalLoader
from zoo.models.shipped import ASSETS
from zoo.registry import build, resolve
from zoo.training.distributed import World


def exact(name, count=140, **keys):
    """The share of the first held-out questions that are answered exactly."""
    model = zoo.load(name)
    split = build(resolve("data", {"name": "digit-questions", **keys, "held_out": count}))
    loader = EvalLoader(split.split("test", model), batch=70, workers=0)
    with torch.no_grad():
        return build(resolve("objective", "answers")).evaluate(model, loader, World())["exact"]


def measured(folder):
    value = json.loads((ASSETS / folder / "measured.json").read_text())["exact"]["value"]
    return float(value.removesuffix("%")) / 100


@pytest.mark.parametrize(
    ("name", "folder", "keys"),
    [
        ("lm-digits", "lm-digits", {"pictures": False}),
        ("llava-digits.adapter", "llava-digits-adapter", {}),
        ("llava-digits", "llava-digits", {}),
    ],
)
def test_shipped_weights_answer_as_measured(name, folder, keys):
    assert exact(name, **keys) == pytest.approx(measured(folder), abs=0.05)


def test_only_what_was_trained_is_stored():
    assert load_file(ASSETS / "llava-digits-adapter" / "model.safetensors").keys() == {
        "adapter.linear.weight",
        "adapter.linear.bias",
    }
    assert {
        key.partition(".")[0] for key in load_file(ASSETS / "llava-digits" / "model.safetensors")
    } == {"adapter", "text"}
    adapter, bases = (
        zoo.load("llava-digits.adapter"),
        (zoo.load("vit-digits"), zoo.load("lm-digits")),
    )
    for part, base in zip((adapter.vision, adapter.text), bases, strict=True):
        ours, theirs = part.state_dict(), base.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    share = sum(p.numel() for p in adapter.adapter.parameters())
    assert share / sum(p.numel() for p in adapter.parameters()) < 0.01


def test_decoding_writes_what_was_measured():
    """An exact answer is what greedy decoding writes."""
    model = zoo.load("llava-digits")
    images, _ = load_digits("test")
    questions = build(resolve("data", "digit-questions")).split("test", model)
    samples = [questions.sample(index) for index in range(28)]
    asked = [[images[scan] for scan in scans] for _, scans, _, _ in samples]
    answers = model.answer(asked, [question for _, _, question, _ in samples], max_new_tokens=4)
    right = [answer == wanted for answer, (*_, wanted) in zip(answers, samples, strict=True)]
    assert sum(right) / 28 == pytest.approx(exact("llava-digits", 28), abs=1e-6)


@pytest.mark.parametrize(("stage", "learning"), [("_adapter", "adapter"), ("", "adapter text")])
def test_a_stage_trains_its_parts_and_goes_on(stage, learning, tmp_path):
    """Only what learns moves and is stored; a run cut in two is the run."""
    from zoo.training.run import train

    words = ["trainer.batch=4", "data.held_out=7", "trainer.save_every=1", "objective.pack=80"]

    def run(steps, folder):
        experiment = zoo.config(
            f"digits_llava{stage}", *words, f"trainer.steps={steps}", "schedule=constant",
            f"run.dir={tmp_path / folder}", group="experiment",
        )  # fmt: skip
        train(experiment, quiet=True)
        return zoo.load(f"dir:{tmp_path / folder}")

    whole, start = run(2, "whole"), zoo.load("llava-digits.adapter")
    assert {
        key.partition(".")[0]
        for key in load_file(tmp_path / "whole" / "model" / "model.safetensors")
    } == set(learning.split())
    moved = {
        name.partition(".")[0]
        for name, tensor in whole.state_dict().items()
        if not torch.equal(tensor, start.state_dict()[name])
    }
    assert moved == set(learning.split())
    run(1, "parts")
    again = run(2, "parts")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters()))


def test_the_loss_is_on_answers_alone():
    model = zoo.load("llava-digits")
    split = build(resolve("data", "digit-questions")).split("test", model)
    objective, batch = build(resolve("objective", "answers")), split.batch(range(14))
    packed = build(resolve("objective", {"name": "answers", "pack": 60}))
    with torch.no_grad():
        first = objective(model, batch).value
        assert objective.weight(batch) == batch["answers"].sum()
        assert abs(packed(model, batch).value - first) <= 1e-5 * first
        changed = dict(batch, tokens=batch["tokens"].clone())
        last = batch["answers"].nonzero()[-1]
        changed["tokens"][tuple(last)] = 7
        assert objective(model, changed).value != first
        _, wanted, sample = objective.predicted(model, batch)
    said = [
        model.tokenizer.decode(wanted[sample == row].tolist(), skip_special=True)
        for row in range(14)
    ]
    assert said == [split.sample(index)[3] for index in range(14)]
