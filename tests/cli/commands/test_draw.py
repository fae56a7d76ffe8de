"""zoo draw, zoo animate: files of pictures and clips, as asked for."""

import pytest
from PIL import Image

import zoo


@pytest.fixture(scope="module")
def phenaki(tmp_path_factory):
    """A folder with a model of clips, of new weights over the shipped tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "phenaki"
    zoo.save(zoo.create("phenaki-digits", "backbone.depth=1", seed=0), folder)
    return f"dir:{folder}"


def size(path):
    with Image.open(path) as image:
        return image.size


def test_a_sheet_of_pictures(zoo_command, tmp_path):
    out = tmp_path / "threes.png"
    words = ["draw", "muse-digits"], ("a handwritten red three", "--num", 4, "--seed", 0)
    code, said, error = zoo_command(*words[0], *words[1], "--scale", 2, "--out", out)
    assert code == 0, error
    assert said == f"{out}\n" and size(out) == (2 * 64 + 2, 2 * 64 + 2)
    again = tmp_path / "again.png"
    assert zoo_command(*words[0], *words[1], "--scale", 2, "--out", again)[0] == 0
    assert out.read_bytes() == again.read_bytes()
    model = zoo.load("muse-digits")
    (first,) = model.draw("a handwritten red three", seed=0)
    corner = Image.open(out).convert("RGB").crop((0, 0, 64, 64))
    assert first.size == (32, 32)
    assert zoo_command(*words[0], *words[1], "--seed", 1, "--scale", 2, "--out", again)[0] == 0
    assert out.read_bytes() != again.read_bytes()
    assert max(high for _, high in corner.getextrema()) > 100  # something is on it


def test_a_file_for_each_and_options(zoo_json, tmp_path):
    out = tmp_path / "one.png"
    options = ("--guidance", 3, "--guidance-schedule", "cosine", "--steps", 2, "--temperature", 0.5)
    rows = zoo_json(
        "draw", "muse-digits", "a handwritten green one", "--num", 2, "--each", "--out", out,
        "--negative", "a handwritten red one", "--no-together", *options)  # fmt: skip
    files = [str(tmp_path / f"one-{number}.png") for number in (1, 2)]
    assert [row["file"] for row in rows] == files and all(size(f) == (32, 32) for f in files)


def test_an_edit_keeps_what_the_mask_leaves(zoo_command, tmp_path):
    picture, mask, out = (tmp_path / name for name in ("seven.png", "mask.png", "edited.png"))
    prompt = "a handwritten white seven"
    assert zoo_command("draw", "muse-digits", prompt, "--seed", 1, "--out", picture)[0] == 0
    plane = Image.new("L", (32, 32), 0)
    plane.paste(255, (16, 0, 32, 32))
    plane.save(mask)
    words = ("--image", picture, "--mask", mask, "--seed", 2, "--out", out)
    code, _, error = zoo_command("draw", "muse-digits", "a handwritten blue seven", *words)
    assert code == 0, error
    model = zoo.load("muse-digits")
    before, after = (
        model.visual.encode(model.visual.preprocess([path])).ids[0] for path in (picture, out)
    )
    assert size(out) == (32, 32) and not (before == after).all()


def test_a_story_as_gif_and_as_sheet(zoo_command, zoo_json, phenaki, tmp_path):
    scenes = ("a three moving left", "a three moving up")
    row = zoo_json(
        "animate", phenaki, *scenes, "--steps", 2, "--seed", 0, "--out", tmp_path / "a.gif"
    )
    # a scene draws its frames; the second sees one of the first and adds four
    assert row["frames"] == 5 + 4
    with Image.open(row["file"]) as clip:
        assert (clip.n_frames, clip.size) == (9, (128, 128))
    sheet = tmp_path / "a.png"
    words = ("--frames", 3, "--steps", 2, "--scale", 1, "--out", sheet)
    code, said, error = zoo_command("animate", phenaki, scenes[0], *words)
    assert code == 0, error
    assert said == f"{sheet}\n" and size(sheet) == (3 * 32 + 2 * 2, 32)


WRONG = [
    (("draw", "muse-digits", "x", "--num", 0), "--num and --scale must be at least 1"),
    (("draw", "muse-digits", "x", "--mask", "m.png"), "give --image too"),
    (("draw", "muse-digits", "an elephant"), "holds a word that this model has no token for"),
    (("draw", "muse-digits", "a handwritten red three", "--top-p", 0.5), "has no such option"),
    (("draw", "vit-digits", "x"), "draw"),
    (("animate", "muse-digits", "a three moving left"), "This model draws pictures"),
]


@pytest.mark.parametrize("words, message", WRONG)
def test_what_does_not_go_is_one_sentence(zoo_command, tmp_path, words, message):
    code, said, error = zoo_command(*words, "--out", tmp_path / "out.png")
    assert code != 0 and not said and message in error and len(error.strip().splitlines()) == 1


def test_a_clip_needs_a_known_ending(zoo_command, phenaki, tmp_path):
    words = ("a three moving left", "--steps", 1, "--out", tmp_path / "clip.webp")
    code, _, error = zoo_command("animate", phenaki, *words)
    assert code != 0 and "A clip is written as .gif or .mp4, not '.webp'" in error


def test_choosing_needs_pictures_that_are_drawn(zoo_command, tmp_path):
    rerank = ("--rerank", "clip-vit-base-32", "clip-text-base-32")
    code, _, error = zoo_command("draw", "muse-digits", "x", "--image", "a.png", *rerank)
    assert code != 0 and "--rerank chooses among drawn pictures" in error
    code, _, error = zoo_command("draw", "muse-digits", "a handwritten red six", "--best-of", 4)
    assert code != 0 and "say who chooses (rerank=)" in error
