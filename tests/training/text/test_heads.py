"""Tagging and answer spans: transformers' losses, metrics by hand, and that a few steps learn."""

# b samples, n tokens

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import zoo
from tests.weights.formats.parity import transformers
from zoo.data.draw import seeds_of
from zoo.errors import ConfigError, DataError
from zoo.models.base import build_empty, initialise
from zoo.registry import build, resolve
from zoo.training.distributed import World

TASKS = {"tagging": ("tag", "TokenClassification"), "answer-span": ("span", "QuestionAnswering")}


def objective_of(name, **given):
    return build(resolve("objective", {"name": name, **given}))


def encoder(task, kind="masked-lm"):
    backbone = {"depth": 1, "width": 32, "length": 32, "attention": {"heads": 4}}
    heads = {"task": task, "classes": 3} if kind == "masked-lm" else {}
    given = {"kind": kind, "vocabulary": 50, "backbone": backbone, **heads}
    return initialise(build_empty(resolve("model", given)), 0)


def batch(size=8, n=12):
    # token 7 opens an answer of three tokens; a token's class is its id modulo 3
    tokens = torch.randint(10, 50, (size, n), generator=torch.Generator().manual_seed(0))
    start = torch.arange(size) % (n - 4) + 1
    tokens[torch.arange(size), start] = 7
    labels = (tokens % 3).masked_fill(torch.arange(n) == 0, -100)
    held = {"valid": torch.ones(size, dtype=torch.bool), "seeds": seeds_of(0, torch.arange(size))}
    return {"tokens": tokens, "labels": labels, "start": start, "end": start + 2, **held}


class Says(nn.Module):
    """Gives the same scores whatever it reads."""

    def __init__(self, logits):
        super().__init__()
        self.output, self.config = SimpleNamespace(logits=logits), SimpleNamespace(labels=[])

    def forward(self, tokens, mask=None):
        return self.output


@pytest.mark.parametrize("name", TASKS)
def test_a_few_steps_learn(name):
    model, objective = encoder(TASKS[name][0]), objective_of(name)
    objective.check(model, None)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = objective(model, batch())
        loss.value.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.value.detach()))
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        found = objective.evaluate(model.eval(), [batch()], World())
    assert found[objective.metric] > 0.8 and objective.higher_is_better(objective.metric)


@pytest.mark.parametrize("name", TASKS)
def test_the_loss_is_that_of_transformers(name, tmp_path):
    reference = getattr(transformers, f"BertFor{TASKS[name][1]}")
    config = transformers.BertConfig(
        vocab_size=50,
        num_hidden_layers=1,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=32,
        num_labels=2 if name == "answer-span" else 3,
    )
    theirs = reference(config).eval()
    theirs.save_pretrained(tmp_path)
    given = batch()
    mask = torch.ones_like(given["tokens"])  # padding has other positions here than there
    wanted = {"start_positions": given["start"], "end_positions": given["end"]}
    wanted = {"labels": given["labels"]} if name == "tagging" else wanted
    with torch.no_grad():
        expected = theirs(given["tokens"], attention_mask=mask, **wanted).loss
        model = zoo.load(f"dir:{tmp_path}").eval()
        found = objective_of(name)(model, {**given, "mask": mask}).value
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_tags_are_measured_where_there_are_labels():
    said = torch.tensor([[0, 0, 1, 1], [1, 0, 0, 0]])
    labels = torch.tensor([[0, 1, 1, -100], [-100, 0, -100, -100]])
    held = {"tokens": labels, "labels": labels, "valid": torch.tensor([True, True])}
    model = Says(nn.functional.one_hot(said, 3).float())
    found = objective_of("tagging").evaluate(model, [held], World())
    assert found["accuracy"] == pytest.approx(3 / 4)
    assert found["f1/0"] == pytest.approx(4 / 5) and found["f1/1"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)  # class 2 is nowhere
    held["valid"] = torch.tensor([True, False])
    found = objective_of("tagging").evaluate(model, [held], World())
    assert found["accuracy"] == pytest.approx(2 / 3)


def test_answers_are_measured_by_their_places():
    logits = torch.zeros(3, 6, 2)
    logits[0, 1, 0] = logits[0, 3, 1] = 5  # says 1 to 3, which is right
    logits[1, 2, 0] = logits[1, 4, 1] = 5  # says 2 to 4 of 3 to 5: two of three
    logits[2, 4, 0], logits[2, 1, 1], logits[2, 5, 1] = 5, 6, 4  # 4 to 1 is no span; 4 to 5 is
    logits[2, 0, 0] = 8  # outside the context
    held = {
        "tokens": torch.zeros(3, 6, dtype=torch.long),
        "context": torch.tensor([[False, True, True, True, True, True]]).expand(3, 6),
        "start": torch.tensor([1, 3, 4]),
        "end": torch.tensor([3, 5, 4]),
        "valid": torch.tensor([True, True, True]),
    }
    found = objective_of("answer-span").evaluate(Says(logits), [held], World())
    assert found["exact"] == pytest.approx(1 / 3)
    assert found["f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    short = objective_of("answer-span", longest=1).evaluate(Says(logits), [held], World())
    assert short["exact"] == 0


@pytest.mark.parametrize("name", TASKS)
def test_another_model_task_or_number_of_classes_is_refused(name):
    right = TASKS[name][0]
    for model in (encoder("fill"), encoder("", kind="causal-lm")):
        with pytest.raises(ConfigError, match=f"'{name}' trains masked-lm .* task={right}"):
            objective_of(name).check(model, None)
    if name == "tagging":
        with pytest.raises(ConfigError, match=r"model\.classes=2"):
            objective_of(name).check(encoder("tag"), SimpleNamespace(labels=["O", "B"]))
        bare = {**batch(), "labels": torch.full((8, 12), -100)}
        with pytest.raises(DataError, match="labels"):
            objective_of(name)(encoder("tag"), bare)
