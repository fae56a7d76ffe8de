"""The same random weights in openai-whisper and here, with its vocabulary."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import zoo
from zoo.models.whisper.layout import Layout
from zoo.tokenizers.text.reading import read_tokenizer


def reference(vocabulary: int = 51865, seed: int = 0, **sizes: int):
    """An openai-whisper model whose random weights write many times and little of the same."""
    from whisper.model import ModelDimensions, Whisper

    dims = {
        "n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 64, "n_audio_head": 2,
        "n_audio_layer": 2, "n_vocab": vocabulary, "n_text_ctx": 448, "n_text_state": 64,
        "n_text_head": 2, "n_text_layer": 2,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Whisper(ModelDimensions(**{**dims, **sizes})).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "positional" in name:
                    parameter.copy_(torch.randn_like(parameter) * 0.3)
                elif "token_emb" in name:
                    parameter.mul_(0.1)
                elif parameter.ndim > 1:
                    parameter.mul_(2.0)
    return model


def checkpoint(model) -> dict:
    return {"dims": dataclasses.asdict(model.dims), "model_state_dict": model.state_dict()}


def vocabulary_of(name: str, layout: Layout):
    """Our tokenizer of one of openai-whisper's own files."""
    import whisper

    names = layout.names(30)
    special = {"bos": names[0], "eos": names[0], "extra": names}
    file = Path(whisper.__file__).parent / "assets" / f"{name}.tiktoken"
    return read_tokenizer(file, {"special": special})


@pytest.fixture(scope="session")
def multilingual(tmp_path_factory):
    """A folder with the multilingual vocabulary."""
    folder = tmp_path_factory.mktemp("multilingual")
    vocabulary_of("multilingual", Layout(51865, 99, 1500, True)).save(folder)
    return folder


@pytest.fixture(scope="session")
def pair(multilingual):
    """(openai-whisper's model, ours), loaded from a checkpoint as OpenAI writes it."""
    model = reference()
    torch.save(checkpoint(model), multilingual / "tiny.pt")
    return model, zoo.load(f"dir:{multilingual}", allow_pickle=True)


@pytest.fixture(scope="session")
def sound() -> torch.Tensor:
    """80 s of noise that comes and goes."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(80 * 16000) / 16000
    return torch.randn(len(time), generator=generator) * 0.1 * (torch.sin(2 * time) > 0)
