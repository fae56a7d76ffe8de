"""zoo align: words with times from the command line."""

import pytest

from zoo.data.speech.utterances import shipped

soundfile = pytest.importorskip("soundfile", reason="shipped speech is FLAC (extra audio)")


@pytest.fixture
def talk(tmp_path):
    spoken = shipped("digits")[3]
    soundfile.write(tmp_path / "talk.wav", spoken.wave, spoken.rate)
    return tmp_path / "talk.wav", spoken


def test_align_prints_a_line_per_word(zoo_command, talk):
    file, spoken = talk
    code, out, _ = zoo_command("align", file, spoken.text)
    rows = [line.split("\t") for line in out.splitlines()]
    words = [row for row in rows if row[0] != "start"]
    assert code == 0 and [row[2] for row in words] == spoken.text.split()
    for row, (_, start, _) in zip(words, spoken.words):
        assert abs(float(row[0]) - start) <= 0.12


def test_the_text_may_stand_in_a_file(zoo_json, talk):
    file, spoken = talk
    (file.parent / "words.txt").write_text(spoken.text + "\n")
    found = zoo_json("align", file, file.parent / "words.txt")
    assert [word["text"] for word in found] == spoken.text.split()
    assert all(0 <= word["probability"] <= 1 for word in found)


def test_a_model_that_cannot_align_says_so(zoo_command, talk):
    code, _, err = zoo_command("align", talk[0], "one", "--model", "vit-digits")
    assert code != 0 and "cannot align" in err
