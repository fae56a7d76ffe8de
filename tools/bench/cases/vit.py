"""ViT-B/16 forward, batch 8, fp32 and bf16, against the same weights in timm and transformers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial

from tools.bench.measure import Prepared, gemm_peak

DOC = "ViT-B/16 forward, batch 8, fp32 and bf16"
PEERS = ["timm", "transformers"]
BATCH = 8


def prepare(peers: list[str]) -> Iterator[tuple[str, Prepared]]:
    """Yields one comparison per dtype; the outputs of all contenders agree before any is timed."""
    import torch

    import zoo

    ours = zoo.create("vit-base-16", seed=0).eval()
    with tempfile.TemporaryDirectory() as folder:
        models = {"zoo": ours, **{peer: _peer(peer, ours, f"{folder}/{peer}") for peer in peers}}
    pixels = torch.randn(BATCH, 3, 224, 224)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
        runs = {}
        with torch.inference_mode():
            for name, model in models.items():
                model.to(dtype)
                runs[name] = partial(_logits, model, pixels.to(dtype))
            expected = runs["zoo"]().float()
            for name, run in runs.items():
                difference = (run().float() - expected).abs().max() / expected.abs().max()
                assert difference < tolerance, (name, dtype, difference)
        timed = {name: _inference(run) for name, run in runs.items()}
        rows = BATCH * 197
        flops = 2 * rows * 12 * 12 * 768 * 768 + 4 * BATCH * 12 * 197 * 197 * 768
        peak = max(gemm_peak(dtype, rows, 768, 3072), gemm_peak(dtype, rows, 3072, 768))
        title = f"ViT-B/16 batch {BATCH} {str(dtype).split('.')[1]}"
        yield title, Prepared(timed, flops=flops, peak=peak)


def _peer(name: str, ours, folder: str):
    import zoo

    if name == "timm":
        import timm
        from safetensors.torch import load_file

        zoo.save(ours, folder, format="timm-vit")
        model = timm.create_model("vit_base_patch16_224")
        model.load_state_dict(load_file(f"{folder}/model.safetensors"))
        return model.eval()
    from transformers import ViTForImageClassification

    as_transformers(ours, folder)
    return ViTForImageClassification.from_pretrained(folder, attn_implementation="sdpa").eval()


def as_transformers(ours, folder: str) -> None:
    """Saves the same weights in a layout whose interpolation of positions has no antialiasing, and
    whose pictures are cropped by whole pixels."""
    import zoo

    changes = ("backbone.position.antialias=false", "tokenizer.crop=1")
    other = zoo.create("vit-base-16", *changes, device="meta")
    other.load_state_dict(ours.state_dict(), assign=True)
    zoo.save(other, folder, format="transformers-vit")


def _logits(model, x):
    out = model(x)
    return getattr(out, "logits", out)


def _inference(run):
    import torch

    def timed() -> None:
        with torch.inference_mode():
            run()

    return timed
