"""zoo answer: questions about pictures from the command line."""

import pytest
from PIL import Image

import zoo
from zoo.data.digits import load_digits


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    images, _ = load_digits("test")
    for number in range(2):
        Image.fromarray(images[number]).save(folder / f"{number}.png")
    return [str(folder / f"{number}.png") for number in range(2)]


def test_answers_are_those_of_python(zoo_command, zoo_json, scans):
    expected = zoo.load("llava-digits").answer(scans, "what is the sum?")
    code, out, _ = zoo_command("answer", "llava-digits", *scans, "what is the sum?")
    assert (code, out) == (0, f"{expected}\n")
    told = zoo_json("answer", "llava-digits", *scans, "what is the sum?", "--max-new-tokens", "3")
    assert told == {"pictures": scans, "question": "what is the sum?", "answer": expected}
    code, out, _ = zoo_command(
        "answer", "llava-digits", *scans, "what?", "--beams=2", "--results=2"
    )
    assert code == 0 and len(out.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["llava-digits", "no.png", "is it odd?"], "no.png: no such file"),
        (["llava-digits", "<image> is it odd?"], "1 <image> mark and 0 pictures"),
        (["vit-digits", "is it odd?"], "is a vit model and cannot answer"),
    ],
)
def test_one_line_for_what_cannot_be_answered(zoo_command, words, said):
    code, out, err = zoo_command("answer", *words)
    assert code == 2 and not out and said in err and err.count("\n") == 1
