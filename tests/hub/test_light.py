"""Importing the hub costs nothing that listing models would have to pay."""

import subprocess
import sys


def test_the_client_imports_nothing_heavy():
    script = (
        "import sys, zoo.hub.client, zoo.hub.server, zoo.hub.card, zoo.hub.config; "
        "print(*[m for m in ('huggingface_hub', 'httpx2', 'yaml', 'safetensors', 'numpy', 'torch', "
        "'hydra', 'hf_xet', 'tqdm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split() == []


def test_what_is_here_already_is_found_without_the_client(hub, make_model):
    from zoo.hub.client import pull, push

    oid = push(make_model(), "acme/m").oid
    folder = pull("acme/m")
    script = (
        f"import sys; from zoo.hub.client import pull; print(pull('acme/m', {oid!r})); "
        "print('huggingface_hub' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == [str(folder), "False"]
