"""BERT-base and T5-small as encoders of 8 texts of 128 tokens, on one thread.

Every engine has the same random weights and gives the same hidden states before any is timed. The
floor is what the machine needs for the products with the weights alone, by the fastest way found
here; attention's own products, norms and activations come on top of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from tools.bench import peers as engines
from tools.bench.floor import Products
from tools.bench.measure import Bar, Prepared

DOC = "encode: BERT-base and T5-small, 8 x 128 tokens, fp32 and bf16"
PEERS = ["transformers", "ctranslate2"]
BATCH, LENGTH = 8, 128
FLOOR = {"fp32": 0.85, "bf16": 0.62}  # of the floor that is to be reached
DIFFERENCE = {"fp32": 1e-5, "bf16": 2e-2}  # that is allowed to fp32, of the output's size

Encoder = Callable[[], Any]  # -> hidden states, b n d


def prepare(peers: list[str]) -> Iterator[tuple[str, Prepared]]:
    """Yields a comparison for each model and precision."""
    peers = engines.installed(peers)
    bert = ["bert-base-uncased", "task=embed", "next_sentence=false"]
    bert += ["backbone.norm.eps=1e-5"]  # the only one that CTranslate2 knows
    yield from _models("BERT-base", bert, peers)
    yield from _models("T5-small's encoder", ["t5-small"], peers)


def _models(title: str, node: list[str], peers: list[str]) -> Iterator[tuple[str, Prepared]]:
    import torch

    import zoo

    tokens = torch.randint(1000, 30000, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        made = zoo.create(*node, seed=0).eval()
        zoo.save(made, f"{folder}/zoo")
        zoo.save(made, f"{folder}/hf", format=f"transformers-{node[0].split('-')[0]}")
        exact = None
        for dtype in FLOOR:
            runs = {"zoo": _ours(zoo.load(f"dir:{folder}/zoo", dtype=dtype), tokens)}
            if "transformers" in peers:
                runs |= _transformers(f"{folder}/hf", dtype, tokens)
            if "ctranslate2" in peers and dtype == "fp32":
                runs["ctranslate2"] = engines.ctranslate2_encoder(f"{folder}/hf", tokens)
            exact = _check(runs, dtype, exact)
            yield f"{title}, {BATCH} x {LENGTH}, {dtype}", _prepared(runs, made, dtype)


def _prepared(runs: dict[str, Encoder], made: Any, dtype: str) -> Prepared:
    from zoo.nn.linear import Linear

    stack = getattr(made, "encoder", None) or made.backbone
    shapes = [tuple(m.weight.shape) for m in stack.modules() if isinstance(m, Linear)]
    timed: dict[str, Any] = {name: _timed(run) for name, run in runs.items()}
    floor = Products(shapes, dtype, BATCH * LENGTH, head=False)
    timed["floor"] = floor.timed(per_token=False)
    bars = [Bar(f"{dtype} / GEMM floor", "floor", "zoo", FLOOR[dtype])]
    bars += [Bar(f"{dtype} / {peer}", peer, "zoo", 1.0) for peer in runs if peer != "zoo"]
    notes = []
    if dtype == "bf16":
        notes.append("CTranslate2 has no bf16 for this processor")
    return Prepared(timed, repeats=7, bars=bars, notes=notes)


def _ours(model: Any, tokens: Any) -> Encoder:
    if hasattr(model, "encode"):
        return lambda: model.encode(tokens)
    return lambda: model(tokens).hidden


def _transformers(folder: str, dtype: str, tokens: Any) -> dict[str, Encoder]:
    """Returns it with each attention that it has; no mask, which is its fastest."""
    import torch
    import transformers

    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    found = {}
    for way in ("sdpa", "eager"):
        model = transformers.AutoModel.from_pretrained(
            folder, dtype=kind, attn_implementation=way
        ).eval()
        model = model.get_encoder() if model.config.is_encoder_decoder else model
        found[f"transformers {way}"] = lambda model=model: model(tokens).last_hidden_state
    return found


def _check(runs: dict[str, Encoder], dtype: str, exact: Any) -> Any:
    """Holds every engine's hidden states against ours in fp32, which it returns."""
    import torch

    with torch.inference_mode():
        found = {name: run().float() for name, run in runs.items()}
    exact = found["zoo"] if exact is None else exact
    for name, hidden in found.items():
        if dtype == "bf16":
            error = float((hidden - exact).norm() / exact.norm())
        else:
            error = float((hidden - exact).abs().max() / exact.abs().max())
        assert error < DIFFERENCE[dtype], (name, dtype, error)
    return exact


def _timed(run: Encoder) -> Callable[[], None]:
    import torch

    def timed() -> None:
        with torch.inference_mode():
            run()

    return timed
