"""What long sounds cost in memory, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("soundfile", reason="shipped speech is FLAC (extra audio)")
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from Linux's /proc"
)

PROGRAM = """
import json
import numpy as np
import torch
import zoo
from zoo.data.speech.utterances import shipped
from zoo.registry import build, resolve

torch.set_num_threads(1)

def megabytes(what, work):
    '''Returns how much more memory is used at most while something works.'''
    def line(key):
        text = open("/proc/self/status").read().split(key + ":")[1]
        return int(text.split()[0]) / 1024
    open("/proc/self/clear_refs", "w").write("5")  # the peak is from now on
    before = line("VmRSS")
    answer = work()
    return {"what": what, "grown": line("VmHWM") - before, "answer": answer}

spoken = np.concatenate([one.wave for one in shipped("digits")])
found = []
for name in ("conformer-ctc-digits", "conformer-transducer-digits"):
    model = zoo.load(name)
    for seconds in (60, 60, 300):  # the first time is for what is made once
        sound = np.resize(spoken, seconds * 16000)
        hear = lambda: len(model.transcribe((sound, 16000), window=20).words)
        found.append(megabytes(f"{name} {seconds}", hear))
model = zoo.load("conformer-ctc-digits")
for seconds in (10, 20, 160):  # at once: what grows is what there is one of for each token
    sound = np.resize(spoken, seconds * 16000)
    hear = lambda: len(model.transcribe((sound, 16000), window=None).words)
    found.append(megabytes(f"whole {seconds}", hear))
sound = build(resolve("tokenizer", "log-mel"), width=8)
for seconds in (60, 60, 1800):
    silence = np.broadcast_to(np.int16(0), seconds * 16000)  # takes no room
    found.append(megabytes(f"log-mel {seconds}", lambda: list(sound.file(silence).shape)))
print(json.dumps(found))
"""


def test_long_sounds_need_no_more_memory_than_short_ones():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=300
    )
    found = json.loads(done.stdout)
    for _, short, long in zip(*[iter(found)] * 3):
        if "log-mel" in long["what"]:  # the features themselves, openai-whisper's need them whole
            assert long["answer"] == [80, 183000]
            assert long["grown"] <= short["grown"] + 80 * 183000 * 4 / 2**20 + 96, found
        elif "whole" in long["what"]:  # relative scores of 4000 tokens are 512 MB for four heads
            assert long["grown"] <= 256, found
        else:
            assert long["answer"] > 4 * short["answer"] > 0
            assert long["grown"] <= short["grown"] + 80, found
