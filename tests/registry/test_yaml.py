"""Scalars as Hydra reads them, in files and on the command line."""

import pytest
from omegaconf import OmegaConf

from zoo.errors import ConfigError
from zoo.registry.yaml import parse_scalar, read_yaml

FILE = """
a: 1e-3
b: 1_000
c: .5
d: -1.5E+6
e: on
f: 2024-01-01
g: "1e-3"
h: null
i: [yes, 0x10, 010, 1., +3]
j: {k: ~, l: "", m: .5e-3, n: 1e3}
o: 16:9
p: 1:30.5
q: v1
"""


def test_files_read_as_omegaconf_reads_them(tmp_path):
    file = tmp_path / "node.yaml"
    file.write_text(FILE)
    ours, theirs = read_yaml(file), OmegaConf.to_container(OmegaConf.load(file))
    assert ours == theirs
    assert [type(v) for v in ours.values()] == [type(v) for v in theirs.values()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", ", line 3: key 'a' stands twice."),
        ("a: [1", ", line 2: did not find expected ',' or ']'."),
        ("[1]: 2\n{a: 1}: 3", ", line 1: "),
        ("{[1]: 2}", ", line 1: a key is a word."),
        ("a: !!python/object/apply:os.system [ls]", ", line 1: could not determine a constructor"),
    ],
)
def test_broken_files_are_named_with_the_line(tmp_path, text, message):
    file = tmp_path / "node.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_yaml(file)
    assert str(error.value).startswith(f"{file}{message}")


def test_a_file_that_is_not_text(tmp_path):
    file = tmp_path / "node.yaml"
    file.write_bytes(b"a: \xff")
    with pytest.raises(ConfigError) as error:
        read_yaml(file)
    assert str(error.value) == f"{file} is not UTF-8 text (byte 3)."


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-1", -1), ("1_000", 1000), ("010", "010"), ("0x10", "0x10"),
        ("1e-3", 0.001), (".5", 0.5), ("1.", 1.0),
        ("true", True), ("False", False), ("on", "on"), ("yes", "yes"), ("null", None), ("~", "~"),
        ("rope", "rope"), ("a: b", "a: b"), ("- a", "- a"), ("-", "-"), ("---", "---"), ("*", "*"),
        ("&x", "&x"), ("!!int 3", "!!int 3"), ("16:9", "16:9"), ("2024-01-01", "2024-01-01"),
        ("a # b", "a # b"), ("", ""), ("'1'", "1"), ('"a b"', "a b"), ("/x/y:z", "/x/y:z"),
        ("[a, on, 1]", ["a", "on", 1]), ("[]", []), ("{}", {}),
        ("{name:rope,theta:5e5}", {"name": "rope", "theta": 5e5}),
        ("{a:{b:1},c:'x:y'}", {"a": {"b": 1}, "c": "x:y"}),
        ("['p,q:r']", ["p,q:r"]), ("{u: http://x}", {"u": "http://x"}),
    ],
)  # fmt: skip
def test_words_on_a_command_line(text, value):
    found = parse_scalar(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", ["[a", "{a:1", "'a", '"'])
def test_what_does_not_close(text):
    with pytest.raises(ConfigError, match="is no value: a bracket or a quote does not close"):
        parse_scalar(text)
