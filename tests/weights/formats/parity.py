"""What the parity tests share: random models of transformers, how far outputs are apart,
exports."""

import json
from pathlib import Path

import pytest
import torch

import zoo
from zoo.weights.formats import format_for

transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TOLERANCE = 1e-5  # of the output's scale, in fp32
PADDINGS = {"left": [[0] * 4 + [1] * 7, [1] * 11], "right": [[1] * 7 + [0] * 4, [1] * 11]}


def random_weights(model, seed=0):
    """Gives a model weights that make every part of it matter; returns it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "embed_positions" in key:
                continue  # sines, which FSMT counts among its parameters
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                scales = "norm" in key.lower() and key.endswith("weight")
                parameter.copy_(0.3 * noise + (1.0 if scales else 0.0))
            elif "embed" in key or "shared" in key:
                parameter.copy_(noise * 0.5)
            else:
                parameter.copy_(noise * 1.2 / max(parameter.shape) ** 0.5)
            if key.endswith("Attention.q.weight"):  # T5 does not scale its scores
                parameter *= model.config.d_kv**-0.5
    return model.eval()


def random_tokens(vocabulary, batch=2, length=11, seed=0):
    """Returns tokens without special ones among them (0 to 4)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, vocabulary, (batch, length), generator=generator)


def distance(found, expected):
    """The largest difference, in units of the output's scale."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def relative(found, exact):
    """The norm of the difference over the norm."""
    return float((found.float() - exact).norm() / exact.norm())


def tensors(folder):
    """The tensors of a saved folder, by name."""
    from safetensors.torch import load_file

    return load_file(Path(folder) / "model.safetensors")


def rewrite(folder, change, to, **config):
    """Writes a saved folder again with `change` applied to its tensors; returns the new folder."""
    from safetensors.torch import save_file

    to.mkdir(exist_ok=True)
    content = json.loads((Path(folder) / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**content, **config}))
    kept = {name: tensor.clone().contiguous() for name, tensor in change(tensors(folder)).items()}
    save_file(kept, to / "model.safetensors", metadata={"format": "pt"})
    return to


def export(model, saved, to, without=()):
    """Writes what was loaded from `saved` in its format again: the same names but those `without`,
    the same bits."""
    content = json.loads((Path(saved) / "config.json").read_text())
    zoo.save(model, to, format=format_for(content).name)
    theirs, ours = tensors(saved), tensors(to)
    assert ours.keys() == {key for key in theirs if not key.endswith(tuple(without) or "\n")}
    assert all(torch.equal(theirs[key], ours[key]) for key in ours)
    again = zoo.load(f"dir:{to}")
    state, back = model.state_dict(), again.state_dict()
    assert state.keys() == back.keys() and all(torch.equal(state[k], back[k]) for k in state)
    return to


def parameters(model):
    """How many numbers a model has, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def refuses(folder, key, value):
    """Whether a config is refused for one key, by its name."""
    content = json.loads((Path(folder) / "config.json").read_text())
    chosen = format_for(content)
    with pytest.raises(zoo.errors.ConfigError, match=f"{key!r}"):
        chosen.read_config({**content, key: value}, frozenset())
    return True


def clip_words(folder, length):
    """A tokenizer of CLIP's way with words, its vocabulary bytes alone; and how many they are."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(code) for code in kept] + [chr(256 + i) for i in range(256 - len(kept))]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(exist_ok=True)
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({piece: index for index, piece in enumerate(pieces)}))
    merges.write_text("#version: 0.2\n")
    made = transformers.CLIPTokenizer(str(vocabulary), str(merges), model_max_length=length)
    return made, len(pieces)
