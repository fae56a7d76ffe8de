"""Every way in which a config can be wrong, in full text; parts, lists of parts, sections, null."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

import zoo
from zoo.errors import ConfigError, UnknownName, ZooError
from zoo.nn.schema import LayerNormConfig, NormConfig, RMSNormConfig
from zoo.registry import (
    kind,
    names,
    part,
    parts,
    read_node,
    resolve,
    section,
    setting,
    to_mapping,
)


def said(function, *args, **kwargs):
    with pytest.raises(ZooError) as error:
        function(*args, **kwargs)
    return str(error.value)


@pytest.fixture
def room():
    """A schema with one key of every sort."""

    @dataclass(kw_only=True)
    class Inner:
        size: int = setting(3, "how large", low=1)
        word: str = setting("a", "a word")

    @kind("backbone", "test-room", builds="nowhere:Nothing")
    @dataclass(kw_only=True)
    class Room:
        must: int = setting(doc="always given")
        ratio: float = setting(0.5, "a share", above=0.0, high=1.0)
        pair: tuple[int, int] = setting([1, 2], "two numbers", low=0)
        table: dict[str, float] = setting({}, "numbers by name")
        flag: bool = setting(False, "yes or no")
        maybe: int | None = setting(None, "or nothing", low=1)
        either: int | str = setting(1, "one or the other")
        several: list[Inner] = setting([], "blocks of keys")
        option: Literal["left", "right", 3] = setting("left", "which one")
        anything: Any = setting(None, "free")
        norm: NormConfig = part("norm", {"name": "layer", "eps": 1e-3}, "a part")
        null: NormConfig | None = part("norm", None, "a part that may be missing")
        norms: list[NormConfig] = parts("norm", "none", "several parts")
        one: list[NormConfig] = parts("norm", "rms", "one part by default")
        inner: Inner = section(Inner, {"size": 7}, "a block of keys")

    return Room


# -- the seven errors of a person at a keyboard ----------------------------------------------------


DEPTH = "backbone.dept: 'transformer' has no such key (given: 3). "


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("backbone.dept=3", DEPTH + "Did you mean 'depth'? It is a whole number."),
        ("+backbone.dept=3", DEPTH + "Did you mean 'depth'? It is a whole number."),
        ("++backbone.dept=3", DEPTH + "Did you mean 'depth'? It is a whole number."),
        (
            "backbone.nrom=rms",
            "backbone.nrom: 'transformer' has no such key (given: 'rms'). "
            "Did you mean 'norm'? It is a norm.",
        ),
        (
            "calsses=3",
            "calsses: 'vit' has no such key (given: 3). "
            "Did you mean 'classes'? It is a whole number.",
        ),
        (
            "card.licence=mit",
            "card.licence: 'Card' has no such key (given: 'mit'). "
            "Did you mean 'license'? It is a string or null.",
        ),
        (
            "backbone.norm.zzz=1",
            "backbone.norm.zzz: 'layer' has no such key (given: 1). It takes: bias, eps.",
        ),
        ("backbone.depth=three", "backbone.depth: expected a whole number, got 'three'."),
        ("backbone.depth=2.0", "backbone.depth: expected a whole number, got 2.0."),
        ("backbone.depth=true", "backbone.depth: expected a whole number, got True."),
        ("backbone.depth=null", "backbone.depth: expected a whole number, got None."),
        ("backbone.causal=1", "backbone.causal: expected true or false, got 1."),
        ("backbone.norm.eps=small", "backbone.norm.eps: expected a number, got 'small'."),
        ("labels=zero", "labels: expected a list, got 'zero'."),
        ("labels=[0,1]", "labels.0: expected a string, got 0."),
        ("tokenizer.image=[32]", "tokenizer.image: expected 2 values, got [32]."),
        ("card=none", "card: expected a mapping of keys, got 'none'."),
        ("backbone.depth=-1", "backbone.depth: must be at least 0, got -1."),
        ("backbone.dropout=1.5", "backbone.dropout: must be at most 1.0, got 1.5."),
        ("backbone.init_std=0", "backbone.init_std: must be more than 0.0, got 0.0."),
        ("backbone.dropout=.nan", "backbone.dropout: expected a finite number, got nan."),
        ("backbone.init_std=.inf", "backbone.init_std: expected a finite number, got inf."),
        ("tokenizer.patch=[4,0]", "tokenizer.patch: must be at least 1, got [4, 0]."),
        (
            "backbone.placement=prep",
            "backbone.placement: must be one of pre, post, both, none, got 'prep'. "
            "Did you mean 'pre'?",
        ),
        (
            "backbone.parallel_norms=3",
            "backbone.parallel_norms: must be one of 1, 2, got 3.",
        ),
        (
            "backbone.parallel_norms=true",
            "backbone.parallel_norms: must be one of 1, 2, got True.",
        ),
        (
            "backbone.norm=null",
            "backbone.norm: a norm is needed here; see zoo list norm.",
        ),
        (
            "backbone.norm=3",
            "backbone.norm: expected the name of a norm or a mapping, got 3.",
        ),
        (
            "backbone.norm={name: rms, kind: rms}",
            "backbone.norm: give a norm by its name or by its kind, not both ('rms', 'rms').",
        ),
        (
            "backbone.norm={name: 3}",
            "backbone.norm.name: expected the name of a norm, got 3.",
        ),
        (
            "backbone.norm={kind: [rms]}",
            "backbone.norm: a norm needs a name or a kind, got {'kind': ['rms']}.",
        ),
        (
            "backbone.cross_attention.heads=3",
            "backbone.cross_attention: this attention is null; say which one by 'name'.",
        ),
        (
            "backbone={kind: transfomer}",
            "backbone: Unknown kind 'transfomer' of backbone. Did you mean 'transformer'?",
        ),
        (
            "backbone.norm={kind: acme/half}",
            "backbone.norm: Unknown kind 'acme/half' of norm: no plugin 'acme' is installed. "
            "See zoo plugins.",
        ),
    ],
)
def test_each_mistake_gives_its_sentence(override, message):
    assert said(zoo.config, "vit-digits", override) == message


def test_an_unknown_part_gives_the_nearest():
    count = len(names("norm"))
    assert said(zoo.config, "vit-digits", "backbone.norm=rsm") == (
        f"backbone.norm: Unknown norm 'rsm'. Did you mean 'rms'? ({count} names: zoo list norm)"
    )
    assert said(zoo.config, "vit-digits", "backbone.position=[rope,xyzzy]") == (
        "backbone.position.1: Unknown position 'xyzzy'. "
        f"({len(names('position'))} names: zoo list position)"
    )
    assert said(zoo.config, "vit-digits", "backbone.norm=hf:org/repo") == (
        "backbone.norm: hf:org/repo is not a name in conf/; zoo.load reads it, "
        "zoo.info describes it."
    )


def test_an_unknown_model_gives_the_nearest():
    assert said(zoo.config, "vit-dgits") == (
        "Unknown model 'vit-dgits'. Did you mean 'vit-digits'? "
        f"({len(names('model'))} names: zoo list model)"
    )


def test_an_unknown_weights_tag_gives_the_nearest(conf):
    repo = "weights: {augreg: {repo: a/b, set: {classes: 21}}, clip: {repo: a/c}}"
    conf({"model/some.yaml": f"kind: vit\n{repo}", "model/bare.yaml": "kind: vit"})
    assert said(zoo.config, "some.augrge") == (
        "'some' has no weights 'augrge'. Did you mean 'augreg'?"
    )
    assert said(zoo.config, "some.in22k") == "'some' has no weights 'in22k'. Tags: augreg, clip."
    assert said(zoo.config, "some.") == "'some' has no weights ''. Tags: augreg, clip."
    assert said(zoo.config, "bare.x") == (
        "'bare' has no weights 'x'. It has none; zoo.create gives new ones."
    )
    assert said(zoo.create, "some.augrge") == (
        "'some' has no weights 'augrge'. Did you mean 'augreg'?"
    )
    assert said(zoo.config, "rms.x", group="norm").startswith("Unknown norm 'rms.x'.")


def test_weights_bring_the_keys_that_they_require(conf):
    tags = "weights: {a: {repo: a/b, set: {classes: 21}}, b: {repo: a/c, set: {pool: mean}}}"
    conf({"model/some.yaml": f"kind: vit\n{tags}"})
    assert (zoo.config("some").classes, zoo.config("some").pool) == (21, "class")
    assert (zoo.config("some.b").classes, zoo.config("some.b").pool) == (1000, "mean")
    assert zoo.config("some.a", "classes=5").classes == 5
    assert resolve("model", "some.b").pool == "mean"


# -- parts -----------------------------------------------------------------------------------------


def test_a_part_is_written_as_a_name_a_mapping_or_a_kind(room):
    def norm(value):
        return resolve("backbone", {"kind": "test-room", "must": 1, "norm": value}).norm

    assert norm("rms") == RMSNormConfig()
    assert norm({"name": "rms", "eps": 1e-5}) == RMSNormConfig(eps=1e-5)
    assert norm({"kind": "rms", "eps": 1e-5}) == RMSNormConfig(eps=1e-5)
    assert norm(RMSNormConfig(eps=1e-4)) == RMSNormConfig(eps=1e-4)
    assert norm({"bias": False}) == LayerNormConfig(eps=1e-3, bias=False)  # over the default
    assert norm({"kind": "layer"}) == LayerNormConfig()  # a kind starts afresh
    assert resolve("backbone", {"kind": "test-room", "must": 1}).norm == LayerNormConfig(eps=1e-3)


def test_lists_of_parts(room):
    def norms(value):
        return resolve("backbone", {"kind": "test-room", "must": 1, "norms": value}).norms

    assert norms("none") == norms(None) == norms([]) == norms(["none", None]) == []
    assert norms("rms") == norms(["rms"]) == norms({"name": "rms"}) == [RMSNormConfig()]
    assert norms(["layer", {"kind": "rms", "eps": 1.0}]) == [
        LayerNormConfig(),
        RMSNormConfig(eps=1.0),
    ]
    message = "norms: this norm is null; say which one by 'name'."
    assert said(norms, {"eps": 1.0}) == message
    assert said(norms, ["rms", {"eps": 1}]) == message.replace("norms", "norms.1")
    assert said(norms, ["rms", 3]) == "norms.1: expected the name of a norm or a mapping, got 3."
    only = resolve("backbone", {"kind": "test-room", "must": 1, "one": {"eps": 1.0}})
    assert only.one == [RMSNormConfig(eps=1.0)]  # one mapping changes keys of one default


def test_null_parts(room):
    base = {"kind": "test-room", "must": 1}
    assert resolve("backbone", base).null is None
    assert resolve("backbone", {**base, "null": "none"}).null is None
    assert resolve("backbone", {**base, "null": "rms"}).null == RMSNormConfig()
    assert said(resolve, "backbone", {**base, "norm": None}) == (
        "norm: a norm is needed here; see zoo list norm."
    )


def test_a_part_must_extend_what_the_key_asks_for(room):
    @kind("norm", "test-stranger", builds="nowhere:Nothing")
    @dataclass(kw_only=True)
    class Stranger:
        eps: float = setting(1.0, "of another family")

    assert said(
        resolve, "backbone", {"kind": "test-room", "must": 1, "norm": {"kind": "test-stranger"}}
    ) == (
        "norm: 'test-stranger' cannot stand here, since it is no NormConfig "
        "(as are adaptive, layer, response, rms, scale)."
    )
    assert said(resolve, "backbone", {"kind": "test-room", "must": 1, "norms": [Stranger()]}) == (
        "norms.0: 'test-stranger' cannot stand here, since it is no NormConfig "
        "(as are adaptive, layer, response, rms, scale)."
    )


# -- every sort of key -----------------------------------------------------------------------------


def test_values_become_what_the_annotation_says(room):
    values = {
        "must": 1, "ratio": 1, "pair": (3, 4), "table": {"x": 1}, "maybe": 2, "either": "word",
        "several": [{"size": 2}, {}], "option": 3, "anything": [{}], "inner": {"word": "b"},
    }  # fmt: skip
    config = resolve("backbone", {"kind": "test-room", **values})
    assert (config.ratio, type(config.ratio)) == (1.0, float)
    assert (config.pair, config.table, config.option) == ([3, 4], {"x": 1.0}, 3)
    assert [item.size for item in config.several] == [2, 3]
    assert (config.inner.size, config.inner.word) == (7, "b")
    assert resolve("backbone", to_mapping(config)) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "must: must be given (a whole number)."),
        ({"must": None}, "must: expected a whole number, got None."),
        ({"pair": 3}, "pair: expected a list of 2, got 3."),
        ({"pair": [1, "x"]}, "pair.1: expected a whole number, got 'x'."),
        ({"table": [1]}, "table: expected a mapping, got [1]."),
        ({"table": {"x": "y"}}, "table.x: expected a number, got 'y'."),
        ({"maybe": "x"}, "maybe: expected a whole number or null, got 'x'."),
        ({"maybe": 0}, "maybe: must be at least 1, got 0."),
        ({"either": 1.5}, "either: expected a whole number or a string, got 1.5."),
        ({"several": [{"sise": 1}]}, "several.0.sise: 'Inner' has no such key (given: 1). "
         "Did you mean 'size'? It is a whole number."),
        ({"several": [{"size": 0}]}, "several.0.size: must be at least 1, got 0."),
        ({"several": [3]}, "several.0: expected a mapping of keys, got 3."),
        ({"inner": {"size": 0}}, "inner.size: must be at least 1, got 0."),
        ({"inner": 3}, "inner: expected a mapping of keys, got 3."),
        ({"option": "lft"}, "option: must be one of left, right, 3, got 'lft'. "
         "Did you mean 'left'?"),
        ({"option": 3.0}, "option: must be one of left, right, 3, got 3.0."),
        ({"flag": "true"}, "flag: expected true or false, got 'true'."),
        ({1: 2}, "1: 'test-room' has no such key (given: 2). It takes: anything, either, flag, "
         "inner, maybe, must, norm, norms, null, one, option, pair, ratio, several, table."),
        ({"x": "y" * 100}, "x: 'test-room' has no such key (given: '" + "y" * 56 + "...). "
         "It takes: anything, either, flag, inner, maybe, must, norm, norms, null, one, option, "
         "pair, ratio, several, table."),
    ],
)  # fmt: skip
def test_wrong_values(room, values, message):
    required = {} if values in ({}, {"must": None}) else {"must": 1}
    assert said(resolve, "backbone", {"kind": "test-room", **required, **values}) == message


def test_what_a_schema_checks_itself_is_said_with_its_place():
    assert said(zoo.config, "vit-digits", "labels=[a]") == "labels: 1 names for 10 classes."
    tokenizer = {"kind": "patches", "image": [8, 8], "patch": [3, 3]}
    assert said(resolve, "model", {"kind": "vit", "tokenizer": tokenizer}, "vision") == (
        "vision.tokenizer.image: height 8 is no multiple of the patch's 3."
    )


def test_what_is_no_config_at_all():
    assert said(resolve, "norm", 3) == "norm: expected the name of a norm or a mapping, got 3."
    assert said(resolve, "norm", {}) == "norm: a norm needs a name or a kind, got {}."
    assert said(resolve, "norm", None, "a.b") == (
        "a.b: expected the name of a norm or a mapping, got None."
    )
    assert said(resolve, "nrom", "rms") == "Unknown group 'nrom'. Did you mean 'norm'?"
    assert isinstance(read_node("norm", "rms", {"eps": 1}), RMSNormConfig)


# -- what a stranger wrote -------------------------------------------------------------------------


STORED = {
    "kind": "vit",
    "tokenizer": {"kind": "patches", "image": [8, 8], "patch": [4, 4]},
    "backbone": {
        "kind": "transformer",
        "width": 8,
        "depth": 1,
        "norm": {"kind": "rms"},
        "position": [{"kind": "rope"}],
    },
}


def test_a_stored_config_says_kinds():
    assert resolve("model", STORED, stored=True).backbone.norm == RMSNormConfig()
    config = zoo.config("vit-digits")
    assert resolve("model", to_mapping(config), stored=True) == config


def names_none(group, value):
    return f": a stored config says the kind of each {group} and names none, got {value!r}."


NORM, PLACES = "backbone.norm", "backbone.position"
TAKES = " 'rms' has no such key (given: {!r}). It takes: eps."


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (NORM, "secret", names_none("norm", "secret")),
        (NORM, {"name": "secret"}, names_none("norm", "secret")),
        (NORM, "rms", names_none("norm", "rms")),
        (NORM, {"eps": 1}, ": a norm needs a name or a kind, got {'eps': 1}."),
        (PLACES, ["rope"], ".0" + names_none("position", "rope")),
        (PLACES, {"name": "x"}, names_none("position", "x")),
        ("backbone", "transformer", names_none("backbone", "transformer")),
        ("tokenizer", {"name": "patches"}, names_none("tokenizer", "patches")),
        (NORM, {"kind": "os:system"}, ": Unknown kind 'os:system' of norm. Kinds: "),
        (NORM, {"kind": "vit"}, ": Unknown kind 'vit' of norm. Kinds: "),
        (NORM, {"kind": "../x"}, ": Unknown kind '../x' of norm: no plugin '..' is installed."),
        (NORM, {"kind": {}}, ": a norm needs a name or a kind, got {'kind': {}}."),
        (NORM, {"kind": "rms", "_target_": "os.system"}, "._target_:" + TAKES.format("os.system")),
        (NORM, {"kind": "rms", "zoo_builds": "os:s"}, ".zoo_builds:" + TAKES.format("os:s")),
        (NORM, {"kind": "rms", "__class__": "x"}, ".__class__:" + TAKES.format("x")),
        (NORM, {"kind": "rms", "eps": "${a}"}, ".eps: expected a number, got '${a}'."),
        ("defaults", ["secret"], ": 'vit' has no such key (given: ['secret'])."),
        ("name", "secret", names_none("model", "secret")),
    ],
)
def test_a_stored_config_chooses_among_kinds_and_nothing_else(conf, place, value, message):
    conf({"norm/secret.yaml": "kind: rms", "model/secret.yaml": "kind: vit"})
    hostile = {**STORED, "backbone": dict(STORED["backbone"])}
    *outer, key = place.split(".")
    (hostile[outer[0]] if outer else hostile)[key] = value
    where = "model" if place == "name" else place
    assert said(resolve, "model", hostile, stored=True).startswith(where + message)


def test_groups_that_are_none_are_refused():
    for group in ("os", "", "../model", None, 3):
        with pytest.raises(UnknownName, match=r"^Unknown group "):
            resolve(group, {"kind": "vit"}, stored=True)


def test_errors_of_a_stored_config_are_config_errors():
    with pytest.raises(ConfigError):
        resolve("model", {**STORED, "name": "x"}, stored=True)
