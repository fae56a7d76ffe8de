"""The grammar of names, and texts that are none."""

import pytest

from zoo.errors import UnknownName, ZooError
from zoo.registry import Name, parse_name, read_mapping


@pytest.fixture(autouse=True)
def _names(conf):
    conf(
        {
            "model/tiny.yaml": "kind: vit",
            "model/llm-3.2.yaml": "kind: vit",
            "model/llm-3.yaml": "kind: vit",
            "model/lab/net.yaml": "kind: vit",
            "aliases.yaml": "model: {petit: tiny}",
        }
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tiny", Name("", "tiny")),
        (" tiny ", Name("", "tiny")),
        ("tiny.in1k", Name("", "tiny", "in1k")),
        ("tiny.a.b", Name("", "tiny", "a.b")),
        ("llm-3.2", Name("", "llm-3.2")),
        ("llm-3.2.chat", Name("", "llm-3.2", "chat")),
        ("llm-3.chat", Name("", "llm-3", "chat")),
        ("lab/net", Name("", "lab/net")),
        ("lab/net.v2", Name("", "lab/net", "v2")),
        ("nothing-like-it", Name("", "nothing-like-it")),
        ("hf:org/repo", Name("hf", "org/repo")),
        ("hf:gpt2", Name("hf", "gpt2")),
        ("hf:org/repo@v1.0", Name("hf", "org/repo", revision="v1.0")),
        ("hf:org/repo@refs/pr/1", Name("hf", "org/repo", revision="refs/pr/1")),
        ("hf:org/repo@" + "a" * 40, Name("hf", "org/repo", revision="a" * 40)),
        ("dir:runs/7", Name("dir", "runs/7")),
        ("dir:/abs/with space/x#1?", Name("dir", "/abs/with space/x#1?")),
        (r"dir:C:\models\x", Name("dir", r"C:\models\x")),
        (r"dir:\\server\share\x", Name("dir", r"\\server\share\x")),
        ("dir:../x", Name("dir", "../x")),
    ],
)
def test_forms(text, expected):
    assert parse_name(text) == expected


PATH = "{0!r} looks like a path; a folder is named dir:{0}."
FORM = "{0!r} is not of the form hf:org/repo or hf:org/repo@revision."
NONE = "A name is a non-empty string such as 'vit-digits', 'hf:org/repo' or 'dir:runs/7'."
SCHEME = "{0!r} has the unknown scheme {1!r}.{2} Use hf:org/repo or dir:path."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", NONE),
        ("   ", NONE),
        (None, NONE),
        (7, NONE),
        (["tiny"], NONE),
        ("/abs/path", PATH),
        ("~/models/x", PATH),
        (".", PATH),
        ("..", PATH),
        ("./x", PATH),
        ("../x", PATH),
        ("tiny/../x", PATH),
        ("tiny/..", PATH),
        (r"C:\models\x", PATH),
        ("C:/models/x", PATH),
        (r"\\server\share", PATH),
        (r"models\x", PATH),
        ("hf:", FORM),
        ("hf:org/", FORM),
        ("hf:/repo", FORM),
        ("hf:a/b/c", FORM),
        ("hf:org/repo@", FORM),
        ("hf:org/re po", FORM),
        ("hf:org/../etc", FORM),
        ("hf:org/repo@../x", FORM),
        ("hf:org/repo#main", FORM),
        ("hf:org/repo?x=1", FORM),
        ("hf:~org/repo", FORM),
        ("dir:", "'dir:' needs a folder after it, as in dir:runs/7."),
        ("fh:org/repo", SCHEME.format("fh:org/repo", "fh", "")),
        ("HF:org/repo", SCHEME.format("HF:org/repo", "HF", " Did you mean 'hf'?")),
        ("https://hub.co/org/repo", SCHEME.format("https://hub.co/org/repo", "https", "")),
        ("C:x", SCHEME.format("C:x", "C", "")),
    ],
)
def test_odd_texts_are_refused_with_the_ways_out(text, message):
    with pytest.raises(UnknownName) as error:
        parse_name(text)
    assert str(error.value) == message.format(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tiny name", "Unknown model 'tiny name'. Did you mean 'tiny'?"),
        ("tiny#1", "Unknown model 'tiny#1'. Did you mean 'tiny'?"),
        ("tiny?", "Unknown model 'tiny?'. Did you mean 'tiny'?"),
        ("TINY", "Unknown model 'TINY'. Did you mean 'tiny'?"),
        ("tiny\x00", "Unknown model 'tiny\\x00'. Did you mean 'tiny'?"),
        ("x" * 10_000, "Unknown model"),
        (
            "org/repo",
            "Unknown model 'org/repo': no plugin 'org' is installed. See zoo plugins. "
            "A hub repository is hf:org/repo, a folder dir:org/repo.",
        ),
        ("lab/nte", "Unknown model 'lab/nte'. Did you mean 'lab/net'?"),
        ("*", "Unknown model '*'."),
        ("tiny.yaml/", "Unknown model 'tiny.yaml/': no plugin 'tiny.yaml' is installed."),
    ],
)
def test_what_is_no_name_is_unknown(text, message):
    with pytest.raises(ZooError) as error:
        read_mapping("model", parse_name(text).name)
    assert str(error.value).startswith(message)


def test_an_old_name_gives_the_new_one_and_warns():
    with pytest.warns(DeprecationWarning, match=r"^model 'petit' is now called 'tiny'\.$"):
        assert parse_name("petit.in1k") == Name("", "tiny", "in1k")


def test_unknown_group():
    with pytest.raises(UnknownName) as error:
        parse_name("tiny", "nrom")
    assert str(error.value) == "Unknown group 'nrom'. Did you mean 'norm'?"
