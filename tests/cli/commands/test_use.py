"""zoo create, classify, export: a model from the command line."""

import json

import pytest

import zoo


def test_create_writes_a_folder_that_loads(zoo_command, tmp_path):
    words = ["vit-digits", tmp_path / "m", "backbone.depth=1", "classes=3", "labels=[a,b,c]"]
    code, out, _ = zoo_command("create", *words, "--seed", "7")
    assert (code, out) == (0, f"{tmp_path / 'm'}\n")
    model = zoo.load(f"dir:{tmp_path / 'm'}")
    again = zoo.create("vit-digits", "backbone.depth=1", classes=3, labels=["a", "b", "c"], seed=7)
    assert model.config.labels == ["a", "b", "c"]
    assert all((a == b).all() for a, b in zip(model.parameters(), again.parameters()))


def test_classify_prints_a_line_per_file(zoo_command, tiny, picture):
    code, out, _ = zoo_command("classify", f"dir:{tiny}", picture, "--top", "2")
    assert code == 0
    file, best, second = out.rstrip("\n").split("\t")
    assert file == str(picture) and best.endswith("%)") and second.endswith("%)")


def test_classify_as_json_agrees_with_python(zoo_json, tiny, picture):
    (row,) = zoo_json("classify", f"dir:{tiny}", picture, "--top", "3")
    expected = zoo.load(f"dir:{tiny}").classify(str(picture), top=3)
    assert [c["label"] for c in row["classes"]] == [p.label for p in expected]
    assert row["classes"][0]["probability"] == pytest.approx(expected[0].probability)


def test_a_folder_stands_for_its_files(zoo_json, tiny, picture):
    from PIL import Image

    Image.new("L", (40, 30)).save(picture.parent / "another.png")
    (picture.parent / ".hidden").write_text("")
    rows = zoo_json("classify", f"dir:{tiny}", picture.parent)
    assert [row["file"] for row in rows] == [str(picture.parent / "another.png"), str(picture)]


def test_a_bad_file_does_not_stop_the_others(zoo_command, tiny, picture):
    bad = picture.parent / "bad.png"
    bad.write_bytes(b"no picture")
    code, out, err = zoo_command("classify", f"dir:{tiny}", bad, picture, "--json")
    assert code == 1
    assert [row["file"] for row in json.loads(out)] == [str(picture)]
    assert err.startswith("zoo: ") and "bad.png" in err and err.count("\n") == 1


def test_overrides_go_by_set(zoo_json, tiny, picture):
    words = ["classify", f"dir:{tiny}", picture, "--set", "labels=[k,l,m,n,o,p,q,r,s,t]"]
    (row,) = zoo_json(*words)
    assert row["classes"][0]["label"] in "klmnopqrst"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--top", "0"], "at least 1"),
        (["--dtype", "fp13"], "Unknown dtype 'fp13'"),
    ],
)
def test_classify_refuses(words, said, zoo_command, tiny, picture):
    code, _, err = zoo_command("classify", f"dir:{tiny}", picture, *words)
    assert code == 2 and said in err


def test_classify_needs_a_folder_with_files(zoo_command, tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = zoo_command("classify", f"dir:{tiny}", tmp_path / "empty")
    assert code == 2 and "holds no files" in err


def test_export_in_our_own_layout(zoo_command, tiny, tmp_path):
    code, out, _ = zoo_command("export", f"dir:{tiny}", tmp_path / "out", "--format", "zoo")
    assert code == 0 and out == f"{tmp_path / 'out'}\n"
    ours, theirs = zoo.load(f"dir:{tiny}"), zoo.load(f"dir:{tmp_path / 'out'}")
    assert all((a == b).all() for a, b in zip(ours.parameters(), theirs.parameters()))


def test_export_needs_both_places(zoo_command):
    code, _, err = zoo_command("export", "vit-digits")
    assert code == 2 and "NAME and a FOLDER" in err
