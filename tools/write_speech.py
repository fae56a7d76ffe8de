"""Writes what of the spoken data is stored: hashes of its shards, and the sample that ships.

Run by hand when a grammar changes: `python -m tools.write_speech` (needs espeakng-loader and
soundfile; half a minute). It does not belong to `make cards`: the audio is data, not a summary.
"""

from __future__ import annotations

import json

import numpy as np

from zoo.data.speech.grammar import GRAMMARS
from zoo.data.speech.utterances import ASSETS, HASHES, SHARD, Utterance, digest, speak

TRAIN, TEST = 8000, 400
RATE = 16000
SHIPPED = {"digits": 48, "commands": 24}
GAP = 160  # samples of silence between two utterances of the file


def main() -> None:
    hashes = {}
    for grammar in GRAMMARS:
        for split, count in (("train", TRAIN), ("test", TEST)):
            spoken = speak(grammar, split, count)
            shards = [spoken[i : i + SHARD] for i in range(0, count, SHARD)]
            hashes[f"{grammar}/{split}"] = [digest(shard) for shard in shards]
        ship(grammar, spoken[: SHIPPED[grammar]])
    HASHES.write_text(json.dumps(hashes, indent=1) + "\n")


def ship(grammar: str, spoken: list[Utterance]) -> None:
    """Writes one file of sound and an index into it."""
    import soundfile
    import torch
    from torchaudio.functional import resample

    index, waves, first = [], [], 0
    for one in spoken:
        wave = torch.from_numpy(one.wave / 32768.0)
        wave = resample(wave, one.rate, RATE).mul(32767).round().clamp(-32768, 32767)
        last = first + len(wave)
        entry = {"text": one.text, "voice": one.voice, "first": first, "last": last}
        index.append({**entry, "starts": list(one.starts)})
        waves += [wave.numpy().astype(np.int16), np.zeros(GAP, np.int16)]
        first = last + GAP
    ASSETS.mkdir(parents=True, exist_ok=True)
    soundfile.write(ASSETS / f"{grammar}.flac", np.concatenate(waves), RATE, subtype="PCM_16")
    lines = ",\n".join(json.dumps(entry) for entry in index)
    (ASSETS / f"{grammar}.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
