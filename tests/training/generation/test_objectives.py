"""Learning codes: what is hidden, whose prompt is left out, what may be trained by what."""

import json

import pytest
import torch
from PIL import Image

from tests.models.generator.conftest import CODES, asked, make, some_codes
from zoo.data.draw import seeds_of
from zoo.errors import ConfigError
from zoo.generation.masked import share_masked
from zoo.registry import build, resolve
from zoo.training.run import train


class Judgeless:
    labels: list = []


def objective(name, model, **keys):
    made = build(resolve("objective", {"kind": name, **keys}))
    made.check(model, Judgeless())
    return made


def batch_of(model, size=64):
    torch.manual_seed(0)
    codes = torch.randint(0, CODES, (size, *model.config.shape))
    return {
        "codes": codes,
        "labels": torch.arange(size) % 5,
        "seeds": seeds_of(3, torch.arange(size)),
    }


def test_as_many_codes_are_hidden_as_the_schedule_says():
    model = make("maskgit")
    made = objective("masked-codes", model, drop=0.0)
    batch = batch_of(model, 2000)
    arguments, targets, places = made.prepare(batch, batch["seeds"])
    hidden = arguments["codes"].flatten(1)
    assert torch.equal(hidden == model.mask_code, places)
    assert torch.equal(torch.where(places, targets, hidden), targets)
    assert places.any(-1).all()
    # the mean of cos(pi/2 u) over u in 0..1 is 2/pi
    assert abs(float(places.float().mean()) - 2 / torch.pi) < 0.03
    assert share_masked("cosine", 0.0) == 1 and abs(share_masked("cosine", 1.0)) < 1e-6


def test_hiding_is_a_function_of_the_seed():
    model = make("maskgit")
    made = objective("masked-codes", model)
    batch = batch_of(model, 16)
    first, again = (made.prepare(batch, batch["seeds"])[0]["codes"] for _ in range(2))
    other = made.prepare(batch, batch["seeds"] + 1)[0]["codes"]
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_clips_are_cut_to_their_first_frames_at_times():
    model = make("phenaki")
    made = objective("masked-codes", model, first_frame=0.5)
    made.asked = lambda batch, drop: {}
    shapes = set()
    for start in range(40):
        seeds = seeds_of(start, torch.arange(4))
        codes = torch.zeros(4, 3, 2, 2, dtype=torch.long)
        shapes.add(made.prepare({"codes": codes, "captions": []}, seeds)[0]["codes"].shape[1])
    assert shapes == {1, 3}
    with torch.no_grad():  # never when measuring
        codes = torch.zeros(4, 3, 2, 2, dtype=torch.long)
        kept = {
            made.prepare({"codes": codes}, seeds_of(start, torch.arange(4)))[0]["codes"].shape[1]
            for start in range(10)
        }
    assert kept == {3}


@pytest.mark.parametrize(("way", "name"), [("maskgit", "masked-codes"), ("llamagen", "next-code")])
def test_the_branch_without_a_prompt_is_trained(way, name):
    """Guidance leads away from it: the vector of `none` gets a gradient, at the asked rate."""
    model = make(way).train()
    made = objective(name, model, drop=0.25)
    batch = batch_of(model, 2000)
    labels = made.prepare(batch, batch["seeds"])[0]["labels"]
    none = labels == model.config.classes
    assert abs(float(none.float().mean()) - 0.25) < 0.04
    assert torch.equal(labels[~none], batch["labels"][~none])

    def gradient(drop):
        model.zero_grad()
        small = {key: value[:32] for key, value in batch.items()}
        objective(name, model, drop=drop)(model, small).value.backward()
        table = next(
            p
            for key, p in model.prompt.named_parameters()
            if p.shape[0] == model.config.classes + 1
        )
        return table.grad[-1].abs().sum()

    assert gradient(1.0) > 0 and gradient(0.0) == 0


def test_nothing_is_dropped_while_measuring():
    model = make("maskgit")
    made = objective("masked-codes", model, drop=1.0)
    batch = batch_of(model, 8)
    with torch.no_grad():
        assert torch.equal(made.prepare(batch, batch["seeds"])[0]["labels"], batch["labels"])


def test_shares_of_text_and_picture_add_up():
    """The loss of DALL-E is 1/8 the text's and 7/8 the picture's, each over its own count."""
    model = make("dalle")
    prompt, codes = asked(model), some_codes(model)
    made = objective("next-code", model)
    made.asked = lambda batch, drop: prompt
    loss = made(model, {"codes": codes, "seeds": seeds_of(0, torch.arange(3))})
    expected = 0.125 * loss.scalars["text_loss"] + 0.875 * loss.scalars["codes_loss"]
    torch.testing.assert_close(loss.value.detach(), expected)
    output = model(codes, **prompt)
    own = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), codes.flatten())
    torch.testing.assert_close(loss.scalars["codes_loss"], own.detach())


@pytest.mark.parametrize(
    ("way", "name", "said"),
    [
        ("maskgit", "next-code", "trained by 'masked-codes'"),
        ("llamagen", "masked-codes", "trained by 'next-code'"),
    ],
)
def test_the_wrong_way_is_refused(way, name, said):
    with pytest.raises(ConfigError, match=said):
        objective(name, make(way))


def test_drawings_need_a_judge():
    with pytest.raises(ConfigError, match="nothing judges drawings"):
        objective("next-code", make("llamagen"), samples=4)


def test_prompts_are_left_out_unless_somebody_says_otherwise():
    assert {build_default(name).drop for name in ("next-code", "masked-codes")} == {0.1}


def build_default(name):
    return resolve("objective", name)


def test_a_run_draws_as_it_learns(tmp_path):
    """Sheets of drawings, judged, whenever it measures; by the weights that are averaged."""
    config = {
        "kind": "train",
        "model": {"name": "muse-digits", "bases": {"visual": "fsq-digits"}, "backbone": {
            "depth": 1, "width": 16, "attention": {"heads": 2}}},
        "data": "colour-digits",
        "objective": {"name": "masked-codes", "samples": 8, "sheet": 4, "passes": 2},
        "trainer": {"steps": 2, "batch": 8, "eval_every": 1, "ema": 0.9, "best": "last"},
        "optim": {"name": "adamw", "lr": 0.1},
        "schedule": {"warmup": 0},
        "run": {"dir": str(tmp_path / "run")},
    }  # fmt: skip
    train(resolve("experiment", config), quiet=True)
    sheets = sorted((tmp_path / "run").rglob("*drawings*.png"))
    assert len(sheets) == 2, sorted((tmp_path / "run").rglob("*"))
    with Image.open(sheets[0]) as picture:  # four drawings of 32 x 32, twice as large
        assert picture.size == (2 * 64 + 2, 2 * 64 + 2)
    assert sheets[0].read_bytes() != sheets[1].read_bytes()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    measured = [line for line in map(json.loads, lines) if "frechet" in json.dumps(line)]
    assert len(measured) >= 2
