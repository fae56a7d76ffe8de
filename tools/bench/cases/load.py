"""Load ViT-B/16 and GPT-2 from a local folder, in fresh processes.

ViT-B/16: above the import of each library and its classes, until every weight has been read. GPT-2:
the first load of a program, until it could call the model: above `import torch` for us, above
`import torch, transformers` for transformers, whose classes come when they are asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator

from tools.bench import peers as engines
from tools.bench.cases.vit import as_transformers
from tools.bench.measure import Bar, Prepared, subprocess_cost

DOC = "load ViT-B/16 and GPT-2 from a local folder: CPU, wall and peak memory"
PEERS = ["safetensors", "timm", "transformers"]
FRAME = """
import json, time
def status():
    with open("/proc/self/status") as f:
        return {{k: int(v.split()[0]) / 1000 for k, v in (l.split(":", 1) for l in f if
        l.startswith(("VmRSS", "VmHWM", "RssAnon")))}}
{imports}
before = status(); cpu, wall = time.process_time(), time.perf_counter()
{load}
{use}
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
print(json.dumps({{"cpu s": cpu, "wall s": wall, "peak MB": status()["VmHWM"] - before["VmRSS"]}}))
"""
TOUCH = "total = sum(float(p.sum()) for p in tensors)  # every page"
CODE = {
    "zoo": (
        "import torch, zoo, zoo.api.build, zoo.weights.load, zoo.models.base, zoo.models.vit.model",
        "tensors = list(zoo.load('dir:{folder}/zoo').parameters())",
    ),
    "safetensors": (
        "import torch; from safetensors import safe_open",
        "f = safe_open('{folder}/zoo/model.safetensors', 'pt')\n"
        "tensors = [f.get_tensor(k).clone() for k in f.keys()]",
    ),
    "timm": (
        "import torch, timm",
        "tensors = list(timm.create_model('vit_base_patch16_224', "
        "checkpoint_path='{folder}/timm/model.safetensors').parameters())",
    ),
    "transformers": (
        "import torch; from transformers import ViTForImageClassification as V",
        "tensors = list(V.from_pretrained('{folder}/transformers').parameters())",
    ),
}


GPT2 = {
    "zoo": ("import torch", "import zoo; model = zoo.load('dir:{folder}')"),
    "transformers": (
        "import torch, transformers",
        "model = transformers.GPT2LMHeadModel.from_pretrained('{folder}')",
    ),
}


def prepare(peers: list[str]) -> Iterator[tuple[str, Prepared]]:
    """Yields both comparisons, on the same weights for every library."""
    import zoo

    model = zoo.create("vit-base-16", seed=0)
    with tempfile.TemporaryDirectory() as folder:
        zoo.save(model, f"{folder}/zoo")
        zoo.save(model, f"{folder}/timm", format="timm-vit")
        as_transformers(model, f"{folder}/transformers")
        runs = {name: _run(*CODE[name], folder, TOUCH) for name in ["zoo", *peers]}
        yield "load ViT-B/16", Prepared(runs, repeats=5)
    with tempfile.TemporaryDirectory() as folder:
        yield _gpt2(peers, folder)


def _gpt2(peers: list[str], folder: str) -> tuple[str, Prepared]:
    """Loads the public layout, whose matrices lie transposed, as both libraries read it."""
    import torch

    import zoo

    model = zoo.create("gpt2", seed=0).eval()
    zoo.save(model, folder, format="transformers-gpt2")
    weights = sum(p.nbytes for p in model.parameters()) / 1e6
    bars = [
        Bar("CPU s above import torch", None, "zoo", 0.25, 0.1),
        Bar("peak MB before the first forward", None, "zoo", weights + 80, 80, "peak MB"),
    ]
    runs = {"zoo": _run(*GPT2["zoo"], folder)}
    if "transformers" in peers:
        tokens = torch.arange(16)[None]
        with torch.inference_mode():
            ours = zoo.load(f"dir:{folder}")(tokens).logits
            theirs = engines.reference(folder, torch.float32)(tokens).logits
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
        runs["transformers"] = _run(*GPT2["transformers"], folder)
        bars.append(Bar("first load / transformers", "transformers", "zoo", 8.0))
    return "load GPT-2", Prepared(runs, repeats=5, bars=bars)


def _run(imports: str, load: str, folder: str, use: str = "") -> Callable[[], dict[str, float]]:
    code = FRAME.format(imports=imports, load=load.format(folder=folder), use=use)
    return lambda: subprocess_cost(code)
