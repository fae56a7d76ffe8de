"""Conformer-L (FastConformer, tokens of 80 ms) on 30 s of features, against Parakeet in
transformers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial

from tools.bench.measure import Prepared

DOC = "Conformer-L encoder on 30 s of speech, fp32 and bf16, against Parakeet in transformers"
PEERS = ["transformers"]
FRAMES = 3000
LAYERS = 17


def prepare(peers: list[str]) -> Iterator[tuple[str, Prepared]]:
    """Yields one comparison per dtype; the outputs agree before anything is timed."""
    import torch

    import zoo

    with tempfile.TemporaryDirectory() as folder:
        model = zoo.create("fastconformer-ctc-large", f"backbone.depth={LAYERS}", seed=0)
        zoo.save(model, folder, format="transformers-parakeet-ctc")
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 5e-2)):
            name = str(dtype).removeprefix("torch.")
            ours = zoo.load(f"dir:{folder}", dtype=dtype)
            features = torch.randn(1, FRAMES, 80, generator=torch.Generator().manual_seed(0))
            runs = {"zoo": partial(_ours, ours, features.to(dtype))}
            for peer in peers:
                runs[peer] = partial(_theirs, _peer(peer, folder, dtype), features.to(dtype))
            expected = runs["zoo"]().float()
            for peer, run in runs.items():
                difference = (run().float() - expected).abs().max() / expected.abs().max()
                assert difference < tolerance, (peer, dtype, difference)
            timed = {who: partial(_silent, run) for who, run in runs.items()}
            yield f"Conformer-L x8, 30 s, {name}", Prepared(timed, repeats=5)


def _peer(name: str, folder: str, dtype):
    from transformers import ParakeetForCTC

    return ParakeetForCTC.from_pretrained(folder, dtype=dtype).eval()


def _ours(model, features):
    import torch

    with torch.inference_mode():
        return model.encode(features)[0]


def _theirs(model, features):
    import torch

    with torch.inference_mode():
        return model.encoder(features).last_hidden_state


def _silent(run) -> None:
    run()
