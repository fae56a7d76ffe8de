"""A config that asks for absurdly more than its weights are is refused before it is built."""

import json
import time

import pytest

import zoo
from zoo.errors import ConfigError, WeightsError


@pytest.fixture
def stored(tmp_path):
    """Stores a tiny classifier and changes its config."""
    zoo.save(zoo.create("vit-digits", "backbone.depth=1", seed=0), tmp_path)

    def change(**keys):
        file = tmp_path / "config.json"
        content = json.loads(file.read_text())
        content["config"]["backbone"].update(keys)
        file.write_text(json.dumps(content))
        return f"dir:{tmp_path}"

    return change


@pytest.mark.parametrize("ask", [zoo.load, zoo.info])
def test_a_thousand_million_layers(stored, ask):
    name, began = stored(depth=10**9), time.process_time()
    with pytest.raises(ConfigError, match="depth is 1,000,000,000, and no model has more than"):
        ask(name)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("keys", [{"depth": 9000}, {"width": 960_000}])
@pytest.mark.parametrize("partial", [False, True])
def test_far_more_than_the_weights_hold(stored, keys, partial):
    name, began = stored(**keys), time.process_time()
    with pytest.raises(WeightsError, match=r"describes a model of more than .* damaged or hostile"):
        zoo.load(name, partial=partial)
    assert time.process_time() - began < 10


def test_another_librarys_layers(tmp_path):
    config = {"model_type": "llama", "num_hidden_layers": 10**9, "architectures": ["X"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="num_hidden_layers is 1,000,000,000"):
        zoo.load(f"dir:{tmp_path}")


def test_what_a_person_adds_is_no_strangers_doing(stored):
    model = zoo.load(stored(), "backbone.depth=3", partial=True)
    assert len(model.backbone.layers) == 3
