"""What OpenAI's client gets is what the model's own verbs give, whole or in pieces, alone or
among others."""

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import torch

from zoo.generation.loop import decode
from zoo.generation.schema import options
from zoo.models.text.steps import CausalSteps

PROMPTS = ["import os", "def f(x):", "class", "for i in range(10):\n    print(", "x"]


def whole(client, prompt, **asked):
    return client.completions.create(model="tiny", prompt=prompt, temperature=0, **asked)


def test_models(client):
    assert [m.id for m in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="'large' is not served here; 'tiny' is"):
        client.models.retrieve("large")


def test_a_completion_is_what_generate_gives(client, tiny):
    found = whole(client, PROMPTS[0], max_tokens=20)
    assert found.choices[0].text == tiny.generate(PROMPTS[0], max_new_tokens=20)
    assert found.choices[0].finish_reason == "length" and found.object == "text_completion"
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (2, 20)
    assert (
        len(tiny.tokenizer.encode(whole(client, PROMPTS[0]).choices[0].text)) > 1
    )  # 16 by default


def test_pieces_make_up_the_whole(client, tiny):
    pieces = list(
        whole(
            client, PROMPTS[1], max_tokens=30, stream=True, stream_options={"include_usage": True}
        )
    )
    assert len(pieces) > 10
    assert "".join(p.choices[0].text for p in pieces[:-1]) == tiny.generate(
        PROMPTS[1], max_new_tokens=30
    )
    assert [p.choices[0].finish_reason for p in pieces[:-1]][-2:] == [None, "length"]
    assert pieces[-1].choices == [] and pieces[-1].usage.completion_tokens == 30


def test_many_at_once_get_what_they_would_alone(client, tiny):
    def ask(index):
        prompt, tokens = PROMPTS[index % len(PROMPTS)], 10 + 7 * (index % 4)
        if index % 2:
            return whole(client, prompt, max_tokens=tokens).choices[0].text
        stream = whole(client, prompt, max_tokens=tokens, stream=True)
        return "".join(piece.choices[0].text for piece in stream)

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(ask, range(24)))
    for index, text in enumerate(found):
        prompt, tokens = PROMPTS[index % len(PROMPTS)], 10 + 7 * (index % 4)
        assert text == tiny.generate(prompt, max_new_tokens=tokens)


def test_several_prompts_and_answers(client, tiny):
    found = client.completions.create(
        model="tiny", prompt=PROMPTS[:2], n=2, max_tokens=8, seed=5, temperature=2.0
    )
    assert [c.index for c in found.choices] == [0, 1, 2, 3]
    for choice in found.choices:
        prompt, seed = PROMPTS[choice.index // 2], 5 + choice.index % 2
        assert choice.text == tiny.generate(prompt, max_new_tokens=8, seed=seed, temperature=2.0)
    assert found.usage.prompt_tokens == sum(len(tiny.tokenizer.encode(p)) for p in PROMPTS[:2])
    tokens = tiny.tokenizer.encode(PROMPTS[0])
    assert whole(client, tokens).choices[0].text == whole(client, PROMPTS[0]).choices[0].text
    assert len(whole(client, [tokens, tokens]).choices) == 2


def test_sampling_options(client, tiny):
    asked = {"temperature": 3.0, "top_p": 0.6, "seed": 3}
    found = client.completions.create(
        model="tiny",
        prompt="x",
        max_tokens=12,
        **asked,
        extra_body={"top_k": 7, "repetition_penalty": 1.3},
    )
    expected = tiny.generate("x", max_new_tokens=12, top_k=7, repetition_penalty=1.3, **asked)
    assert found.choices[0].text == expected
    default = client.completions.create(model="tiny", prompt="x", seed=1)  # temperature 1
    assert default.choices[0].text == tiny.generate("x", max_new_tokens=16, temperature=1.0, seed=1)


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_end_the_answer_and_are_no_part_of_it(client, tiny, stream):
    text = tiny.generate(PROMPTS[2], max_new_tokens=30)
    stop = text[9:12]  # within tokens, wherever they end
    found = whole(client, PROMPTS[2], max_tokens=30, stop=[stop, "\0"], stream=stream)
    pieces = list(found) if stream else [found]
    assert "".join(p.choices[0].text for p in pieces) == text[: text.find(stop)]
    assert pieces[-1].choices[0].finish_reason == "stop"


def test_an_end_token_ends_it(client, tiny, monkeypatch):
    prompt = torch.tensor([tiny.tokenizer.encode("x")])
    with torch.inference_mode():
        (ids,) = decode(CausalSteps(tiny), prompt, options(max_new_tokens=9)).tokens
    monkeypatch.setitem(tiny.config.special, "eos", ids[3])
    found = whole(client, "x", max_tokens=9)
    assert found.choices[0].finish_reason == "stop"
    assert found.usage.completion_tokens == ids.index(ids[3]) + 1
    assert found.choices[0].text == tiny.tokenizer.decode(ids[: ids.index(ids[3])])
    longer = whole(client, "x", max_tokens=9, extra_body={"ignore_eos": True})
    assert longer.usage.completion_tokens == 9


def test_chat(client, tiny):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    expected = tiny.chat(turns, max_new_tokens=12)
    found = client.chat.completions.create(
        model="tiny", messages=turns, max_completion_tokens=12, temperature=0
    )
    assert found.choices[0].message.content == expected
    assert found.choices[0].message.role == "assistant"
    parts = [
        {"role": t["role"], "content": [{"type": "text", "text": t["content"]}]} for t in turns
    ]
    stream = client.chat.completions.create(
        model="tiny", messages=parts, max_tokens=12, temperature=0, stream=True
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == expected
    assert chunks[-1].choices[0].finish_reason == "length"


def test_log_probabilities_are_the_models_own(client, tiny):
    ids = tiny.tokenizer.encode("import os")
    found = whole(client, "import os", max_tokens=3, logprobs=2).choices[0].logprobs
    with torch.inference_mode():
        logs = tiny(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    best = logs.topk(2)
    assert found.token_logprobs[0] == pytest.approx(float(best.values[0]), abs=1e-4)
    assert list(found.top_logprobs[0].values()) == pytest.approx(best.values.tolist(), abs=1e-4)
    assert found.text_offset[0] == 0 and len(found.tokens) == 3
    turns = [{"role": "user", "content": "Hello"}]
    chat = client.chat.completions.create(
        model="tiny", messages=turns, max_tokens=2, temperature=0, logprobs=True, top_logprobs=3
    )
    first = chat.choices[0].logprobs.content[0]
    assert first.token == first.top_logprobs[0].token and len(first.top_logprobs) == 3
    assert bytes(first.bytes).decode(errors="replace") == first.token
