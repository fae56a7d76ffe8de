"""A run that trains a part of a model stores that part, and it finds the rest by name."""

import json
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open

import zoo
from zoo.errors import ConfigError, WeightsError
from zoo.registry import resolve
from zoo.training.run import train


def run(mapping):
    return train(resolve("experiment", mapping), quiet=True)


def stored(folder) -> set[str]:
    with safe_open(folder / "model" / "model.safetensors", "np") as file:
        return set(file.keys())


@pytest.fixture
def base(small, tmp_path):
    """Returns the name of a trained small model."""
    run(small(tmp_path / "base", trainer__steps=2))
    return f"dir:{tmp_path / 'base'}"


SMALL_VISION = {
    "kind": "vit", "classes": 0, "pool": "class",
    "tokenizer": {"name": "patches", "image": [16, 16], "patch": [8, 8]},
    "backbone": {"depth": 1, "width": 16, "attention": {"heads": 2}},
}  # fmt: skip
SMALL_TEXT = {
    "kind": "causal-lm", "tokenizer": "byte", "vocabulary": 259,
    "backbone": {"name": "llama", "depth": 1, "width": 12, "attention": {"heads": 2}},
}  # fmt: skip


def test_norms_and_head_alone(small, base, tmp_path):
    """Frozen pretrained transformers (Lu et al. 2021): the share is reported, the rest is not
    stored, and what is loaded again is the whole."""
    patterns = ["*norm*", "head.*"]
    changes = {"weights": base, "trainable": patterns, "export": "trained"}
    result = run(small(tmp_path / "run", trainer__best="last", trainer__steps=3, **changes))
    model = zoo.load(f"dir:{tmp_path / 'run'}")
    parameters = dict(model.named_parameters())
    learned = {n for n in parameters if "norm" in n or n.startswith("head.")}
    assert stored(tmp_path / "run") == learned
    assert result.trained == sum(parameters[n].numel() for n in learned)
    assert result.parameters == sum(p.numel() for p in parameters.values())
    assert json.loads((tmp_path / "run" / "result.json").read_text())["trained"] == result.trained
    before = zoo.load(base).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in learned), name


def test_lora_alone_and_onto_its_base(small, base, tmp_path):
    changes = {"weights": base, "trainable": ["*.lora_*"], "export": "trained"}
    changes |= {"model__tuning": {"name": "lora", "rank": 2}, "trainer__best": "last"}
    run(small(tmp_path / "run", trainer__ema=None, **changes))
    assert stored(tmp_path / "run") and all("lora_" in name for name in stored(tmp_path / "run"))
    model = zoo.load(f"dir:{tmp_path / 'run'}")
    assert any(p.abs().max() > 0 for n, p in model.named_parameters() if n.endswith("lora_b"))
    pixels = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        tuned = model(pixels).logits
        assert not torch.allclose(tuned, zoo.load(base)(pixels).logits)
        again = zoo.load(f"dir:{zoo.save(zoo.merge(model), tmp_path / 'merged')}")
        assert again.config.tuning is None and again.config.bases
        assert torch.allclose(again(pixels).logits, tuned, atol=1e-5)


def test_an_interrupted_run_goes_on_from_its_base(small, base, tmp_path):
    """Checkpoints hold what moves; the rest is where the run started from."""
    changes = {"weights": base, "trainable": ["head.*"], "export": "trained"}
    mapping = small(tmp_path / "run", trainer__best="last", trainer__keep=9, **changes)
    run(mapping)
    checkpoints = tmp_path / "run" / "checkpoints"
    names = dcp.FileSystemReader(checkpoints / "step_00000004").read_metadata().state_dict_metadata
    held = {name.removeprefix("model.") for name in names if name.startswith("model.")}
    assert held == {"head.weight", "head.bias"}
    first = zoo.load(f"dir:{tmp_path / 'run'}").state_dict()
    shutil.rmtree(checkpoints / "step_00000008")
    (checkpoints / "last").write_text("step_00000004\n")
    run(mapping)
    second = zoo.load(f"dir:{tmp_path / 'run'}").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def joined(tmp_path):
    """Returns the folder of an adapter between two stored models, its config naming both."""
    for name, mapping in (("eyes", SMALL_VISION), ("mouth", SMALL_TEXT)):
        model = zoo.models.base.build_empty(resolve("model", mapping))
        zoo.save(zoo.models.base.initialise(model, 1), tmp_path / name)
    bases = {"vision": f"dir:{tmp_path / 'eyes'}", "text": f"dir:{tmp_path / 'mouth'}"}
    mapping = {"kind": "vision-language", "vision": SMALL_VISION, "text": SMALL_TEXT}
    config = resolve("model", {**mapping, "layer": None, "bases": bases})
    model = zoo.models.base.initialise(zoo.models.base.build_empty(config), 2)
    return zoo.save(model, tmp_path / "joined", only=["adapter.*"])


def test_an_adapter_finds_both_of_its_bases_by_name(joined, tmp_path):
    with safe_open(joined / "model.safetensors", "np") as file:
        names = list(file.keys())
    assert names and all(name.startswith("adapter.") for name in names)
    model = zoo.load(f"dir:{joined}")
    for module, folder in (("vision", "eyes"), ("text", "mouth")):
        theirs = zoo.load(f"dir:{tmp_path / folder}").state_dict()
        ours = model.get_submodule(module).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_would_be_lost_is_refused(joined, tmp_path):
    model = zoo.load(f"dir:{joined}")
    with pytest.raises(ConfigError, match=r"only: no tensor matches 'adaptr\.\*'"):
        zoo.save(model, tmp_path / "no", only=["adaptr.*"])
    model.config.bases = {"vision": model.config.bases["vision"]}
    with pytest.raises(WeightsError, match=r"stored nowhere \(first: text\."):
        zoo.save(model, tmp_path / "no", only=["adapter.*"])
    assert not (tmp_path / "no").exists()


def test_bases_that_cannot_be(joined, tmp_path):
    name = f"dir:{joined}"
    bases = zoo.load(name).config.bases
    with pytest.raises(ConfigError, match=r"bases\.ears: the model has no module"):
        zoo.load(name, {"bases": {**bases, "ears": bases["text"]}})
    with pytest.raises(WeightsError, match=r"of wrong shape: vision\."):
        zoo.load(name, {"bases": {**bases, "vision": bases["text"]}})
    file = joined / "config.json"
    file.write_text(file.read_text().replace(bases["text"], name))
    with pytest.raises(ConfigError, match="name each other"):
        zoo.load(name)


def test_an_export_of_what_was_trained_needs_a_base(small, tmp_path):
    with pytest.raises(ConfigError, match=r"export: 'trained' stores a part"):
        run(small(tmp_path / "run", export="trained", trainable=["head.*"]))
