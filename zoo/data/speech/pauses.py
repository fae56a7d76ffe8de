"""Pauses for speech that has none: synthesisers begin at once and hurry from word to word."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zoo.data.speech.utterances import Utterance

__all__ = ["with_pauses"]

BETWEEN = 0.15  # chance of a pause between two words
LEVELS = (-0.5, 2.0)  # of the noise in it, in powers of ten of a 16-bit sample


def with_pauses(one: Utterance, seed: int, longest: float) -> Utterance:
    """Returns the utterance with near silence of up to `longest` seconds before and after it and,
    now and then, between two words; the same for the same seed."""
    rng = np.random.Generator(np.random.PCG64(seed))
    level = 10 ** rng.uniform(*LEVELS)
    cuts = [0, *(int(start * one.rate) for start in one.starts[1:]), len(one.wave)]
    parts: list[np.ndarray] = []
    starts: list[float] = []
    for index, cut in enumerate(cuts):
        outer = index in (0, len(cuts) - 1)
        if outer or rng.random() < BETWEEN:
            count = int(rng.uniform(0, longest) * one.rate)
            parts.append(np.rint(level * rng.standard_normal(count)).astype(np.int16))
        if index < len(cuts) - 1:
            starts.append(sum(map(len, parts)) / one.rate)
            parts.append(one.wave[cut : cuts[index + 1]])
    stop = (sum(map(len, parts)) - len(parts[-1])) / one.rate
    return replace(one, wave=np.concatenate(parts), starts=tuple(starts), stop=stop)
