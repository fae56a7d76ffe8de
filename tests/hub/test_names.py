import pytest

from zoo.errors import HubError
from zoo.hub.names import (
    check_collisions,
    check_path,
    check_repo,
    check_revision,
    is_commit,
    select,
)


@pytest.mark.parametrize("repo", ["acme/my-vit", "gpt2", "a/b.c_d-e", "0/1", "_a/b"])
def test_repositories_may_be_called(repo):
    assert check_repo(repo) == repo


@pytest.mark.parametrize(
    "repo",
    [
        "",
        "/",
        "a/",
        "/b",
        "a/b/c",
        "../b",
        "a/..",
        "a//b",
        "a--b/c",
        "a/b.git",
        "a b/c",
        "a/b.",
        "-a/b",
        ".a/b",
        "a/b\n",
        "a\\b/c",
        "a/b?x",
        "http://x/y",
        "é/b",
        "a/" + "b" * 97,
        None,
        3,
    ],
)
def test_repositories_may_not_be_called(repo):
    with pytest.raises(HubError, match="owner/name"):
        check_repo(repo)


def test_an_owner_is_asked_for_where_one_is_needed():
    with pytest.raises(HubError, match="write owner/gpt2"):
        check_repo("gpt2", namespace=True)


@pytest.mark.parametrize("name", ["main", "v1.0", "refs/pr/2", "feature/x-y", "a+b", "_x"])
def test_revisions_may_be_called(name):
    assert check_revision(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "../x", "a/../b", "/x", "x/", "a//b", "-x", ".x", "x.lock", "a b", "x\n", "x" * 201],
)
def test_revisions_may_not_be_called(name):
    with pytest.raises(HubError, match="revision"):
        check_revision(name)


def test_a_commit_is_forty_hex_digits():
    assert is_commit("0123456789abcdef0123456789abcdef01234567")
    assert not is_commit("0123456789abcdef0123456789abcdef0123456")
    assert not is_commit("0123456789ABCDEF0123456789abcdef01234567")
    assert not is_commit("main") and not is_commit(None)


@pytest.mark.parametrize(
    "path", ["config.json", "a/b/c.txt", ".eval_results/x.yaml", "é ü.txt", ".gitattributes", "..a"]
)
def test_files_may_be_called(path):
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a/./b",
        "a//b",
        "a/",
        "..",
        ".",
        "C:\\x",
        "a\\..\\b",
        "C:/x",
        "x:stream",
        "a\x00b",
        "a\nb",
        "a\x7fb",
        "\ud800",
        ".git/config",
        "a/.GIT/x",
        ".cache/x",
        "con",
        "a/NUL.txt",
        "lpt1.json",
        "a.",
        "a ",
        " a",
        "b./c",
        "x" * 256,
        "a/" * 600 + "b",
    ],
)
def test_files_may_not_be_called(path):
    with pytest.raises(HubError, match=r"acme/m names a file .* refused"):
        check_path(path, "acme/m")


def test_names_that_fall_together_are_refused():
    with pytest.raises(HubError, match=r"both Model.json and model.json"):
        check_collisions(["model.json", "Model.json", "a"])
    with pytest.raises(HubError, match=r"A both as a file and as the folder of a/b"):
        check_collisions(["A", "a/b"])
    check_collisions(["a/b", "a/c", "ab"])


def test_a_pattern_without_a_slash_means_the_top():
    paths = ["model.safetensors", "old/model.safetensors", "config.json", "train.py", "a/b/c.json"]
    assert select(paths, ["*.safetensors", "config.json"]) == ["config.json", "model.safetensors"]
    assert select(paths, ["old/*"]) == ["old/model.safetensors"]
    assert select(paths, "*/*/*.json") == ["a/b/c.json"]
    assert select(paths, ["CONFIG.JSON"]) == []
