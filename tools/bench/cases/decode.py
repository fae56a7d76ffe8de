"""Decoding on one thread: GPT-2 124M and T5-small shapes, prefill, framework cost, prompt look-up.

Every engine has the same random weights. Before a number is printed, the tokens of all fp32 engines
are equal and the scores of bf16 and int8 are held against fp32's. The floor is what the machine
needs for the weights alone: every matrix product of a step, by the fastest product found here.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from tools.bench import peers as engines
from tools.bench.floor import Products
from tools.bench.measure import Bar, Prepared

DOC = "decode: ms per token against the machine's floor, transformers, CTranslate2"
PEERS = ["transformers", "ctranslate2"]
PROMPT, NEW = 128, 64


def prepare(peers: list[str]) -> Iterator[tuple[str, Prepared]]:
    """Yields the rows of the table of targets, one comparison after the other."""
    peers = engines.installed(peers)
    with tempfile.TemporaryDirectory() as folder:
        yield from _gpt2(peers, f"{folder}/gpt2")
        yield from _t5(peers, f"{folder}/t5")
    yield from _framework(peers)


# -- GPT-2 -----------------------------------------------------------------------------------------


def _gpt2(peers: list[str], folder: str) -> Iterator[tuple[str, Prepared]]:
    import torch

    import zoo

    model = zoo.create("gpt2", seed=0).eval()
    with torch.no_grad():  # or it would say the last token again for ever
        model.backbone.positions[0].weight.mul_(6)
    zoo.save(model, folder, format="transformers-gpt2")
    zoo.save(model, f"{folder}-zoo")
    model = {d: zoo.load(f"dir:{folder}-zoo", dtype=d) for d in ("fp32", "bf16", "int8")}
    prompt = torch.randint(50257, (PROMPT,), generator=torch.Generator().manual_seed(0)).tolist()
    _check_scores(model, prompt)
    runs = {"zoo": _ours(model["fp32"])}
    bars = [Bar("fp32 decode / GEMV floor", "floor fp32", "zoo", 0.85, 0.95)]
    runs |= {f"zoo {d}": _ours(model[d]) for d in ("bf16", "int8")}
    bars += [Bar("bf16 / our fp32", "zoo", "zoo bf16", 1.4, 1.8)]
    bars += [Bar("int8 / our fp32", "zoo", "zoo int8", 2.5, 3.1)]
    if "transformers" in peers:
        theirs = {d: engines.reference(folder, d) for d in (torch.float32, torch.bfloat16)}
        for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
            runs[f"transformers {name}"] = engines.reference_tokens(theirs[dtype])
        best = "transformers fp32"
        bars += [Bar("fp32 / transformers fp32", best, "zoo", 1.1)]
        bars += [Bar("bf16 / transformers bf16", "transformers bf16", "zoo bf16", 1.6)]
        bars += [Bar("bf16 / transformers fp32", best, "zoo bf16")]
        bars += [Bar("int8 / transformers fp32", best, "zoo int8", 2.6)]
    if "ctranslate2" in peers:
        for name in ("float32", "int8"):
            runs[f"ctranslate2 {name}"] = engines.ctranslate2_tokens(
                engines.ctranslate2_model(folder, name)
            )
        bars += [Bar("fp32 / CTranslate2 fp32", "ctranslate2 float32", "zoo")]
        bars += [Bar("int8 / CTranslate2 int8", "ctranslate2 int8", "zoo int8", 0.8, 1.0)]
    _check_tokens({n: r for n, r in runs.items() if n == "zoo" or "32" in n}, prompt, NEW)
    timed = {name: _per_token(run, prompt) for name, run in runs.items()}
    timed |= {
        f"floor {d}": Products(
            _shapes(m.backbone, m.embedding), d, panels=_panels(m.backbone, m.head)
        ).timed()
        for d, m in model.items()
    }
    bars += [Bar(f"{d} decode / its floor", f"floor {d}", f"zoo {d}") for d in ("bf16", "int8")]
    yield f"GPT-2 124M, prompt {PROMPT}, {NEW} new tokens", Prepared(timed, repeats=5, bars=bars)
    yield from _prefill(model)
    yield from _prompt_cache(model["fp32"], f"{folder}-prompt.safetensors")
    yield from _lookup(model["bf16"], prompt[:24] * 5)


def _prefill(model: dict[str, Any]) -> Iterator[tuple[str, Prepared]]:
    import torch

    for dtype, must, aim in (("fp32", 0.75, 0.85), ("bf16", 0.5, 0.6)):
        tokens = torch.randint(50257, (1, 512))

        def run(dtype=dtype, tokens=tokens) -> None:
            from zoo.models.text.steps import CausalSteps

            with torch.inference_mode():
                CausalSteps(model[dtype]).step(tokens)

        bars = [Bar(f"prefill 512 {dtype} / GEMM floor", "floor", "zoo", must, aim)]
        floor = Products(_shapes(model[dtype].backbone, model[dtype].embedding), dtype, 512)
        timed = {"zoo": run, "floor": floor.timed(per_token=False)}
        yield f"prefill of 512 tokens, {dtype}", Prepared(timed, repeats=5, bars=bars)


def _prompt_cache(model: Any, file: str) -> Iterator[tuple[str, Prepared]]:
    """512 tokens from a file (its check and its copy among the cost) against computing them."""
    import torch

    from zoo.generation.prompts import load_prompt, save_prompt
    from zoo.models.text.steps import CausalSteps

    prompt = torch.randint(50257, (513,)).tolist()
    with torch.inference_mode():
        steps = CausalSteps(model)
        steps.step(torch.tensor([prompt[:512]]))
        save_prompt(file, model, prompt[:512], steps.cache)  # type: ignore[arg-type]
        cache, covered = load_prompt(file, model, prompt)
        last = torch.tensor([prompt[512:]])
        same = torch.equal(steps.step(last), CausalSteps(model, cache=cache).step(last))
    assert covered == 512 and same, "a prompt read from a file changed what follows it"

    def compute() -> None:
        with torch.inference_mode():
            CausalSteps(model).step(torch.tensor([prompt[:512]]))

    timed = {"zoo": lambda: load_prompt(file, model, prompt) and None, "computed": compute}
    bars = [Bar("prompt cache of 512 / computing it", "computed", "zoo", 20.0)]
    yield "prompt cache of 512 tokens, fp32", Prepared(timed, repeats=9, bars=bars)


def _lookup(model: Any, prompt: list[int]) -> Iterator[tuple[str, Prepared]]:
    """A text that repeats itself: the model's own answer, which greedy decoding gives again."""
    import torch

    from zoo.generation.schema import options
    from zoo.generation.speculative import PromptLookup, speculate
    from zoo.models.text.steps import CausalSteps

    def plain(prompt: list[int], count: int) -> list[int]:
        return _ours(model)(prompt, count)

    def look_up(prompt: list[int], count: int) -> list[int]:
        with torch.inference_mode():
            found, _ = speculate(
                CausalSteps(model), prompt, PromptLookup(), options(max_new_tokens=count)
            )
        return found.tokens[0]

    _repeat(model)
    _check_tokens({"zoo": plain, "prompt look-up": look_up}, prompt, NEW)
    timed = {"zoo": _per_token(plain, prompt), "prompt look-up": _per_token(look_up, prompt)}
    bars = [Bar("prompt look-up / plain, bf16", "zoo", "prompt look-up", 2.0, 3.0)]
    yield "prompt look-up on a text that repeats itself, bf16", Prepared(timed, 5, bars=bars)


def _repeat(model: Any) -> None:
    """Takes the positions out, so that what a random model says soon goes round in a circle."""
    import torch

    with torch.no_grad():
        model.backbone.positions[0].weight.zero_()


# -- T5 --------------------------------------------------------------------------------------------


def _t5(peers: list[str], folder: str) -> Iterator[tuple[str, Prepared]]:
    import torch

    import zoo
    from zoo.generation.loop import decode
    from zoo.generation.schema import options
    from zoo.models.text.steps import Seq2SeqSteps

    made = zoo.create("t5-small", seed=0).eval()
    zoo.save(made, folder, format="transformers-t5")
    source = torch.randint(3, 32000, (64,), generator=torch.Generator().manual_seed(1)).tolist()

    def ours(prompt: list[int], count: int) -> list[int]:
        with torch.inference_mode():
            steps = Seq2SeqSteps(made, torch.tensor([source]))
            wanted = options(max_new_tokens=count)
            return decode(steps, torch.tensor([prompt]), wanted).tokens[0]

    runs: dict[str, engines.Decoder] = {"zoo": ours}
    bars = [Bar("T5-small decode / GEMV floor", "floor", "zoo", 0.85, 1.0)]
    if "transformers" in peers:
        model = engines.reference(folder, torch.float32, seq2seq=True)
        runs["transformers"] = engines.reference_tokens(model, source)
        bars += [Bar("T5-small / transformers fp32", "transformers", "zoo")]
    if "ctranslate2" in peers:
        model = engines.ctranslate2_model(folder, "float32", seq2seq=True)
        runs["ctranslate2"] = engines.ctranslate2_tokens(model, source)
        bars += [Bar("T5-small / CTranslate2 fp32", "ctranslate2", "zoo", 0.9, 1.0)]
    _check_tokens(runs, [0], NEW)
    timed = {name: _per_token(run, [0]) for name, run in runs.items()}
    shapes, panels = _shapes(made.decoder, made.embedding), _panels(made.decoder, made.head)
    timed["floor"] = Products(shapes, "fp32", panels=panels).timed()
    yield f"T5-small fp32, source 64, {NEW} new tokens", Prepared(timed, repeats=5, bars=bars)


# -- framework -------------------------------------------------------------------------------------


def _framework(peers: list[str]) -> Iterator[tuple[str, Prepared]]:
    """Twelve layers so narrow that only the framework's own work is left."""
    import zoo

    size = {"depth": 12, "width": 24, "length": 512, "attention.heads": 2}
    keys = {f"backbone.{key}": value for key, value in size.items()}
    model = zoo.create("gpt2", seed=0, vocabulary=64, **keys).eval()
    prompt = list(range(16))
    runs = {"zoo": _ours(model)}
    with tempfile.TemporaryDirectory() as folder:
        zoo.save(model, folder, format="transformers-gpt2")
        if shutil.which("g++"):  # which torch.compile needs
            runs["zoo compiled"] = _ours(zoo.load(f"dir:{folder}", compile=True))
        if "transformers" in peers:
            import torch

            runs["transformers"] = engines.reference_tokens(
                engines.reference(folder, torch.float32)
            )
    _check_tokens(runs, prompt, NEW)
    timed = {name: _per_token(run, prompt) for name, run in runs.items()}
    bars = [Bar("framework cost per token, ms", None, "zoo", 1.2, 0.8)]
    if "zoo compiled" in runs:
        bars += [Bar("compile=True / plain", "zoo", "zoo compiled")]
    yield "framework cost, 12 layers of width 24", Prepared(timed, repeats=9, bars=bars)


# -- common ----------------------------------------------------------------------------------------


def _ours(model: Any) -> engines.Decoder:
    import torch

    from zoo.generation.loop import decode
    from zoo.generation.schema import options
    from zoo.models.text.steps import steps_for

    def tokens(prompt: list[int], count: int) -> list[int]:
        with torch.inference_mode():
            wanted, given = options(max_new_tokens=count), torch.tensor([prompt])
            steps = steps_for(model, given, torch.ones_like(given), wanted)
            return decode(steps, given, wanted).tokens[0]

    return tokens


def _per_token(run: engines.Decoder, prompt: list[int]) -> Callable[[], dict[str, float]]:
    """Returns the cost of a token after the first: a long run less a run of one token."""

    def timed() -> dict[str, float]:
        costs = []
        for count in (1, NEW):
            start = time.process_time()
            run(prompt, count)
            costs.append(time.process_time() - start)
        return {"ms/token": 1e3 * (costs[1] - costs[0]) / (NEW - 1)}

    return timed


def _check_tokens(runs: dict[str, engines.Decoder], prompt: list[int], count: int) -> None:
    expected = runs["zoo"](prompt, count)
    assert len(expected) == count and len(set(expected)) > 1, expected
    for name, run in runs.items():
        found = run(prompt, count)
        assert found == expected, f"{name} decodes {found[:8]} … and zoo {expected[:8]} …"


def _check_scores(model: dict[str, Any], prompt: list[int]) -> None:
    import torch

    with torch.inference_mode():
        scores = {d: m(torch.tensor([prompt])).logits.float() for d, m in model.items()}
    exact = scores["fp32"]
    # random weights' scores lie close together: the best token may change within int8's error
    for dtype, bound, alike in (("bf16", 2e-2, 0.95), ("int8", 3e-2, 0.9)):
        error = float((scores[dtype] - exact).norm() / exact.norm())
        same = float((scores[dtype].argmax(-1) == exact.argmax(-1)).float().mean())
        assert error < bound and same >= alike, (dtype, error, same)


def _shapes(stack: Any, embedding: Any) -> list[tuple[int, int]]:
    """Returns (outputs, inputs) of every product of a decoding step, the tied head's last."""
    found = [tuple(layer.weight.shape) for layer in _products(stack)]
    return [*found, tuple(embedding.table.weight.shape)]


def _panels(stack: Any, head: Any) -> list[Any]:
    """Returns what our kernels read of each of these products' weights; None where it is no copy of
    ours. The model has decoded before."""
    from zoo.nn.native import Panels

    found = []
    for layer in [*_products(stack), head]:
        form = layer.form or getattr(layer, "of_table", None) or layer.beside
        own = getattr(form, "panels", None) or getattr(form, "weight", None)
        found.append(own if isinstance(own, Panels) else None)
    return found


def _products(stack: Any) -> list[Any]:
    from zoo.nn.linear import Linear

    return [
        layer
        for name, layer in stack.named_modules()
        if isinstance(layer, Linear) and not name.endswith("cross_attention.kv")
    ]
