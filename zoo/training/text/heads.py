"""Fine-tuning a text encoder's heads: a class for each token, and the span of an answer."""

# b samples, n tokens, k classes

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.data.base import Batch, Data
from zoo.errors import ConfigError, DataError
from zoo.models.text.answering import best_spans
from zoo.training.distributed import World, unwrap
from zoo.training.objective import Loss, Objective
from zoo.training.text.common import TokenObjective
from zoo.training.text.schema import AnswerSpanConfig, TaggingConfig

__all__ = ["AnswerSpan", "Tagging"]


class Tagging(TokenObjective):
    """Batches hold `tokens` and `labels` (b n), -100 where a token has none, and perhaps `mask` and
    `types` (b n)."""

    metric = "macro_f1"
    config: TaggingConfig

    def __init__(self, config: TaggingConfig) -> None:
        super().__init__(config)
        self.smoothing = config.smoothing

    def check(self, model: nn.Module, data: Data) -> None:
        """Raises ConfigError unless the model has a class for every label of a token."""
        config = _with_head(model, "tagging", "tag")
        labels = getattr(data, "labels", [])
        if labels and config.classes != len(labels):
            raise ConfigError(
                f"model.classes: the model has {config.classes} classes and the data "
                f"{len(labels)}; add model.classes={len(labels)}."
            )

    def prepare(self, batch: Batch, seeds: Tensor) -> tuple[dict[str, Any], Tensor, Tensor]:
        return _arguments(batch), batch["labels"], batch["labels"] != -100

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Raises DataError for a batch in which no token has a label."""
        if not self.weight(batch):
            raise DataError("labels: no token of this batch has one, so there is nothing to learn.")
        return super().__call__(model, batch)

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns the sums of `loss`, `accuracy` (tokens) and `f1/CLASS`, which is the ratio of
        2 TP to 2 TP + FP + FN, so that its sums add up over batches too."""
        arguments, labels, places = self.prepare(batch, batch["valid"])
        places = places & batch["valid"][:, None]
        logits, wanted = model(**arguments).logits[places].float(), labels[places]
        found, count = logits.argmax(-1), places.sum()
        sums = {
            "loss": (F.cross_entropy(logits, wanted, reduction="sum"), count),
            "accuracy": ((found == wanted).sum(), count),
        }
        classes = logits.shape[-1]
        names = unwrap(model).config.labels or range(classes)
        right = wanted[found == wanted]
        hits, said, real = (x.bincount(minlength=classes) for x in (right, found, wanted))
        for number, name in enumerate(names):
            sums[f"f1/{name}"] = (2 * hits[number], said[number] + real[number])
        return sums

    def evaluate(
        self, model: nn.Module, batches: Iterable[Batch], world: World
    ) -> dict[str, float]:
        """Returns the means, and `macro_f1` over the classes that were there or were said."""
        means = super().evaluate(model, batches, world)
        seen = {k: v for k, v in means.items() if not (k.startswith("f1/") and math.isnan(v))}
        scores = [value for name, value in seen.items() if name.startswith("f1/")]
        return {**seen, "macro_f1": sum(scores) / len(scores) if scores else math.nan}


class AnswerSpan(Objective):
    """Batches hold `tokens` (b n), `start` and `end` (b), the places of an answer's first and last
    token, and perhaps `mask`, `types` and `context` (b n), true where an answer may lie.

    As in BERT, the loss is over all places; an answer is looked for in the context alone, else in
    all real tokens.
    """

    metric = "f1"
    config: AnswerSpanConfig

    def check(self, model: nn.Module, data: Data) -> None:
        """Raises ConfigError unless the model points at spans."""
        _with_head(model, "answer-span", "span")

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        logits = model(**_arguments(batch)).logits.float()
        found = best_spans(logits.detach(), self._allowed(batch), self.config.longest)
        return Loss(_losses(logits, batch).mean(), {"exact": _scores(found, batch)[0].mean()})

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns the sums of `loss`, `exact` (both ends right) and `f1` (of the places of the
        tokens in the found and the true answer), all over samples."""
        logits, valid = model(**_arguments(batch)).logits.float(), batch["valid"]
        found = best_spans(logits, self._allowed(batch), self.config.longest)
        exact, f1 = _scores(found, batch)
        sums = {"loss": _losses(logits, batch), "exact": exact, "f1": f1}
        return {name: ((values * valid).sum(), valid.sum()) for name, values in sums.items()}

    def higher_is_better(self, name: str) -> bool:
        return name != "loss"

    def _allowed(self, batch: Batch) -> Tensor:  # b n
        real = batch.get("context", batch.get("mask"))
        return torch.ones_like(batch["tokens"]).bool() if real is None else real.bool()


def _losses(logits: Tensor, batch: Batch) -> Tensor:  # b n 2 -> b
    wanted = torch.stack([batch["start"], batch["end"]], -1)
    return F.cross_entropy(logits, wanted, reduction="none").mean(-1)


def _scores(found: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:  # b 2 -> b, b
    (first, last), start, end = found.unbind(-1), batch["start"], batch["end"]
    shared = (torch.minimum(last, end) - torch.maximum(first, start) + 1).clamp(min=0)
    exact = (first == start) & (last == end)
    return exact.float(), 2 * shared / (last - first + end - start + 2)


def _arguments(batch: Batch) -> dict[str, Any]:
    return {name: batch[name] for name in ("tokens", "mask", "types") if name in batch}


def _with_head(model: nn.Module, objective: str, task: str) -> Any:
    config: Any = getattr(unwrap(model), "config", None)
    if getattr(config, "zoo_kind", None) != "masked-lm" or config.task != task:
        raise ConfigError(f"objective: '{objective}' trains masked-lm models with task={task}.")
    return config
