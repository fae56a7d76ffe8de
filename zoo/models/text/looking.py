"""What a text model sees and what surprises it, token by token, for people to look at."""

# n tokens, m source tokens, h heads

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ConfigError, DataError
from zoo.nn.attention import Record

__all__ = ["Looked", "attention_over", "surprise"]


@dataclass(frozen=True)
class Looked:
    """Who looked at what: `weights` (h rows columns), each row a distribution over the columns."""

    rows: list[str]
    columns: list[str]
    weights: Tensor


@torch.inference_mode()
def surprise(model: Any, text: str) -> list[tuple[str, float]]:
    """Returns each token of a text with the bits that the model needs to write it.

    A decoder reads from left to right, after its end token; an encoder has every token hidden in
    turn, and all others before it. Raises: ConfigError for other models, DataError for no text.
    """
    ids = model.tokenizer.encode(text, special=False)
    if not ids:
        raise DataError("surprise needs a text of one token at least.")
    row = torch.tensor(ids, device=model.device)
    kind = model.config.zoo_kind
    if kind == "causal-lm":
        end = model.special("eos")
        if end is None:
            raise ConfigError("special.eos: surprise starts from this token.")
        shifted = torch.cat([row.new_tensor([end]), row[:-1]])
        scores = model(shifted[None]).logits[0]
    elif kind == "masked-lm" and model.config.task == "fill":
        hidden = row.expand(len(ids), -1).clone()
        hidden.fill_diagonal_(model.special("mask"))
        scores = model(hidden).logits.diagonal(dim1=0, dim2=1).T
    else:
        raise ConfigError(f"surprise reads causal-lm and masked-lm models, not {kind}.")
    logs = scores.float().log_softmax(-1).gather(-1, row[:, None])[:, 0]
    bits = (-logs / math.log(2)).tolist()
    return list(zip(_pieces(model.tokenizer, ids), bits, strict=True))


@torch.inference_mode()
def attention_over(model: Any, text: str, target: str | None = None, layer: int = -1) -> Looked:
    """Returns the attention of a layer over a text; with `target`, an encoder-decoder's from each
    token of the target to those of the source.

    The first row of a target is its start token: a row shows where the model looked to write the
    token *after* it. Raises: ConfigError for a model without such attention.
    """
    ids = model.tokenizer.encode(text)
    row = torch.tensor([ids], device=model.device)
    record = Record(attention=True)
    rows = columns = _pieces(model.tokenizer, ids)
    if target is None:
        if model.config.zoo_kind not in ("causal-lm", "masked-lm"):
            raise ConfigError("attention_over a text alone reads causal-lm and masked-lm models.")
        model(row, record=record)
        found = record.weights
    else:
        if model.config.zoo_kind != "seq2seq":
            raise ConfigError("attention_over with a target reads seq2seq models.")
        written = model.tokenizer.target.encode(target, special=False)
        start = [model.special("start"), *written]
        model(row, torch.tensor([start], device=model.device), record=record)
        found, rows = record.cross_weights, ["start", *_pieces(model.tokenizer.target, written)]
    if not found:
        raise ConfigError("This model's attention keeps no weights to look at.")
    return Looked(rows, columns, found[sorted(found)[layer]][0].float().cpu())


def _pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    return [tokenizer.decode([number]) for number in ids]
