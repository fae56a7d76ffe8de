"""Speech: recognisers of spoken digits, what they hear in the sound that ships, and when."""

# n samples, t frames, m features

from __future__ import annotations

import time
from typing import Any

import numpy as np

from zoo import plot
from zoo.demo import page
from zoo.demo.gallery import Gallery

TITLE = "Speech"
SHOWN = 6  # utterances with a picture of their own


def shows(config: Any) -> bool:
    """Whether this is a recogniser of the spoken digits that ship."""
    if config.zoo_kind == "whisper":
        return any(tag.folder for tag in config.weights.values())
    return config.zoo_kind in ("ctc", "transducer") and config.vocabulary == 29


def show(name: str, model: Any, gallery: Gallery) -> list[str]:
    """Transcribes every shipped string of digits; shows some with their waveform, spectrogram and
    the times of their words."""
    from zoo.data.speech.utterances import shipped
    from zoo.training.speech.common import edits

    spoken = shipped("digits")
    start = time.perf_counter()
    asked = {"words": True} if model.config.zoo_kind == "whisper" else {}  # others have them anyway
    found = model.transcribe([(one.wave, one.rate) for one in spoken], **asked)
    seconds = time.perf_counter() - start
    length = sum(one.seconds for one in spoken)
    words = sum(len(one.text.split()) for one in spoken)
    wrong = sum(edits(o.text.split(), t.text.split()) for o, t in zip(spoken, found))
    late = [
        abs(word.start - begun)
        for one, heard in zip(spoken, found)
        if one.text == heard.text
        for word, (_, begun, _) in zip(heard.words, one.words)
    ]
    error = 1000 * float(np.mean(late)) if late else float("nan")
    gallery.say(
        f"  transcribed {length:.0f} s of synthetic speech by voices that training never heard, in "
        f"{seconds:.1f} s"
    )
    gallery.say(
        f"  {wrong} of {words} words wrong; words begin {error:.0f} ms off where they were made"
    )
    longest = sorted(range(len(spoken)), key=lambda i: -len(spoken[i].text))[:SHOWN]
    figures = []
    for index in longest:
        one, heard = spoken[index], found[index]
        gallery.say(f"  {one.voice}: {heard.text}")
        features, _ = model.sound.preprocess((one.wave, one.rate))
        image = plot.speech(one.wave, one.rate, features[0], heard.words)
        said = "" if heard.text == one.text else f"; it was: {one.text}"
        caption = f"{one.voice}, {one.seconds:.1f} s{said}"
        figures.append(page.figure(gallery.picture(image, f"{name}/speech-{index}"), caption))
    return [
        page.facts(
            [
                ("parameters", f"{sum(p.numel() for p in model.parameters()):,}"),
                ("speech", f"{length:.0f} s"),
                ("words wrong", f"{wrong} of {words}"),
                ("times faster than speech", f"{length / seconds:.0f}"),
                ("word starts, mean error", f"{error:.0f} ms"),
            ]
        ),
        page.text(
            "The voices are espeak-ng's, and none of these was heard in training. Above the "
            "waveform, below the features that the model reads, and the words where it heard them."
        ),
        *figures,
    ]
