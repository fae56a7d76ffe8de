"""What a person types after a name, and the rule by which keys join."""

import pytest

from zoo.errors import ConfigError
from zoo.registry.overrides import apply_overrides, lay, merge, parse_override


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("a=1", ["a"], 1),
        ("a.b=x", ["a", "b"], "x"),
        ("+a.b=1e-3", ["a", "b"], 0.001),
        ("++a=true", ["a"], True),
        ("a=", ["a"], ""),
        ("a=null", ["a"], None),
        ("a=x=y", ["a"], "x=y"),
        ("a = 3", ["a"], 3),
        ("a={name: rope, theta: 5e5}", ["a"], {"name": "rope", "theta": 5e5}),
        ("a=[1,2]", ["a"], [1, 2]),
    ],
)
def test_forms(text, path, value):
    assert parse_override(text) == (path, value)


@pytest.mark.parametrize("text", ["depth", "=3", ".a=1", "a..b=1", "", None, 3])
def test_what_is_no_override(text):
    with pytest.raises(ConfigError) as error:
        parse_override(text)
    assert str(error.value) == f"Override {text!r} is not of the form key.path=value."


def test_mappings_join_and_everything_else_is_replaced():
    base = {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": 3}
    change = {"a": {"y": 5, "z": 6}, "b": [9], "c": {"d": 1}}
    assert merge(base, change) == {"a": {"x": 1, "y": 5, "z": 6}, "b": [9], "c": {"d": 1}}
    assert base == {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": 3}


def test_a_part_by_name_drops_the_keys_of_the_old_one_and_by_mapping_keeps_them():
    base = {"norm": {"name": "layer", "eps": 1e-6}}
    assert apply_overrides(base, ["norm=rms"]) == {"norm": "rms"}
    assert apply_overrides(base, ["norm={name: rms}"]) == {"norm": {"name": "rms", "eps": 1e-6}}
    assert apply_overrides(base, ["norm.name=rms"]) == {"norm": {"name": "rms", "eps": 1e-6}}


def test_a_kind_in_place_of_a_name_starts_afresh():
    base = {"norm": {"name": "layer", "eps": 1e-6}}
    assert apply_overrides(base, ["norm={kind: rms}"]) == {"norm": {"kind": "rms"}}
    assert apply_overrides({"norm": {"kind": "rms", "eps": 1}}, {"norm.name": "layer"}) == {
        "norm": {"kind": "rms", "eps": 1, "name": "layer"}
    }
    assert merge(base, {"norm": {"kind": "rms"}}) == {"norm": {"kind": "rms"}}


def test_a_part_written_as_a_name_opens_for_its_keys():
    assert apply_overrides({"norm": "rms"}, {"norm.eps": 1.0}) == {
        "norm": {"name": "rms", "eps": 1.0}
    }


def test_a_default_gives_way():
    base = {"norm": "rms", "other": {"name": "layer", "eps": 1}}
    assert lay(base, {"norm": {"eps": 1}})["norm"] == {"name": "rms", "eps": 1}
    assert merge(base, {"norm": {"eps": 1}})["norm"] == {"eps": 1}  # as OmegaConf does
    assert lay(base, {"norm": {"kind": "layer"}})["norm"] == {"kind": "layer"}
    assert lay(base, {"other": {"eps": 2}})["other"] == {"name": "layer", "eps": 2}
    assert lay(base, {"other": {"name": "layer", "bias": 0}})["other"] == {
        "name": "layer", "eps": 1, "bias": 0,
    }  # fmt: skip
    assert lay(base, {"other": {"name": "rms"}})["other"] == {"name": "rms"}
    assert lay(base, {"other": "rms"})["other"] == "rms"


def test_items_of_lists():
    base = {"position": ["rope", {"name": "alibi"}]}
    assert apply_overrides(base, ["position.0.theta=5"]) == {
        "position": [{"name": "rope", "theta": 5}, {"name": "alibi"}]
    }
    for key in ("2", "theta", "-1", "²"):
        with pytest.raises(ConfigError) as error:
            apply_overrides(base, [f"position.{key}=5"])
        assert str(error.value) == (
            f"position: {key!r} is no index of this list of 2, of which 0 is the first."
        )


def test_the_mapping_itself_is_left_alone():
    base = {"a": {"b": 1}, "c": [{"d": 1}]}
    apply_overrides(base, {"a.b": 2, "c.0.d": 2, "e": 3})
    assert base == {"a": {"b": 1}, "c": [{"d": 1}]}
