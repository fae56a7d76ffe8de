"""What Whisper's two formats share: the stacks, the table of sines, the vocabulary's layout."""

from __future__ import annotations

from typing import Any

from zoo.errors import ConfigError

__all__ = ["POSITIONS", "languages_of", "seconds_of", "sines", "stacks"]

POSITIONS = ("sinusoidal", "learned")  # of encoder and decoder
TEXT = 51766  # tokens of the multilingual vocabulary without its languages' own


def languages_of(vocabulary: int) -> dict[str, Any]:
    """Returns our keys for one of the published vocabularies, told by its size."""
    if vocabulary == 51864:
        return {"languages": 99, "multilingual": False}
    if vocabulary in (51865, 51866):
        return {"languages": vocabulary - TEXT, "multilingual": True}
    return {"languages": 0, "multilingual": False}


def stacks(encoder: dict[str, Any], decoder: dict[str, Any], frames: int) -> dict[str, Any]:
    """Returns our two stacks with what every Whisper has: norms before, sines with tensor2tensor's
    frequencies, learned positions."""
    usual = {"kind": "transformer", "placement": "pre", "final_norm": True, "norm": "layer"}
    position = {"kind": "sinusoidal", "spacing": "tensor2tensor"}
    cross = decoder.get("cross_attention") or decoder["attention"]
    return {
        "encoder": {**usual, **encoder, "length": frames, "position": position},
        "decoder": {
            **usual,
            **decoder,
            "causal": True,
            "cross_attention": cross,
            "position": "learned",
        },
    }


def seconds_of(positions: int, hop: int = 160, rate: int = 16000) -> int:
    """Returns how long a window of so many encoder positions is, of two hops each; raises
    ConfigError for a rest."""
    seconds, rest = divmod(positions * 2 * hop, rate)
    if rest or not seconds:
        raise ConfigError(f"{positions} positions of {2 * hop} samples are no whole seconds.")
    return seconds


def sines(config: Any) -> Any:
    """Returns the table that the encoder adds (positions, width), which public files carry."""
    import torch

    from zoo.nn.position import Geometry, SinusoidalPosition

    encoder = config.encoder
    position = SinusoidalPosition(encoder.position[0], Geometry(encoder.width, 1, encoder.width))
    return position.table(torch.arange(encoder.length))
