"""Declaring schemas, writing configs back, building."""

from dataclasses import dataclass

import pytest

from zoo.errors import ConfigError
from zoo.nn.schema import RMSNormConfig
from zoo.registry import build, kind, part, resolve, section, setting, to_mapping
from zoo.registry.schema import KINDS


def test_two_schemas_cannot_claim_one_kind():
    class Other:
        pass

    with pytest.raises(ConfigError) as error:
        kind("norm", "rms", builds="x:Y")(dataclass(Other))
    assert str(error.value) == (
        f"Two schemas claim kind 'rms' of norm: zoo.nn.schema and {__name__}."
    )
    assert KINDS["norm", "rms"] is RMSNormConfig


@pytest.mark.parametrize("name", ["kind", "name"])
def test_keys_that_say_what_a_mapping_is_are_taken(name):
    schema = dataclass(type("Odd", (), {"__annotations__": {name: str}, name: "x"}))
    with pytest.raises(ConfigError) as error:
        kind("norm", f"test-{name}", builds="x:Y")(schema)
    assert str(error.value) == (
        f"Odd has a key {name!r}, which already says what a mapping is; call it something else."
    )


def test_a_schema_can_be_made_directly_and_has_its_own_defaults():
    @dataclass(kw_only=True)
    class Inner:
        size: int = setting(3, low=1)

    @kind("norm", "test-made", builds="builtins:dict")
    @dataclass(kw_only=True)
    class Made:
        words: list[str] = setting(["a"])
        norm: RMSNormConfig = part("norm", {"name": "rms", "eps": 0.5})
        inner: Inner = section(Inner, {"size": 4})

    one, two = Made(), Made()
    assert one == two == resolve("norm", {"kind": "test-made"})
    assert (one.norm.eps, one.inner.size) == (0.5, 4)
    one.words.append("b")
    one.norm.eps = 1.0
    assert two.words == ["a"] and two.norm.eps == Made().norm.eps == 0.5


def test_what_is_written_is_plain_and_complete():
    config = resolve("norm", "rms")
    assert to_mapping(config) == {"kind": "rms", "eps": 1e-6}
    assert to_mapping(config, omit=("eps",)) == {"kind": "rms"}


def test_build_imports_the_class_and_calls_it():
    norm = build(resolve("norm", {"name": "rms", "eps": 0.25}), width=3)
    assert type(norm).__name__ == "RMSNorm" and norm.weight.shape == (3,)


def test_a_part_that_a_default_gets_wrong_says_where():
    @kind("norm", "test-wrong", builds="x:Y")
    @dataclass(kw_only=True)
    class Wrong:
        inner: object = part("norm", "rsm")

    with pytest.raises(ValueError, match=r"^inner: Unknown norm 'rsm'\. Did you mean 'rms'\?"):
        resolve("norm", {"kind": "test-wrong"})
