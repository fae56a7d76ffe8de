"""A config.json in zoo's own layout, by a stranger: it chooses among kinds and nothing else."""

import json

import pytest

import zoo
from zoo.errors import ZooError
from zoo.models.base import stored_mapping

SMALL = {"depth": 1, "width": 8, "position": "none", "attention": {"heads": 1}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"name": "secret"}}, "model: a stored config says the kind of each model and"),
        ({"config": {"kind": "vit", "backbone": "transformer"}}, "backbone: a stored config says"),
        ({"config": {"kind": "vit", "defaults": ["secret"]}}, "defaults: 'vit' has no such key"),
        ({"config": {"kind": "acme/x"}}, "Unknown kind 'acme/x' of model: no plugin 'acme' is"),
        ({"config": {"kind": "timm/../x"}}, "Unknown kind 'timm/../x' of model: "),
        ({"config": {"kind": "rms"}}, "Unknown kind 'rms' of model."),
        ({"group": "norm"}, "describes a 'norm', not a model."),
        ({"group": ["model"]}, "describes a ['model'], not a model."),
        ({"config": []}, "lacks the keys 'zoo' and 'config' of a stored model."),
    ],
)
def test_what_a_stranger_cannot_say(conf, tmp_path, change, message):
    conf({"model/secret.yaml": "kind: vit", "norm/secret.yaml": "kind: rms"})
    stored = stored_mapping(zoo.config("vit-digits", {"backbone": SMALL}))
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**stored, **change}))
    with pytest.raises(ZooError) as error:
        zoo.load(f"dir:{tmp_path}")
    assert str(error.value).startswith(str(file)) and message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
