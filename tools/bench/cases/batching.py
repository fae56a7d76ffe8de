"""Sixteen requests of GPT-2's shape by continuous batching, against one after the other."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from typing import Any

from tools.bench.measure import Bar, Prepared

DOC = "16 requests, prompts of 68 to 188 tokens, 64 new ones, GPT-2 124M: together and one by one"
PEERS = ["one by one"]
COUNT, NEW, PAGE = 16, 64, 16
ALONE = (1, 5, 10, 14)  # the requests that are also run one by one: as long on average as all


def prepare(peers: list[str]) -> Iterator[tuple[str, Prepared]]:
    """Yields one comparison per dtype; tokens and their probabilities agree first."""
    import torch

    import zoo

    torch.manual_seed(0)
    prompts = [torch.randint(0, 50257, (68 + 8 * i,)).tolist() for i in range(COUNT)]
    with tempfile.TemporaryDirectory() as folder:
        zoo.save(zoo.create("gpt2", seed=0), folder)
        for dtype, tolerance in (("fp32", 1e-3), ("bf16", 0.1)):
            model = zoo.load(f"dir:{folder}", dtype=dtype)
            batcher = _batcher(model)  # one for all runs, as a server has it
            found = _together(batcher, prompts)
            for index in ALONE:
                _check(found[index], *_alone(model, prompts[index]), tolerance)
            runs: dict[str, Any] = {"zoo": lambda b=batcher: _time_together(b, prompts)}
            if peers:
                runs[PEERS[0]] = lambda model=model: _time_alone(model, prompts)
            notes = ["CPU ms of a new token: with reading the prompts, and without"]
            bars = [Bar("together / one by one", PEERS[0], "zoo", 5.0, 8.0)] if peers else []
            case = f"GPT-2 124M {dtype}, {COUNT} requests"
            yield case, Prepared(runs, repeats=3, notes=notes, bars=bars)


def _check(found: Any, tokens: list[int], chosen: list[float], tolerance: float) -> None:
    """Compares what was said together and alone: each token, as likely as it was. Where the two say
    another one, both must have been as likely; what follows is no longer comparable."""
    for step, token in enumerate(tokens):
        difference = abs(found.scores[step].chosen - chosen[step])
        assert difference < tolerance, f"token {step} is less likely by {difference} when batched"
        if found.tokens[step] != token:
            assert tolerance > 0.01, "continuous batching changed a token"  # in fp32 none may
            break


def _batcher(model: Any) -> Any:
    from zoo.generation.batching import Batcher
    from zoo.models.text.steps import CausalSteps, page_pool

    pool = page_pool(model, COUNT * 256, PAGE, 1 << 31)
    return Batcher(lambda cache: CausalSteps(model, cache=cache), pool, COUNT)


def _together(runs: Any, prompts: list[list[int]]) -> list[Any]:
    from zoo.generation.batching import Request
    from zoo.generation.schema import options

    wanted = options(max_new_tokens=NEW)
    requests = [runs.submit(Request(prompt, wanted, best=0)) for prompt in prompts]
    runs.run()
    assert runs.pool.used == 0, "a page stayed behind"
    return requests


def _alone(model: Any, prompt: list[int]) -> tuple[list[int], list[float]]:
    import torch

    from zoo.generation.loop import decode
    from zoo.generation.schema import options
    from zoo.models.text.steps import CausalSteps

    chosen: list[float] = []

    def note(tokens: Any, scores: Any) -> Any:
        chosen.append(float(scores.float().log_softmax(-1).max()))
        return scores

    with torch.inference_mode():
        wanted, tokens = options(max_new_tokens=NEW), torch.tensor([prompt])
        return decode(CausalSteps(model), tokens, wanted, (), [note]).tokens[0], chosen


def _time_together(runs: Any, prompts: list[list[int]]) -> dict[str, float]:
    """Returns CPU milliseconds per new token of everything, and of the steps that read no
    prompt."""
    from zoo.generation.batching import Request
    from zoo.generation.schema import options

    start = time.process_time()
    for prompt in prompts:
        runs.submit(Request(prompt, options(max_new_tokens=NEW)))
    decoding, tokens, more = 0.0, 0, True
    while more:
        reads, running, before = bool(runs.waiting), len(runs.running), time.process_time()
        more = runs.step()
        if not reads:
            decoding += time.process_time() - before
            tokens += running
    spent = time.process_time() - start
    return {"ms": 1000 * spent / (COUNT * NEW), "decode ms": 1000 * decoding / tokens}


def _time_alone(model: Any, prompts: list[list[int]]) -> dict[str, float]:
    import torch

    from zoo.generation.loop import stream
    from zoo.generation.schema import options
    from zoo.models.text.steps import CausalSteps

    start, decoding = time.process_time(), 0.0
    with torch.inference_mode():
        for index in ALONE:
            tokens = torch.tensor([prompts[index]])
            pieces = stream(CausalSteps(model), tokens, options(max_new_tokens=NEW))
            int(next(pieces))
            before = time.process_time()
            for token in pieces:
                int(token)
            decoding += time.process_time() - before
    spent, count = time.process_time() - start, len(ALONE)
    return {"ms": 1000 * spent / (count * NEW), "decode ms": 1000 * decoding / (count * (NEW - 1))}
