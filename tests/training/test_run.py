"""Runs in this process: what they leave behind, go on with, start from, and refuse."""

import dataclasses
import json
import math

import pytest
import torch
from torch import nn

import zoo
from zoo.errors import ConfigError, TrainingError
from zoo.registry import resolve
from zoo.training import loop
from zoo.training.classification import Classification
from zoo.training.objective import Loss
from zoo.training.record import read_run
from zoo.training.run import evaluate, train
from zoo.training.schema import EvalConfig


def run(mapping, **keys):
    return train(resolve("experiment", mapping), quiet=True, **keys)


def losses(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def weights(folder):
    return zoo.load(f"dir:{folder}").state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_a_run_is_a_record_and_a_model(small, tmp_path):
    mapping = small(tmp_path / "run", trainer__best="last")
    result = run(mapping, overrides=["seed=0"])
    assert result.step == 8 and result.stopped_by is None and result.cpu_seconds > 0
    assert sorted(losses(tmp_path / "run")) == list(range(1, 9))
    record = json.loads((tmp_path / "run" / "experiment.json").read_text())
    assert record["overrides"] == ["seed=0"] and record["config"]["kind"] == "train"
    assert read_run(tmp_path / "run") == resolve("experiment", mapping)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["metrics"] == result.metrics
    # the exported weights are what was measured
    assert evaluate(EvalConfig(of=str(tmp_path / "run"))) == pytest.approx(result.metrics)
    model = zoo.load(f"dir:{tmp_path / 'run'}")
    trained = dataclasses.replace(resolve("experiment", mapping).model, weights={})
    assert model.config == trained  # which has other weights than its node names
    assert [p.name for p in sorted((tmp_path / "run" / "checkpoints").glob("step*"))] == [
        "step_00000004",
        "step_00000008",
    ]


def test_the_same_run_twice_is_the_same(small, tmp_path):
    for name in "ab":
        run(small(tmp_path / name))
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    run(small(tmp_path / "c", seed=1))
    assert losses(tmp_path / "c")[1] != losses(tmp_path / "a")[1]


def test_a_longer_run_goes_on_from_a_shorter_one(small, tmp_path):
    run(small(tmp_path / "whole", schedule={"name": "constant"}))
    run(small(tmp_path / "parts", schedule={"name": "constant"}, trainer__steps=5))
    result = run(small(tmp_path / "parts", schedule={"name": "constant"}))
    assert result.step == 8
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert same(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    assert result.best == run(small(tmp_path / "whole", schedule={"name": "constant"})).best


def test_another_experiment_does_not_go_on_in_a_runs_folder(small, tmp_path):
    run(small(tmp_path / "run", trainer__steps=1))
    with pytest.raises(TrainingError, match=r"is a run with optim\.lr=0\.001, not 0\.1; choose"):
        run(small(tmp_path / "run", optim={"lr": 0.1}))
    with pytest.raises(TrainingError, match=r"trainer\.batch=16, not 32"):
        run(small(tmp_path / "run", trainer__batch=32))


def test_a_run_goes_on_whose_record_knows_fewer_keys(small, tmp_path):
    run(small(tmp_path / "run", trainer__steps=1))
    record = tmp_path / "run" / "experiment.json"
    content = json.loads(record.read_text())
    del content["config"]["trainable"]  # as an older zoo wrote it
    record.write_text(json.dumps(content))
    assert run(small(tmp_path / "run", trainer__steps=2)).step == 2
    assert json.loads(record.read_text())["config"]["trainable"] == ["*"]


def test_what_cannot_be_built_leaves_no_folder(small, tmp_path):
    with pytest.raises(ConfigError, match="no parameter matches 'nothing"):
        run(small(tmp_path / "run", trainable=["nothing*"]))
    with pytest.raises(ConfigError, match="timm has no optimiser"):
        run(small(tmp_path / "run", optim={"name": "timm", "algorithm": "nope"}))
    assert not (tmp_path / "run").exists()


def test_runs_are_numbered(small, tmp_path):
    folders = []
    for _ in range(2):
        mapping = small(tmp_path, trainer__steps=0)
        mapping["run"] = {"root": str(tmp_path / "runs")}
        folders.append(run(mapping).folder)
    assert folders == [tmp_path / "runs" / "1", tmp_path / "runs" / "2"]


def test_the_best_weights_are_the_exported_ones(small, tmp_path, monkeypatch):
    values = iter([0.5, 0.9, 0.7, 0.9])
    monkeypatch.setattr(
        loop.Trainer, "_measure", lambda self, loader: {"accuracy": next(values), "loss": 1.0}
    )
    exports = []
    monkeypatch.setattr(
        loop,
        "export",
        lambda model, state, folder, only: exports.append(state["head.bias"].clone()),
    )
    result = run(small(tmp_path / "run", trainer__eval_every=2))
    assert result.best == {"metric": "accuracy", "value": 0.9, "step": 4}
    assert len(exports) == 2 and not torch.equal(*exports)


def test_only_what_is_trainable_learns(small, tmp_path):
    mapping = small(tmp_path / "run", trainable=["head.*"], trainer__best="last")
    run(mapping)
    trained = weights(tmp_path / "run")
    new = zoo.models.base.initialise(
        zoo.models.base.build_empty(resolve("experiment", mapping).model), 0
    ).state_dict()
    changed = {name for name in new if not torch.equal(new[name], trained[name])}
    assert changed == {"head.weight", "head.bias"}


def test_training_starts_from_given_weights(small, tmp_path):
    run(small(tmp_path / "first"))
    start = f"dir:{tmp_path / 'first'}"
    run(small(tmp_path / "second", weights=start, trainer__steps=0))
    assert same(weights(tmp_path / "first"), weights(tmp_path / "second"))
    other_head = {"weights": start, "trainer__steps": 0, "model__registers": 2}
    with pytest.raises(zoo.errors.WeightsError, match="registers"):
        run(small(tmp_path / "third", **other_head))
    run(small(tmp_path / "third", partial=True, **other_head))
    third, first = weights(tmp_path / "third"), weights(tmp_path / "first")
    assert set(third) - set(first) == {"prefix.registers"}
    assert same({name: third[name] for name in first}, first)


class Exploding(Classification):
    """An objective whose loss is no number at the sixth step."""

    calls = 0

    def __call__(self, model, batch):
        self.calls += 1
        loss = super().__call__(model, batch)
        return Loss(loss.value * (math.nan if self.calls == 6 else 1.0))


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(
    small, tmp_path, monkeypatch
):
    monkeypatch.setattr("zoo.training.classification.Classification", Exploding)
    mapping = small(tmp_path / "run", trainer__log_every=100, trainer__save_every=3)
    with pytest.raises(TrainingError) as error:
        run(mapping)
    text = str(error.value)
    assert "no number at step 6" in text and "checkpoint of step 3" in text and "\n" not in text
    assert (tmp_path / "run" / "checkpoints" / "last").read_text().strip() == "step_00000003"


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(small, tmp_path, monkeypatch):
    from zoo.training.checkpoint import Checkpoints, SaveFailed

    save = Checkpoints.save

    def full(self, step, tensors, state):
        if step == 4:
            raise SaveFailed("The checkpoint of step 4 could not be written (disk full).")
        return save(self, step, tensors, state)

    monkeypatch.setattr(Checkpoints, "save", full)
    with pytest.warns(UserWarning, match="disk full.*Training goes on"):
        result = run(small(tmp_path / "run"))
    assert result.step == 8 and not (tmp_path / "run" / "checkpoints" / "step_00000004").exists()
    monkeypatch.setattr(Checkpoints, "save", lambda *_: full(_[0], 4, None, None))
    with pytest.raises(TrainingError, match=r"disk full.*Free some space, then zoo train resume="):
        run(small(tmp_path / "other", trainer__save_every=None))


def test_classes_get_the_names_that_the_data_has(small, tmp_path):
    run(small(tmp_path / "run", trainer__steps=1, model__labels=[]))
    assert zoo.load(f"dir:{tmp_path / 'run'}").config.labels == [str(i) for i in range(10)]


def test_any_module_with_logits_trains(tmp_path):
    """The loop asks nothing of a model but a forward pass."""
    from zoo.registry import build

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))
    data = build(resolve("data", "digits"))
    trainer = build(
        resolve("trainer", {"name": "default", "steps": 30, "log_every": 1}),
        model=model,
        train=data.split("train"),
        test=data.split("test"),
        objective=build(resolve("objective", "classification")),
        optim=resolve("optim", {"name": "adamw", "lr": 0.01}),
        schedule=resolve("schedule", "cosine"),
        quiet=True,
    )
    result = trainer.fit(tmp_path)
    assert losses(tmp_path)[30] < losses(tmp_path)[1] / 2 and result.metrics["accuracy"] > 0.7
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_epochs_instead_of_steps(small, tmp_path):
    result = run(small(tmp_path / "run", trainer__steps=None, trainer__epochs=0.1))
    assert result.step == round(0.1 * 1437 / 16)
    with pytest.raises(ConfigError, match=r"trainer\.steps: give either steps or epochs"):
        resolve("experiment", small(tmp_path, trainer__epochs=1.0))


def test_bf16_is_close_to_fp32(small, tmp_path):
    for precision in ("fp32", "bf16"):
        run(small(tmp_path / precision, trainer__precision=precision))
    full, half = losses(tmp_path / "fp32"), losses(tmp_path / "bf16")
    assert full != half and all(half[s] == pytest.approx(full[s], abs=0.02) for s in full)
    assert all(t.dtype == torch.float32 for t in weights(tmp_path / "bf16").values())
