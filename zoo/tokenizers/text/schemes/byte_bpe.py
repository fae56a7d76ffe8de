"""Byte-level byte-pair encoding: GPT-2, RoBERTa, Whisper, Bloom, Qwen, Llama 3, CLIP, everything
with a tiktoken file."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, DataError
from zoo.tokenizers.text.decoding import byte_alphabet
from zoo.tokenizers.text.engine import library, new_spec, train_spec
from zoo.tokenizers.text.files import PublicFiles, read_lines, read_merges
from zoo.tokenizers.text.schema import ByteBPEConfig
from zoo.tokenizers.text.tokenizer import TextTokenizer

__all__ = ["PATTERNS", "ByteBPETokenizer"]

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LETTERS = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
PATTERNS = {
    "gpt4": _CONTRACTIONS + _LETTERS + r"|\p{N}{1,3}" + _REST,
    "qwen2": _CONTRACTIONS + _LETTERS + r"|\p{N}" + _REST,
    "bloom": r" ?[^(\s|[.,!?…。，、।۔،])]+",
    "clip": r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
}


class ByteBPETokenizer(TextTokenizer):
    """Byte-level BPE."""

    @classmethod
    def pipeline(
        cls, config: ByteBPEConfig, spec: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        pattern = config.pattern or "gpt2"
        step = {
            "type": "ByteLevel",
            "add_prefix_space": bool(config.prefix_space),
            "trim_offsets": True,
            "use_regex": pattern in ("gpt2", "clip"),
        }
        cut: dict[str, Any] = step
        if pattern not in ("gpt2", "none"):
            split = {
                "type": "Split",
                "pattern": {"Regex": PATTERNS.get(pattern, pattern)},
                # CLIP's pattern finds words and drops the blanks between them, the others cut
                "behavior": "Removed" if pattern == "clip" else "Isolated",
                "invert": pattern == "clip",
            }
            cut = {"type": "Sequence", "pretokenizers": [split, step]}
        changes: list[dict[str, Any]] = [{"type": "NFC"}] if config.compose else []
        blanks = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
        if config.lowercase:
            changes += [blanks, {"type": "Lowercase"}]
        if config.ascii:
            others = {"Regex": r"[^\x00-\x7f]"}
            dropped = {"type": "Replace", "pattern": others, "content": ""}
            ends = {"type": "Strip", "strip_left": True, "strip_right": True}
            changes += [dropped, blanks, ends]
        return {
            "normalizer": {"type": "Sequence", "normalizers": changes} if changes else None,
            "pre_tokenizer": cut,
            "decoder": {**step, "use_regex": True},
        }

    @classmethod
    def read_vocabulary(cls, config: ByteBPEConfig, files: PublicFiles) -> dict[str, Any]:
        ranks = files.path("tiktoken.model", "vocab.tiktoken")
        if ranks is not None:
            return cls.spec_of_ranks(config, ranks)
        vocab = json.loads(files.need(config.vocab_file).read_text(encoding="utf-8"))
        merges = read_merges(read_lines(files.need(config.merges_file)))
        if not config.word_end and any(second.endswith("</w>") for _, second in merges[:1000]):
            raise ConfigError(
                f"{files.folder} marks word ends by </w>, so it is no plain byte-bpe; read it with "
                "kind='word-bpe'."
            )
        return cls._spec(config, vocab, merges)

    @classmethod
    def spec_of_ranks(cls, config: ByteBPEConfig, path: str | Path) -> dict[str, Any]:
        """Returns the spec of a tiktoken file (`<base64> <rank>` lines): Whisper's assets, Llama
        3's original."""
        vocab, merges = read_ranks(Path(path))
        spec = cls._spec(config, vocab, merges)
        spec["model"]["ignore_merges"] = True  # tiktoken takes a word that is a token whole
        return spec

    @classmethod
    def _spec(
        cls, config: ByteBPEConfig, vocab: dict[str, int], merges: list[list[str]]
    ) -> dict[str, Any]:
        model = {
            "type": "BPE",
            "dropout": None,
            "unk_token": config.special.unk if config.word_end else None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": config.word_end,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        }
        return new_spec(model, cls.pipeline(config))

    @classmethod
    def train(cls, config: ByteBPEConfig, texts: Iterable[str], vocabulary: int) -> dict[str, Any]:
        special = config.special.tokens()
        if vocabulary < 256 + len(special):
            raise ConfigError(
                f"vocabulary: {vocabulary} is less than the 256 bytes and {len(special)} special "
                "tokens."
            )
        letters, ending = list(byte_alphabet()), config.word_end
        settings = {"end_of_word_suffix": ending} if ending else {"initial_alphabet": letters}
        # bytes at word ends are tokens of their own, and must have their ids in a fixed order
        first = [*special, *letters, *(letter + ending for letter in letters if ending)]

        def trainer(tokens: list[str]) -> Any:
            return library().trainers.BpeTrainer(
                vocab_size=vocabulary,
                special_tokens=first if ending else tokens,
                show_progress=False,
                **settings,
            )

        return train_spec(cls._spec(config, {}, []), texts, trainer, special)


def read_ranks(path: Path) -> tuple[dict[str, int], list[list[str]]]:
    """Returns (vocabulary, merges) of a tiktoken file; the rank of a token is its id and its
    priority."""
    letters = byte_alphabet()
    ranks: dict[bytes, int] = {}
    try:
        for line in path.read_bytes().splitlines():
            if line:
                word, number = line.split()
                # Whisper's file holds one empty token, written as padding without content
                data = b"" if word == b"=" else base64.b64decode(word, validate=True)
                ranks[data] = int(number)
    except ValueError:
        raise DataError(f"{path} is no tiktoken file of base64 tokens and ranks.") from None

    def spell(data: bytes) -> str:
        return "".join(letters[byte] for byte in data)

    merges = []
    for token, rank in ranks.items():
        splits = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [(a, b) for a, b in splits if a in ranks and b in ranks]
        known.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [(rank, spell(a), spell(b)) for a, b in known]
    merges.sort(key=lambda entry: entry[0])
    return {spell(token): rank for token, rank in ranks.items()}, [[a, b] for _, a, b in merges]
