"""What is no speech: pauses for sentences that have none (synthesisers begin at once and hurry from
word to word), and clips in which nothing is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zoo.data.speech.utterances import Utterance

__all__ = ["spread", "with_pauses", "without_speech"]

BETWEEN = 0.15  # chance of a pause between two words
LEVELS = (-0.5, 2.0)  # of the noise in it, in powers of ten of a 16-bit sample
LOUD = 3.5  # of the noise in clips that hold nothing else, at most
COLOURS = (0.0, 2.0)  # of that noise: its power falls with frequency to this power (white to brown)
LENGTHS = (0.3, 4.0)  # seconds of such a clip


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


def spread(index: int, share: float) -> bool:
    """Returns whether this one of a row is among an evenly spread share of it."""
    return int((index + 1) * share) > int(index * share)


def without_speech(seed: int, rate: int) -> Utterance:
    """Returns a clip of noise, white to brown, from inaudible to loud, in which nothing is said;
    the same for the same seed."""
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    count = int(rng.uniform(*LENGTHS) * rate)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency = np.maximum(np.arange(len(spectrum)), 1)
    noise = np.fft.irfft(spectrum * frequency ** (-rng.uniform(*COLOURS) / 2), count)
    noise *= 10 ** rng.uniform(LEVELS[0], LOUD) / noise.std()
    wave = np.rint(noise).clip(-32768, 32767).astype(np.int16)
    return Utterance("", "", rate, wave, (), 0.0)
