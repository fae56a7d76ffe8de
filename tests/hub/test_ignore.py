import shutil
import subprocess

import pytest

from zoo.hub.ignore import ignored

RULES = """
# a comment
*.log
!keep.log
/top.txt
build/
docs/*.html
**/deep/*.tmp
a/**/z
x/**
[ab]?.c
\\#hash
dir/
!dir/kept
trailing   
"""
PATHS = [
    *(
        "a.log",
        "s/a.log",
        "keep.log",
        "s/keep.log",
        "top.txt",
        "s/top.txt",
        "build/x",
        "s/build/x/y",
    ),
    *("docs/a.html", "docs/s/a.html", "s/docs/a.html", "deep/a.tmp", "q/deep/a.tmp", "a/z"),
    *("a/b/c/z", "x/y", "xx", "a1.c", "c1.c", "a12.c", "#hash", "dir/kept", "trailing", "b/z"),
]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the reference")
def test_git_says_the_same(tmp_path):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    for path in PATHS:
        # One name is a file in one rule and a folder in another; git only needs the names.
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if not (tmp_path / path).is_dir():
            (tmp_path / path).touch()
    (tmp_path / ".gitignore").write_text(RULES)
    asked = [p for p in PATHS if (tmp_path / p).is_file()]
    told = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=tmp_path,
        input="\n".join(asked),
        text=True,
        capture_output=True,
    ).stdout.splitlines()
    said = {line.strip('"') for line in told}
    assert {p for p in asked if ignored(p, RULES)} == said
    assert len(said) > 10


def test_without_rules_nothing_is_ignored():
    assert not ignored("a/b", "")
