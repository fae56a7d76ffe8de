"""One window, against openai-whisper's `decode`: the same tokens, the same probabilities."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.errors import ConfigError, DataError
from zoo.models.whisper.decode import decode_windows, detect
from zoo.models.whisper.layout import Layout, language_code
from zoo.models.whisper.options import speech_options
from zoo.models.whisper.rules import non_speech_tokens, suppressed

TOKENS = 40
CASES = {
    "greedy": ({}, {}),
    "beams": ({"beam_size": 5}, {"beams": 5}),
    "patience": ({"beam_size": 3, "patience": 2.0}, {"beams": 3, "patience": 2.0}),
    "impatience": ({"beam_size": 4, "patience": 0.5}, {"beams": 4, "patience": 0.5}),
    "length penalty": (
        {"beam_size": 5, "length_penalty": 0.6},
        {"beams": 5, "length_penalty": 0.6},
    ),
    "no times": ({"without_timestamps": True}, {"times": False}),
    "late": ({"max_initial_timestamp": None}, {"max_first_time": None}),
    "anything": (
        {"suppress_tokens": "", "suppress_blank": False},
        {"suppress": [], "suppress_blank": False},
    ),
}


@pytest.fixture(scope="module")
def window(pair, sound):
    """(features, the encoder's memory) of 30 s."""
    features = pair[1].sound.windows(sound)
    with torch.inference_mode():
        return features[0], pair[1].encode(features)


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_openai_decodes_the_same(pair, window, case):
    from whisper import DecodingOptions, decode

    theirs, ours = CASES[case]
    if case == "anything":  # an end must be possible for the search to be more than a limit
        theirs = {**theirs, "beam_size": 2}
        ours = {**ours, "beams": 2}
    options = DecodingOptions(fp16=False, sample_len=TOKENS, **theirs)
    expected = decode(pair[0], window[0], options)
    wanted = speech_options({**ours, "max_new_tokens": TOKENS})
    prompt = pair[1].config.layout.prompt(expected.language, "transcribe", wanted.times)
    (found,) = decode_windows(pair[1], window[1], [prompt], wanted)
    assert found.tokens == expected.tokens and found.text == expected.text
    assert found.log_probability == pytest.approx(expected.avg_logprob, abs=1e-4)
    assert found.no_speech == pytest.approx(expected.no_speech_prob, abs=1e-4)
    assert found.compression == expected.compression_ratio


@torch.inference_mode()
def test_openai_draws_the_same(pair, window):
    """Both divide by exponential noise, so that the same generator draws the same."""
    from whisper import DecodingOptions, decode

    options = DecodingOptions(
        fp16=False, sample_len=TOKENS, temperature=0.8, best_of=3, language="en"
    )
    wanted = speech_options({"best_of": 3, "max_new_tokens": TOKENS})
    prompt = pair[1].config.layout.prompt("en", "transcribe", True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        expected = decode(pair[0], window[0], options)
        torch.manual_seed(5)
        (found,) = decode_windows(pair[1], window[1], [prompt], wanted, 0.8)
    assert found.tokens == expected.tokens
    assert found.log_probability == pytest.approx(expected.avg_logprob, abs=1e-4)


@torch.inference_mode()
def test_openai_hears_the_same_language(pair, window):
    _, expected = pair[0].detect_language(window[0])
    (found,) = detect(pair[1], window[1])
    assert found == pytest.approx(expected, abs=1e-6)
    assert next(iter(found)) == max(expected, key=expected.get)
    assert pair[1].detect_language([window[0].new_zeros(1600)] * 2)[0].keys() == expected.keys()


@torch.inference_mode()
def test_a_batch_decodes_as_its_members_do(pair, sound):
    model = pair[1]
    memory = model.encode(model.sound.windows([sound, sound[::3], sound[5000:200000]]))
    prompt = model.config.layout.prompt("en", "transcribe", True)
    for given in ({}, {"beams": 3}):
        wanted = speech_options({**given, "max_new_tokens": 20})
        together = decode_windows(model, memory, [prompt] * 3, wanted)
        alone = [decode_windows(model, memory[i : i + 1], [prompt], wanted)[0] for i in range(3)]
        assert [one.tokens for one in together] == [one.tokens for one in alone]


@torch.inference_mode()
def test_so_many_new_tokens_and_no_more(pair, window):
    wanted = speech_options({"max_new_tokens": 7, "times": False, "suppress_blank": False})
    prompt = pair[1].config.layout.prompt("en", "transcribe", False)
    assert len(decode_windows(pair[1], window[1], [prompt], wanted)[0].tokens) == 7


# -- the vocabulary --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vocabulary", "languages", "name"),
    [(51864, 99, "gpt2"), (51865, 99, "multilingual"), (51866, 100, "multilingual")],
)
def test_the_layout_is_openais(vocabulary, languages, name):
    from whisper.tokenizer import get_encoding

    multilingual = vocabulary > 51864
    layout = Layout(vocabulary, languages, 1500, multilingual)
    theirs = get_encoding(name, languages)._special_tokens
    assert dict(zip(layout.names(30), range(layout.end, vocabulary))) == theirs
    for attribute, spelling in {
        "start": "<|startoftranscript|>",
        "translate": "<|translate|>",
        "transcribe": "<|transcribe|>",
        "text_only": "<|startoflm|>",
        "previous": "<|startofprev|>",
        "no_speech": "<|nospeech|>",
        "no_times": "<|notimestamps|>",
        "first_time": "<|0.00|>",
    }.items():
        assert getattr(layout, attribute) == theirs[spelling]


def test_prompts_and_forbidden_tokens_are_openais(pair):
    from whisper.decoding import DecodingOptions, DecodingTask
    from whisper.tokenizer import get_tokenizer

    layout, tokenizer = pair[1].config.layout, pair[1].tokenizer
    theirs = get_tokenizer(True, language="german", task="translate")
    assert layout.prompt("german", "translate", True) == list(theirs.sot_sequence)
    assert non_speech_tokens(tokenizer) == set(theirs.non_speech_tokens)
    task = DecodingTask(pair[0], DecodingOptions(suppress_tokens="-1,50,77"))
    assert suppressed(layout, tokenizer, [-1, 50, 77]) == list(task._get_suppress_tokens())


def test_text_is_openais(pair):
    from whisper.tokenizer import get_tokenizer

    theirs = get_tokenizer(True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):  # runs of tokens, most of which break characters in the middle
        tokens = torch.randint(0, 51865, (12,), generator=generator).tolist()
        text = [token for token in tokens if token < theirs.eot]
        assert pair[1].text_of(tokens) == theirs.decode(text)


def test_english_models_have_a_prompt_of_one_token():
    layout = Layout(51864, 99, 1500, False)
    assert layout.prompt(None, "transcribe", True) == [layout.start]


def test_languages_by_code_and_name():
    assert language_code("German") == "de" and language_code("burmese") == "my"
    with pytest.raises(ConfigError, match=r"language: 'germann' is none of this model's.*german"):
        language_code("germann")
    with pytest.raises(ConfigError, match="'yue' is none"):
        language_code("yue", Layout(51865, 99, 1500, True).codes)


def test_a_vocabulary_too_small_for_its_special_tokens():
    with pytest.raises(ConfigError, match="1600 tokens leave no text beside 99 languages"):
        _ = Layout(1600, 99, 1500, True).end


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beam": 5}, "beams"),
        ({"temperatures": []}, "at least one"),
        ({"silence": 2.0}, "set words=true"),
        ({"words": True, "times": False}, "need times=true"),
        ({"clips": [3.0, 1.0]}, "must not go back"),
        ({"task": "sing"}, "task"),
    ],
)
def test_impossible_options(given, message):
    with pytest.raises(ConfigError, match=message):
        speech_options(given)


def test_another_models_tokenizer_is_noticed(pair, sound, monkeypatch):
    monkeypatch.setitem(vars(pair[1]), "tokenizer", zoo.tokenizer("byt5"))
    with pytest.raises(DataError, match="writes 50257; it belongs to another model"):
        pair[1].transcribe(sound)
