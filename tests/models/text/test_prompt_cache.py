"""generate(prompt_cache=FILE): the same answer, the prompt read once."""

import pytest

import zoo
from zoo.cli import main
from zoo.errors import ConfigError, WeightsError

PROMPT = "def read(path):\n    with open(path) as file:\n        return file."


@pytest.fixture(scope="module")
def tiny():
    from tools.load_server import tiny_model

    return tiny_model()


def test_a_kept_prompt_changes_no_answer(tiny, tmp_path, monkeypatch):
    path, expected = tmp_path / "p.safetensors", tiny.generate(PROMPT, max_new_tokens=20)
    assert tiny.generate(PROMPT, max_new_tokens=20, prompt_cache=path) == expected
    read, forward = [], tiny.forward
    monkeypatch.setattr(
        tiny, "forward", lambda t, *a, **k: read.append(t.shape[1]) or forward(t, *a, **k)
    )
    assert tiny.generate(PROMPT, max_new_tokens=20, prompt_cache=path) == expected
    assert read == [1] * 20
    guessed = tiny.generate(PROMPT, draft="prompt", max_new_tokens=20, prompt_cache=path)
    assert guessed == expected
    longer = PROMPT + "read()"
    monkeypatch.undo()
    found = tiny.generate(longer, max_new_tokens=20, prompt_cache=path)
    assert found == tiny.generate(longer, max_new_tokens=20)


def test_from_the_command(tiny, tmp_path, capsys):
    zoo.save(tiny, tmp_path / "m")
    words = ["generate", f"dir:{tmp_path / 'm'}", PROMPT, "--max-new-tokens", "9"]
    for _ in range(2):
        assert main([*words, "--prompt-cache", str(tmp_path / "p.safetensors")]) == 0
        assert capsys.readouterr().out == tiny.generate(PROMPT, max_new_tokens=9) + "\n"


def test_what_it_cannot_do_is_refused(tiny, tmp_path):
    path = tmp_path / "p.safetensors"
    for words, said in (
        ({"beams": 2}, "without beams"),
        ({"repetition_penalty": 1.2}, "must see the whole prompt"),
    ):
        with pytest.raises(ConfigError, match=said):
            tiny.generate(PROMPT, prompt_cache=path, **words)
    with pytest.raises(ConfigError, match="it holds one prompt"):
        tiny.generate([PROMPT, PROMPT], prompt_cache=path)
    tiny.generate(PROMPT, max_new_tokens=1, prompt_cache=path)
    other = zoo.create("gpt2", "backbone.depth=1", "backbone.width=24", vocabulary=4096, seed=0)
    other.tokenizer = tiny.tokenizer
    with pytest.raises(WeightsError, match="compute the prompt again"):
        other.generate(PROMPT, prompt_cache=path)


def test_another_precision_is_refused_by_name(tiny, tmp_path):
    zoo.save(tiny, tmp_path / "m")
    models = {d: zoo.load(f"dir:{tmp_path / 'm'}", dtype=d) for d in ("fp32", "bf16", "int8")}
    for dtype, model in models.items():
        path = tmp_path / f"{dtype}.safetensors"
        first = model.generate(PROMPT, max_new_tokens=5, prompt_cache=path)
        assert model.generate(PROMPT, max_new_tokens=5, prompt_cache=path) == first
    for dtype, said in (("bf16", "in bfloat16, and .* in float32;"), ("int8", "float32 int8")):
        with pytest.raises(WeightsError, match=said):
            models["fp32"].generate(PROMPT, prompt_cache=tmp_path / f"{dtype}.safetensors")
    with pytest.raises(WeightsError, match="in float32, and this model computes in float32 int8"):
        models["int8"].generate(PROMPT, prompt_cache=tmp_path / "fp32.safetensors")


def test_the_command_reads_a_file(tiny, tmp_path, capsys):
    zoo.save(tiny, tmp_path / "m")
    text = tmp_path / "text.txt"
    text.write_text(PROMPT, encoding="utf-8")
    words = ["generate", f"dir:{tmp_path / 'm'}", "--max-new-tokens", "9"]
    assert main([*words, "--file", str(text)]) == 0
    assert capsys.readouterr().out == tiny.generate(PROMPT, max_new_tokens=9) + "\n"
    for wrong, said in (
        ([], "or --file with a file"),
        ([PROMPT, "--file", str(text)], "or --file with a file"),
        (["--file", str(tmp_path / "none")], "cannot be read as text"),
    ):
        assert main([*words, *wrong]) != 0
        assert said in capsys.readouterr().err
