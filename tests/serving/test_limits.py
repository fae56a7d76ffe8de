"""What is too much, or makes no sense, is refused in one sentence and OpenAI's shape; nobody's
pages stay behind."""

import json
import threading
import time

import httpx2
import openai
import pytest

from tests.serving.conftest import client_of
from zoo.cli import main
from zoo.serving.schema import Limits
from zoo.serving.server import running_server


def post(url, body, path="completions", **headers):
    data = json.dumps(body) if isinstance(body, dict) else body
    headers = {"Content-Type": "application/json", **headers}
    return httpx2.post(f"{url}/v1/{path}", content=data, headers=headers)


def until(fact, seconds=5.0):
    """Waits for a fact; returns whether it came true."""
    end = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


HELLO = [{"role": "user", "content": "hi"}]
WRONG = [
    ({"prompt": "x", "max_tokens": 0}, "max_tokens: must be at least 1, got 0."),
    ({"prompt": "x", "max_token": 3}, "Did you mean 'max_tokens'?"),
    ({"prompt": "x", "temperature": "hot"}, "temperature: expected a number"),
    ({"prompt": "x", "temperature": -1}, "temperature: must be at least 0"),
    ({"prompt": "x", "n": 50}, "50 answers are asked for and 16 are possible."),
    ({"prompt": 5}, "prompt: a text, a list of texts"),
    ({"prompt": []}, "prompt: a text, a list of texts"),
    ({"prompt": ""}, "The prompt is empty."),
    ({"prompt": [99999]}, "token 99999 is not in the vocabulary."),
    ({"prompt": [-1]}, "token -1 is not in the vocabulary."),
    ({"prompt": "\ud800"}, "surrogate"),
    ({}, "prompt: must be given"),
    ({"prompt": "x", "stop": [""]}, "stop: at most 16 texts of 1 to 256 characters."),
    ({"prompt": "x", "logit_bias": {"5": 1}}, "logit_bias: this server cannot do it"),
    ({"prompt": "x", "frequency_penalty": 1.5}, "frequency_penalty: this server cannot do it"),
    ({"prompt": "x", "echo": True}, "echo: this server cannot do it"),
    ({"prompt": "x", "max_tokens": 500}, "max_tokens: 500, and after this prompt 255"),
    ({"prompt": "word " * 500}, "tokens and may have 255."),
    ({"messages": []}, "at least one entry"),
    ({"messages": [{"content": "x"}]}, "messages.0.role: must be given"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "reads text only"),
    ({"messages": HELLO, "tools": [{}]}, "tools: this server cannot do it"),
    ({"messages": HELLO, "top_logprobs": 2}, "top_logprobs: it needs logprobs=true."),
    ("[1, 2]", "The body must be a JSON object."),
    ("{", "The body is not JSON."),
    ("[" * 100_000, "The body is not JSON."),
    (b"\xff", "The body is not JSON."),
]


@pytest.mark.parametrize("body,text", WRONG, ids=range(len(WRONG)))
def test_what_makes_no_sense_is_refused_in_one_sentence(server, body, text):
    path = "chat/completions" if isinstance(body, dict) and "messages" in body else "completions"
    found = post(server.url, body, path)
    error = found.json()["error"]
    assert found.status_code == 400 and error["type"] == "invalid_request_error"
    assert text in error["message"] and "\n" not in error["message"]


def test_other_refusals(server):
    url = server.url
    assert post(url, {"prompt": "x", "model": "large"}).status_code == 404
    assert post(url, "x" * (2 << 20)).status_code == 413
    assert post(url, (b"x" * 4096 for _ in range(600))).status_code == 413  # of no stated length
    assert post(url, "{}", **{"Content-Type": "text/plain"}).status_code == 415
    found = httpx2.get(f"{url}/v1/completions")
    assert found.status_code == 405 and "GET /v1/completions" in found.json()["error"]["message"]
    assert httpx2.get(f"{url}/nowhere").status_code == 404
    assert httpx2.get(f"{url}/health").json()["status"] == "ok"


def test_long_prompts_say_so_in_openais_way(client):
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model="tiny", prompt="word " * 500)
    assert error.value.code == "context_length_exceeded"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_pages(server, stream):
    url, service = server.url, server.service
    body = {"prompt": "x", "max_tokens": 255, "stream": stream, "ignore_eos": True}
    with (
        pytest.raises(httpx2.ReadTimeout) if not stream else httpx2.Client() as client,
    ):
        if stream:
            with client.stream("POST", f"{url}/v1/completions", json=body) as found:
                next(found.iter_lines())
        else:
            httpx2.post(f"{url}/v1/completions", json=body, timeout=0.02)
    assert until(lambda: not service.open)
    assert until(lambda: service.engine.counts()["running"] == 0, 1.0)
    counts = service.engine.counts()
    assert counts["pages_used"] == counts["pages_kept"]


@pytest.fixture
def slow(tiny, monkeypatch):
    """A server of one at a time and three in all, that stops before each step until told to go."""
    gate = threading.Event()
    with running_server(tiny, "tiny", Limits(running=1, requests=3, grace=1, keep=0)) as found:
        step = found.service.engine.batcher.step
        monkeypatch.setattr(found.service.engine.batcher, "step", lambda: gate.wait(10) and step())
        yield found.url, found.service, gate
        gate.set()


def test_more_than_there_is_room_for_is_told_to_come_back(slow):
    url, service, gate = slow
    answers = []
    body = {"prompt": "x", "max_tokens": 5}
    threads = [threading.Thread(target=lambda: answers.append(post(url, body))) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert until(lambda: len(service.open) == 3)
    refused = post(url, body)
    assert refused.status_code == 429 and int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["error"]["type"] == "rate_limit_error"
    with pytest.raises(openai.RateLimitError):
        client_of(url).completions.create(model="tiny", prompt="x")
    gate.set()
    for thread in threads:
        thread.join(10)
    assert [a.status_code for a in answers] == [200] * 3
    assert until(lambda: service.engine.counts()["pages_used"] == 0)


def test_an_answer_may_not_take_for_ever(tiny, monkeypatch):
    gate = threading.Event()
    with running_server(tiny, "tiny", Limits(seconds=0.2, grace=1)) as server:
        url, service = server.url, server.service
        monkeypatch.setattr(service.engine.batcher, "step", lambda: gate.wait(5))
        found = post(url, {"prompt": "x"})
        assert found.status_code == 504 and "longer than 0.2 s" in found.json()["error"]["message"]
        with pytest.raises(openai.APIError, match=r"longer than 0\.2 s"):
            list(client_of(url).completions.create(model="tiny", prompt="x", stream=True))
        gate.set()
        assert until(lambda: not service.open)


def test_a_failing_step_is_told_to_those_in_it_and_the_server_goes_on(tiny, monkeypatch, capfd):
    with running_server(tiny, "tiny", Limits(grace=1)) as server:
        url, service = server.url, server.service
        with monkeypatch.context() as patch:
            patch.setattr(service.engine.batcher, "_join", lambda: 1 / 0)
            found = post(url, {"prompt": "x"})
        assert found.status_code == 500 and found.json()["error"]["type"] == "server_error"
        assert "ZeroDivisionError" in capfd.readouterr().err
        assert post(url, {"prompt": "x", "temperature": 0}).json()["choices"][0][
            "text"
        ] == tiny.generate("x", max_new_tokens=16)
        assert service.engine.counts()["running"] == 0


def test_a_key_is_asked_for_when_there_is_one(tiny):
    with running_server(tiny, "tiny", Limits(grace=1), key="secret") as server:
        url = server.url
        assert post(url, {"prompt": "x"}).status_code == 401
        assert httpx2.get(f"{url}/v1/models").status_code == 401
        assert post(url, {"prompt": "x"}, Authorization="Bearer wrong").status_code == 401
        assert post(url, {"prompt": "x"}, Authorization="Bearer secret").status_code == 200
        assert httpx2.get(f"{url}/health").status_code == 200


def test_a_model_without_a_chat_template_says_so(tiny, monkeypatch):
    monkeypatch.setattr(tiny.tokenizer, "chat_template", None)
    with running_server(tiny, "tiny", Limits(grace=1)) as server:
        found = post(server.url, {"messages": HELLO}, "chat/completions")
        assert found.status_code == 400 and "no chat template" in found.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("numbers-en-de", "seq2seq"), ("bert-stdlib", "masked-lm"), ("llava-digits", "vision-lang")],
)
def test_other_models_than_decoders_are_refused(name, kind, capsys):
    assert main(["serve", name, "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert f"'{name}' is a {kind}" in said and said.count("\n") == 1
