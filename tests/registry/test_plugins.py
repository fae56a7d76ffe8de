"""Plugins: found without being imported, namespaced, reported when broken, and never in the way of
other names."""

import sys
from importlib.metadata import version

import pytest

import zoo
from zoo.errors import PluginError, UnknownName, ZooError
from zoo.registry import build, names, parse_name, read_mapping, read_node, resolve
from zoo.registry.plugins import describe

BROKEN = "Plugin 'acme' (zoo-acme 0.1) is broken: "


def said(function, *args, **kwargs):
    with pytest.raises(ZooError) as error:
        function(*args, **kwargs)
    return str(error.value)


def others_work():
    assert zoo.config("vit-digits").zoo_kind == "vit"
    assert "rms" in names("norm") and "vit-digits" in names("model", "*")
    assert read_node("norm", "rms").zoo_kind == "rms"
    return True


# -- a plugin that works ---------------------------------------------------------------------------


def test_its_names_are_in_its_namespace(plugin):
    plugin("acme")
    assert "acme/half" in names("norm") and names("norm", "acme/*") == ["acme/half"]
    assert read_node("norm", "acme/half", ["factor=0.25"]).factor == 0.25
    config = zoo.config("vit-digits", "backbone.norm={name: acme/half, factor: 2}")
    assert (config.backbone.norm.zoo_kind, config.backbone.norm.factor) == ("acme/half", 2.0)
    assert said(zoo.config, "vit-digits", "backbone.norm=acme/hafl") == (
        "backbone.norm: Unknown norm 'acme/hafl'. Did you mean 'acme/half'? "
        "(1 names: zoo list norm 'acme/*')"
    )
    assert said(resolve, "norm", {"kind": "acme/hafl"}).startswith(
        "Unknown kind 'acme/hafl' of norm. Did you mean 'acme/half'?"
    )


def test_finding_and_listing_import_none_of_its_code(plugin):
    plugin("acme")
    (
        names("norm"),
        names("norm", "*"),
        names("norm", "acme/*"),
        zoo.plugins(),
        parse_name("rms", "norm"),
    )
    assert not [module for module in sys.modules if module.startswith("zoo_acme")]
    read_node("norm", "acme/half")
    assert "zoo_acme.schema" in sys.modules and "zoo_acme.code" not in sys.modules


def test_a_package_inside_a_package_is_found_without_importing_its_parent(plugin):
    plugin("acme", {"conf/norm/acme/x.yaml": "kind: rms"}, package="zoo_corp.labs.acme")
    assert names("norm", "acme/*") == ["acme/x"]
    assert not [module for module in sys.modules if module.startswith("zoo_corp")]


def test_its_class_is_imported_when_it_is_built(plugin):
    root = plugin("acme")
    (root / "code.py").write_text(
        "class Half:\n    def __init__(self, config): self.config = config\n"
    )
    assert build(read_node("norm", "acme/half")).config.factor == 0.5


def test_it_comes_and_goes(plugin, monkeypatch):
    plugin("acme")
    monkeypatch.setenv("ZOO_PLUGINS", "other, third")
    assert zoo.plugins() == {} and "acme/half" not in names("norm")
    assert said(zoo.config, "vit-digits", "backbone.norm=acme/half") == (
        "backbone.norm: Unknown norm 'acme/half': ZOO_PLUGINS=other, third shuts out plugin 'acme'."
    )
    monkeypatch.setenv("ZOO_PLUGINS", "other, acme")
    assert "acme/half" in names("norm")
    monkeypatch.setenv("ZOO_PLUGINS", "off")
    assert zoo.plugins() == {}


def test_what_is_said_of_a_plugin_that_is_not_there(plugin):
    plugin("acme")
    assert said(zoo.load, "acem/tiny") == (
        "Unknown model 'acem/tiny': no plugin 'acem' is installed. Did you mean 'acme'? "
        "A hub repository is hf:acem/tiny, a folder dir:acem/tiny."
    )
    assert said(zoo.load, "corp/tiny") == (
        "Unknown model 'corp/tiny': no plugin 'corp' is installed. See zoo plugins. "
        "A hub repository is hf:corp/tiny, a folder dir:corp/tiny."
    )
    assert said(resolve, "norm", {"kind": "corp/half"}) == (
        "Unknown kind 'corp/half' of norm: no plugin 'corp' is installed. See zoo plugins."
    )


# -- names that are no files -----------------------------------------------------------------------


MADE_UP = """
def names(group):
    return ("acme/net-%d.v%d" % (i, i) for i in range(3)) if group == "model" else ()
def node(group, name):
    if name in set(names(group)):
        return {"kind": "vit", "classes": 7, "weights": {"a.b": {"repo": "x/y"}}}
"""


def test_made_up_names_are_listed_when_a_pattern_reaches_them(plugin):
    plugin("acme", {"plugin.py": MADE_UP})
    assert not any(name.startswith("acme/") for name in names("model"))
    assert not any(name.startswith("acme/") for name in names("model", "vit*"))
    assert "zoo_acme.plugin" not in sys.modules
    mine = ["acme/net-0.v0", "acme/net-1.v1", "acme/net-2.v2"]
    assert names("model", "acme/*") == mine and names("model", "a*-1*") == [mine[1]]
    assert set(mine) < set(names("model", "*")) and names("norm", "acme/*") == []
    assert names("model", "*/net-2*") == [mine[2]]


def test_made_up_names_have_tags(plugin):
    plugin("acme", {"plugin.py": MADE_UP})
    assert parse_name("acme/net-1.v1") == zoo.registry.Name("", "acme/net-1.v1")
    assert zoo.config("acme/net-1.v1.a.b").classes == 7
    assert said(zoo.config, "acme/net-1.v1.c") == ("'acme/net-1.v1' has no weights 'c'. Tags: a.b.")
    assert said(zoo.config, "acme/net-9.v9").startswith(
        "Unknown model 'acme/net-9'. Did you mean 'acme/net-"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def names(group): return ['tiny']", "its names must begin with acme/, found 'tiny'."),
        (
            "def names(group): return 1 / 0",
            "zoo_acme.plugin.names('model',) failed with ZeroDivisionError: division by zero",
        ),
        ("import nothing", "importing zoo_acme.plugin failed with ModuleNotFoundError: "
         "No module named 'nothing'"),
    ],
)  # fmt: skip
def test_names_that_fail(plugin, text, message):
    plugin("acme", {"plugin.py": text})
    assert others_work()  # also names("model", "*"), which reaches for it
    assert said(names, "model", "acme/*") == BROKEN + message
    assert said(zoo.load, "acme/tiny") == BROKEN + message
    assert zoo.plugins()["acme"].error == message


def test_nodes_that_fail(plugin):
    plugin("acme", {"plugin.py": "def node(group, name): return name and [1]"})
    assert said(zoo.config, "acme/x") == BROKEN + "its node 'acme/x' is no mapping but list."
    assert others_work()


# -- plugins that are broken -----------------------------------------------------------------------


NODE = {"conf/norm/acme/x.yaml": "kind: acme/x"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"schema.py": "import nothing"}, "importing zoo_acme.schema failed with "
         "ModuleNotFoundError: No module named 'nothing'"),
        ({"schema.py": "def x(:"}, "importing zoo_acme.schema failed with SyntaxError: "
         "invalid syntax (schema.py, line 1)"),
        ({"schema.py": "raise RuntimeError('a\\nb')"}, "importing zoo_acme.schema failed with "
         "RuntimeError: a b"),
        ({"__init__.py": "1 / 0", "schema.py": ""}, "importing zoo_acme.schema failed with "
         "ZeroDivisionError: division by zero"),
        ({"inner/schema.py": "x", "inner/__init__.py": ""}, "importing zoo_acme.inner.schema "
         "failed with NameError: name 'x' is not defined"),
    ],
)  # fmt: skip
def test_a_schema_that_fails(plugin, files, message):
    plugin("acme", {**NODE, **files})
    assert names("norm", "acme/*") == ["acme/x"]  # a name is a file
    assert said(read_node, "norm", "acme/x") == BROKEN + message
    assert said(read_node, "norm", "acme/x") == BROKEN + message  # and stays so
    assert said(zoo.config, "vit-digits", "backbone.norm=acme/x") == BROKEN + message
    (report,) = describe()
    assert (report.state, report.problems) == ("broken", (message,))
    assert others_work()


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("soft", "its kinds must be called acme/…, found norm 'soft'."),
        ("corp/half", "its kinds must be called acme/…, found norm 'corp/half'."),
    ],
)
def test_kinds_outside_its_namespace(plugin, claim, message):
    root = plugin("acme")
    text = (root / "schema.py").read_text().replace("acme/half", claim)
    (root / "schema.py").write_text(text)
    assert said(read_node, "norm", "acme/half") == BROKEN + message
    assert said(resolve, "norm", {"kind": "soft"}).startswith("Unknown kind 'soft' of norm.")
    assert others_work()


def test_a_kind_of_ours_cannot_be_taken(plugin):
    root = plugin("acme")
    text = (root / "schema.py").read_text().replace("acme/half", "rms")
    (root / "schema.py").write_text(text)
    assert said(read_node, "norm", "acme/half") == BROKEN + (
        "importing zoo_acme.schema failed with ConfigError: "
        "Two schemas claim kind 'rms' of norm: zoo.nn.schema and zoo_acme.schema."
    )
    assert others_work()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("conf/model/vit-digits.yaml", "conf/model/acme/, found 'vit-digits.yaml'."),
        ("conf/norm/corp/x.yaml", "conf/norm/acme/, found 'corp'."),
    ],
)
def test_names_outside_its_namespace(plugin, file, message):
    plugin("acme", {**NODE, file: "kind: vit"})
    message = BROKEN + "its names must lie under " + message
    assert said(read_node, "norm", "acme/x") == message
    assert names("norm", "*") == names("norm") and said(names, "norm", "acme/*") == message
    assert others_work()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("norm: {rms: acme/x}", "{}: old names must begin with acme/, found 'rms'."),
        ("norm: [", "{}, line 2: did not find expected node content."),
        ("3", "{} is no mapping of groups to mappings of old names to new ones."),
    ],
)
def test_its_aliases(plugin, text, message):
    root = plugin("acme", {**NODE, "conf/aliases.yaml": text, "schema.py": ""})
    message = BROKEN + message.format(root / "conf/aliases.yaml")
    assert others_work()
    assert said(read_node, "norm", "acme/x") == message


def test_an_alias_of_its_own(plugin):
    plugin(
        "acme",
        {"conf/norm/acme/x.yaml": "kind: rms", "conf/aliases.yaml": "norm: {acme/old: acme/x}"},
    )
    with pytest.warns(DeprecationWarning, match="norm 'acme/old' is now called 'acme/x'"):
        assert read_node("norm", "acme/old").zoo_kind == "rms"


def test_a_package_that_is_missing(plugin):
    plugin("acme", entry="zoo_acmee")
    reason = "there is no package 'zoo_acmee'; install it again."
    assert said(zoo.load, "acme/tiny") == BROKEN + reason
    assert zoo.plugins()["acme"].error == reason
    assert others_work()


def test_a_module_is_no_package(plugin):
    root = plugin("acme", {"single.py": ""})
    root.joinpath("single.py").rename(root.parent / "zoo_single.py")
    plugin("acme", {}, entry="zoo_single", distribution="zoo-acme-two", package="zoo_two")
    assert others_work()


@pytest.mark.parametrize("name", ["hf", "dir", "zoo", "Acme", "a.b", "a b", "1a"])
def test_namespaces_that_would_read_like_something_else(plugin, name):
    plugin(name, {}, distribution="zoo-odd", package="zoo_odd")
    assert zoo.plugins()[name].error == (
        f"{name!r} is no namespace: take a lower-case word, not dir or hf or zoo."
    )
    assert others_work()


def test_two_plugins_of_one_name_are_both_refused(plugin):
    plugin("acme")
    plugin(
        "acme",
        {"conf/norm/acme/x.yaml": "kind: rms"},
        distribution="zoo-acme-fork",
        package="zoo_fork",
    )
    reason = "two plugins call themselves 'acme': zoo-acme-fork 0.1 and zoo-acme 0.1; remove one."
    error = zoo.plugins()["acme"].error
    assert error in (
        reason,
        "two plugins call themselves 'acme': zoo-acme 0.1 and zoo-acme-fork 0.1; remove one.",
    )
    assert said(read_node, "norm", "acme/half").endswith(error)
    assert said(zoo.load, "acme/x").endswith(error)
    assert not [name for name in names("norm") if name.startswith("acme/")]
    assert others_work()


def test_a_distribution_seen_twice_is_one_plugin(plugin, tmp_path, monkeypatch):
    plugin("acme")
    copy = tmp_path / "elsewhere"
    info = "zoo_acme-0.1.dist-info"
    copy.mkdir()
    (tmp_path / "site-zoo-acme" / info).rename(copy / "tmp")
    (copy / "tmp").rename(copy / info)
    monkeypatch.syspath_prepend(str(copy))
    zoo.registry.forget()
    assert zoo.plugins()["acme"].error is None


def test_a_name_of_a_plugin_and_of_a_folder_clash(plugin, conf):
    plugin("acme")
    root = conf({"norm/acme/half.yaml": "kind: rms"})
    assert said(read_mapping, "norm", "acme/half") == (
        f"Two places provide norm 'acme/half': {root} and zoo-acme 0.1; remove one."
    )
    assert others_work()


# -- a close look ----------------------------------------------------------------------------------


def test_describe_counts_what_a_plugin_adds(plugin):
    root = plugin("acme")
    (root / "plugin.py").write_text(MADE_UP)
    (root / "formats.py").write_text("class F: name = 'acme/raw'\nFORMAT, FORMATS = F, ()\n")
    zoo.registry.forget()
    (report,) = describe()
    assert report.to_mapping() == {
        "name": "acme",
        "distribution": "zoo-acme 0.1",
        "package": "zoo_acme",
        "location": str(root),
        "problems": (),
        "names": {
            "model": ("acme/net-0.v0", "acme/net-1.v1", "acme/net-2.v2"),
            "norm": ("acme/half",),
        },
        "kinds": {"norm": ("acme/half",)},
        "formats": ("acme/raw",),
        "state": "ok",
        "adds": {"model": 3, "norm": 1, "format": 1},
    }


def test_describe_finds_what_only_a_look_inside_shows(plugin):
    files = {
        "conf/norm/acme/good.yaml": "kind: rms",
        "conf/norm/acme/bad.yaml": "kind: rms\nespilon: 1",
        "conf/norm/acme/odd.yaml": "[",
        "conf/model/acme/net.yaml": "kind: vit\nweights: {w: {repo: a/b, set: {clases: 3}}}",
        "formats.py": "import nothing",
    }
    root = plugin("acme", files)
    (report,) = describe()
    assert report.state == "broken" and report.adds == {"model": 1, "norm": 3}
    assert report.problems[0].startswith("clases: 'vit' has no such key")
    assert report.problems[1].startswith("espilon: 'rms' has no such key")
    assert report.problems[2].startswith(f"{root / 'conf/norm/acme/odd.yaml'}, line ")
    assert report.problems[3:] == (
        "importing zoo_acme.formats failed with ModuleNotFoundError: No module named 'nothing'",
    )


def test_one_bad_node_leaves_the_others_alone(plugin):
    files = {"conf/norm/acme/good.yaml": "kind: rms", "conf/norm/acme/bad.yaml": "kind: rsm"}
    plugin("acme", files)
    (report,) = describe()
    assert report.problems == ("Unknown kind 'rsm' of norm. Did you mean 'rms'?",)
    assert read_node("norm", "acme/good").zoo_kind == "rms"


def test_plugins_tells_version_and_place(plugin):
    root = plugin("acme")
    found = zoo.plugins()["acme"]
    assert (found.distribution, found.location) == (f"zoo-acme {version('zoo-acme')}", root)
    with pytest.raises(UnknownName):
        zoo.load("other/x")
    with pytest.raises(PluginError):
        raise found.fail("it was told to")
