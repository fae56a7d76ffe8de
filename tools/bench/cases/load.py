"""Load ViT-B/16 from a local folder, in fresh processes, above the import of the library."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

from tools.bench.cases.vit import as_transformers
from tools.bench.measure import Prepared, subprocess_cost

DOC = "load ViT-B/16 from a local folder: CPU, wall and peak memory above the library's import"
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
total = sum(float(p.sum()) for p in tensors)  # touches every page
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
print(json.dumps({{"cpu s": cpu, "wall s": wall, "peak MB": status()["VmHWM"] - before["VmRSS"]}}))
"""
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


def prepare(peers: list[str]) -> Iterator[tuple[str, Prepared]]:
    """Yields the one comparison, on the same weights in each library's own layout."""
    import zoo

    model = zoo.create("vit-base-16", seed=0)
    with tempfile.TemporaryDirectory() as folder:
        zoo.save(model, f"{folder}/zoo")
        zoo.save(model, f"{folder}/timm", format="timm-vit")
        as_transformers(model, f"{folder}/transformers")
        runs = {}
        for name in ["zoo", *peers]:
            imports, load = CODE[name]
            code = FRAME.format(imports=imports, load=load.format(folder=folder))
            runs[name] = lambda code=code: subprocess_cost(code)
        yield "load ViT-B/16", Prepared(runs, repeats=5)
