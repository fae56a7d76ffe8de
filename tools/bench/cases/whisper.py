"""Whisper: 30 s of sound and 100 greedy tokens, tiny and base, random weights of one seed.

fp32 beside openai-whisper and transformers; bf16 beside openai-whisper, which has none for CPUs;
int8 beside CTranslate2's. The fp32 tokens are the same everywhere before anything is timed. Of bf16
and int8 it is counted how many of the next tokens are fp32's where the text before them is (with
random weights, near ties are many): at least nine of ten, ours as CTranslate2's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tools.bench.measure import Bar, Prepared

DOC = "Whisper tiny and base, 30 s and 100 greedy tokens, fp32, bf16 and int8"
PEERS = ["openai", "transformers", "ctranslate2"]
TOKENS = 100
LIKE_FP32 = 0.9  # share of the next tokens that a lower precision must leave as they are


def prepare(peers: list[str]) -> Iterator[tuple[str, Prepared]]:
    """Yields one comparison per size and precision."""
    import torch

    for size in ("tiny", "base"):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            _write(size, place)
            features = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
            yield from _comparisons(size, place, features, peers)


def _comparisons(
    size: str, place: Path, features: Any, peers: list[str]
) -> Iterator[tuple[str, Prepared]]:
    makers = {"openai": _openai, "transformers": _transformers}
    ours = _zoo(place, "fp32", features)
    runs = {"zoo": ours} | {p: makers[p](place, features) for p in peers if p in makers}
    bars = {"openai": Bar("fp32 to openai", "openai", "zoo", 1 / 0.95)}
    bars["transformers"] = Bar("fp32 to transformers", "transformers", "zoo", 1 / 0.85)
    expected = ours()
    for name, run in runs.items():
        found = run()
        assert found == expected, (name, found[:10], expected[:10])
    yield f"whisper-{size} fp32", _prepared(runs, [bars[p] for p in runs if p in bars])
    peer = {n: runs[n] for n in runs if n == "openai"}
    bar = [Bar("bf16 to openai in fp32", n, "zoo", 1 / 0.6) for n in peer]
    runs = {"zoo": _zoo(place, "bf16", features)} | peer
    like = _alike(place, "bf16", features, expected)
    yield f"whisper-{size} bf16", _prepared(runs, bar, like)
    if "ctranslate2" in peers:
        runs = {"zoo": _zoo(place, "int8", features), "ctranslate2": _ctranslate2(place, features)}
        theirs = runs["ctranslate2"]()[:TOKENS]
        same = sum(a == b for a, b in zip(theirs, expected, strict=False))
        like = [
            *_alike(place, "int8", features, expected),
            f"CTranslate2, left alone: {same} of {len(theirs)} as fp32 (after a first other token "
            "all may differ)",
        ]
        bar = [Bar("int8 to CTranslate2", "ctranslate2", "zoo", 1.0)]
        yield f"whisper-{size} int8", _prepared(runs, bar, like)


def _prepared(runs: dict[str, Any], bars: list[Bar], notes: Sequence[str] = ()) -> Prepared:
    timed = {name: _timed(run) for name, run in runs.items()}
    return Prepared(timed, repeats=5, notes=list(notes), bars=bars)


def _alike(place: Path, dtype: str, features: Any, expected: list[int]) -> list[str]:
    """Returns how far a precision agrees with fp32, in words; raises AssertionError where it does
    not."""
    import torch

    import zoo

    scores = {}
    for kind in ("fp32", dtype):
        model = zoo.load(f"dir:{place / 'zoo'}", dtype=kind)
        prompt = model.config.layout.prompt("en", "transcribe", False)
        sound = features.to(model.sound.conv1.weight.dtype)
        tokens = torch.tensor([[*prompt, *expected[:-1]]])
        with torch.inference_mode():
            logits = model(sound, tokens).logits[0, len(prompt) - 1 :].float()
        scores[kind] = logits.log_softmax(-1)
    same = int((scores["fp32"].argmax(-1) == scores[dtype].argmax(-1)).sum())
    assert same >= LIKE_FP32 * len(expected), (dtype, same)
    said = torch.tensor(expected)[:, None]
    apart = (scores[dtype].gather(1, said) - scores["fp32"].gather(1, said)).abs()
    return [
        f"{same} of {len(expected)} next tokens as in fp32, after the same text; their "
        f"log-probabilities are {float(apart.mean()):.2g} apart on average"
    ]


def _write(size: str, place: Path) -> None:
    """Writes one model in the layouts of all contenders, with openai-whisper's vocabulary."""
    import torch
    import whisper

    import zoo
    from zoo.tokenizers.text.reading import read_tokenizer

    model = zoo.create(f"whisper-{size}", seed=0)
    with torch.no_grad():  # so that a token follows from what was heard and written
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "table" not in name:
                parameter.mul_(2.0)
    names = model.config.layout.names(30)
    special = {"bos": names[0], "eos": names[0], "unk": names[0], "pad": names[0], "extra": names}
    assets = Path(whisper.__file__).parent / "assets"
    tokenizer = read_tokenizer(assets / "multilingual.tiktoken", {"special": special})
    zoo.save(model, place / "zoo")
    for format in ("transformers-whisper", "openai-whisper"):
        zoo.save(model, place / format, format=format)
    tokenizer.save(place / "transformers-whisper")


def _zoo(place: Path, dtype: str, features: Any) -> Any:
    import torch

    import zoo
    from zoo.generation.loop import decode
    from zoo.generation.schema import DecodingOptions
    from zoo.models.text.steps import Seq2SeqSteps

    model = zoo.load(f"dir:{place / 'zoo'}", dtype=dtype)
    prompt = torch.tensor([model.config.layout.prompt("en", "transcribe", False)])
    options = DecodingOptions(max_new_tokens=TOKENS)
    sound = features.to(model.sound.conv1.weight.dtype)

    def run() -> list[int]:
        with torch.inference_mode():
            return decode(Seq2SeqSteps(model, sound), prompt, options).tokens[0]

    return run


def _openai(place: Path, features: Any) -> Any:
    import json

    from safetensors.torch import load_file
    from whisper import DecodingOptions, decode
    from whisper.model import ModelDimensions, Whisper

    folder = place / "openai-whisper"
    dims = json.loads((folder / "config.json").read_text())["dims"]
    model = Whisper(ModelDimensions(**dims)).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    options = DecodingOptions(
        fp16=False, language="en", without_timestamps=True, sample_len=TOKENS,
        suppress_tokens="", suppress_blank=False,
    )  # fmt: skip
    return lambda: decode(model, features[0], options).tokens


def _transformers(place: Path, features: Any) -> Any:
    import torch
    from transformers import GenerationMixin, WhisperForConditionalGeneration
    from transformers.utils import logging

    from zoo.models.whisper.layout import Layout

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = WhisperForConditionalGeneration.from_pretrained(place / "transformers-whisper").eval()
    model.generation_config.begin_suppress_tokens = model.generation_config.suppress_tokens = None
    prompt = torch.tensor([Layout(51865, 99, 1500, True).prompt("en", "transcribe", False)])

    def run() -> list[int]:  # its loop alone, without what Whisper's own `generate` does around it
        out = GenerationMixin.generate(
            model, input_features=features, decoder_input_ids=prompt, max_new_tokens=TOKENS,
            min_new_tokens=TOKENS, do_sample=False,
        )  # fmt: skip
        return out[0].tolist()[-TOKENS:]

    return run


def _ctranslate2(place: Path, features: Any) -> Any:
    import ctranslate2

    source, target = place / "transformers-whisper", place / "ctranslate2"
    ctranslate2.converters.TransformersConverter(str(source)).convert(
        str(target), quantization="int8"
    )
    model = ctranslate2.models.Whisper(
        str(target), device="cpu", compute_type="int8", intra_threads=1, inter_threads=1
    )
    sound = ctranslate2.StorageView.from_array(features.numpy())
    from zoo.models.whisper.layout import Layout

    prompt = Layout(51865, 99, 1500, True).prompt("en", "transcribe", False)

    def run() -> list[int]:
        # its limit counts the prompt and halves what is left (OpenNMT/CTranslate2#2074)
        out = model.generate(
            sound, [prompt], beam_size=1, max_length=2 * TOKENS, suppress_blank=False,
            suppress_tokens=[],
        )  # fmt: skip
        assert len(out[0].sequences_ids[0]) >= TOKENS - 2, len(out[0].sequences_ids[0])
        return out[0].sequences_ids[0]

    return run


def _timed(run: Any) -> Any:
    import torch

    def timed() -> None:
        with torch.inference_mode():
            run()

    return timed
