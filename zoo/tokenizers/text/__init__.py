"""Text to tokens and back, for every public scheme; torch-free until a batch is asked for.

from zoo.tokenizers.text import read_tokenizer, train_tokenizer tokenizer =
read_tokenizer("path/to/public/files")          # or build(resolve("tokenizer", "stdlib-bpe"))
tokens, mask = tokenizer(["one text", "another"])            # (b n) long, (b n) bool
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

_API = {
    "ChatTemplate": "zoo.tokenizers.text.chat",
    "StreamDecoder": "zoo.tokenizers.text.decoding",
    "TextBatch": "zoo.tokenizers.text.batch",
    "TextTokenizer": "zoo.tokenizers.text.tokenizer",
    "read_tokenizer": "zoo.tokenizers.text.reading",
    "train_tokenizer": "zoo.tokenizers.text.train",
}

__all__ = [
    "ChatTemplate",
    "StreamDecoder",
    "TextBatch",
    "TextTokenizer",
    "read_tokenizer",
    "train_tokenizer",
]

if TYPE_CHECKING:
    from zoo.tokenizers.text.batch import TextBatch
    from zoo.tokenizers.text.chat import ChatTemplate
    from zoo.tokenizers.text.decoding import StreamDecoder
    from zoo.tokenizers.text.reading import read_tokenizer
    from zoo.tokenizers.text.tokenizer import TextTokenizer
    from zoo.tokenizers.text.train import train_tokenizer


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_API[name]), name)
