"""Learning to answer: next tokens, but only those that the assistant says."""

# b samples, n given tokens, r rows, k places (pictures take theirs), v vocabulary

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.data.base import Batch, Data
from zoo.errors import ConfigError
from zoo.training.distributed import unwrap
from zoo.training.objective import Loss, Objective
from zoo.training.text.schema import AnswersConfig

__all__ = ["Answers"]


class Answers(Objective):
    """Batches hold `tokens`, `mask` and `answers` (b n), perhaps `pixels` and `sizes` of pictures,
    and perhaps `kind` (b), a number of `kinds`, by which exactness is measured too.

    An answer is exact when each of its tokens is the most probable one after those before it:
    then greedy decoding writes it, and nothing else.
    """

    metric = "exact"
    config: AnswersConfig

    def check(self, model: nn.Module, data: Data) -> None:
        """Raises ConfigError unless the model answers, and packs only what it can."""
        kind = getattr(getattr(unwrap(model), "config", None), "zoo_kind", None)
        if kind not in ("causal-lm", "vision-language"):
            raise ConfigError(
                "objective: 'answers' trains causal-lm and vision-language models, "
                f"not {kind or type(unwrap(model)).__name__}."
            )
        if self.config.pack is not None and kind != "vision-language":
            raise ConfigError("objective.pack: is for vision-language models.")

    def weight(self, batch: Batch) -> float:
        return float(batch["answers"][:, 1:].sum())

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        logits, wanted, _ = self.predicted(model, batch)
        loss = F.cross_entropy(logits, wanted, label_smoothing=self.config.smoothing)
        return Loss(loss, {"accuracy": (logits.argmax(-1) == wanted).float().mean()})

    def predicted(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (scores, the token that should come, its sample) of every token of an answer."""
        tokens, mask = batch["tokens"], batch["mask"]
        given: dict[str, Any] = {"mask": mask}
        if "pixels" in batch:
            given |= {"pixels": batch["pixels"], "sizes": batch["sizes"]}
        if self.config.pack is not None:
            given["pack"] = self.config.pack
        output = model(tokens, **given)
        index = torch.arange(tokens.numel(), device=tokens.device).view_as(tokens)
        source = getattr(output, "source", index.masked_fill(~mask, -1))  # r k
        picture = getattr(output, "picture", torch.zeros_like(source, dtype=torch.bool))
        follows = source[:, 1:]  # what stands at the place after each
        answer = batch["answers"].flatten()[follows.clamp(min=0)]
        answer = answer & (follows >= 0) & ~picture[:, 1:]
        answer &= source[:, :-1] // tokens.shape[1] == follows // tokens.shape[1]
        chosen = follows[answer]
        return (
            output.logits[:, :-1][answer].float(),
            tokens.flatten()[chosen],
            chosen // tokens.shape[1],
        )

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns the sums of `loss` (nats per token), `exact`, and `exact/KIND` (samples)."""
        logits, wanted, sample = self.predicted(model, batch)
        valid = batch["valid"]
        losses = F.cross_entropy(logits, wanted, reduction="none")
        wrong = torch.zeros(len(valid), device=valid.device)
        wrong.index_add_(0, sample, (logits.argmax(-1) != wanted).float())
        exact = (wrong == 0) & valid
        counted = valid[sample]
        sums = {
            "loss": ((losses * counted).sum(), counted.sum()),
            "exact": (exact.sum(), valid.sum()),
        }
        for number, name in enumerate(batch.get("kinds", ())):
            of_kind = valid & (batch["kind"] == number)
            sums[f"exact/{name}"] = ((exact & of_kind).sum(), of_kind.sum())
        return sums

    def higher_is_better(self, name: str) -> bool:
        return name != "loss"
