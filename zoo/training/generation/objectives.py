"""Learning codes: the next one, or masked ones."""

# b samples, n codes, v codebook, m tokens of a prompt, t vocabulary of text

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.data.base import Batch, Data
from zoo.data.draw import uniform
from zoo.errors import ConfigError
from zoo.generation.masked import share_masked
from zoo.training.distributed import World, unwrap
from zoo.training.generation.drawings import Drawings
from zoo.training.generation.schema import CodesObjectiveConfig, MaskedCodesConfig, NextCodeConfig
from zoo.training.objective import Loss
from zoo.training.text.common import TokenObjective

__all__ = ["MaskedCodes", "NextCode"]


class CodesObjective(TokenObjective):
    """Batches hold `codes` (b *grid), or `pixels` that the model's tokenizer makes codes of, and
    what is asked: `captions` (texts), or `labels` (b)."""

    config: CodesObjectiveConfig
    causal: bool

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.smoothing = config.smoothing

    def check(self, model: nn.Module, data: Data) -> None:
        """Raises ConfigError unless the model draws, in this objective's way."""
        self.model: Any = unwrap(model)
        config: Any = getattr(self.model, "config", None)
        name = self.config.zoo_kind  # type: ignore[attr-defined]
        if getattr(config, "zoo_kind", None) != "generator":
            raise ConfigError(f"objective: {name!r} trains generator models.")
        if config.causal != self.causal:
            other = "masked-codes" if self.causal else "next-code"
            raise ConfigError(
                f"objective: {name!r} needs backbone.causal={str(self.causal).lower()}; this "
                f"model is trained by {other!r}."
            )
        self.texts: dict[str, tuple[Tensor, Tensor]] = {}
        self.unsaid: dict[str, Tensor] | None = None
        self.drawings: Drawings | None = None
        if self.config.samples:
            if not hasattr(data, "judge"):
                raise ConfigError("objective.samples: nothing judges drawings of this data; set 0.")
            self.drawings = Drawings(data, self.config.samples)

    def evaluate(
        self, model: nn.Module, batches: Iterable[Batch], world: World
    ) -> dict[str, float]:
        """Returns the measured means and, with `samples`, the judge's verdicts on drawings."""
        if self.drawings is None:
            return super().evaluate(model, batches, world)
        means = super().evaluate(model, self.drawings.watching(batches), world)
        options = {"guidance": self.config.guidance, **self.drawing_options()}
        verdicts = self.drawings.judged(unwrap(model), self.config.sheet, **options)
        for name, (total, count) in verdicts.items():
            total, count = world.sum(torch.stack([total.double(), count.double()])).tolist()
            means[name] = total / max(count, 1)
        return means

    def pictures(self) -> dict[str, Any]:
        """Returns the sheet of the last drawings."""
        if self.drawings is None or not self.drawings.shown:
            return {}
        return {"drawings": self.drawings.picture()}

    def drawing_options(self) -> dict[str, Any]:
        """Returns the further options of the drawings that are judged."""
        return {}

    def higher_is_better(self, name: str) -> bool:
        return name != "frechet" and super().higher_is_better(name)

    def codes(self, batch: Batch) -> Tensor:
        """Returns the codes (b *grid) of a batch."""
        if "codes" in batch:
            return batch["codes"].long()
        with torch.no_grad():
            return self.model.visual.encode(batch["pixels"]).ids

    def asked(self, batch: Batch, drop: Tensor) -> dict[str, Tensor]:
        """Returns what the model is asked (b …), and of samples to `drop` (b) nothing."""
        config = self.model.config
        if config.features and "features" in batch:
            return self._told(batch, drop)
        if config.reader is not None:
            texts = batch["captions"]
            if not config.learned_nothing:  # nothing is an empty text
                texts = ["" if out else text for text, out in zip(texts, drop.tolist())]
            tokens, mask = self._read(texts)
            asked = {"text": tokens, "text_mask": mask}
            if not config.learned_nothing:
                return asked
            return self._told({**batch, **self.model.reading(asked)}, drop)
        if config.features:
            raise ConfigError(
                "data.reader: the model reads features of texts, and nothing makes them; name a "
                "text model here, or as model.reader."
            )
        if config.text_length:
            tokens, mask = self._read(batch["captions"])
            none, seen = self.model.prompt.no_text(len(tokens))
            return {
                "text": torch.where(drop[:, None], none, tokens),
                "text_mask": torch.where(drop[:, None], seen, mask),
            }
        if config.classes:
            return {"labels": torch.where(drop, config.classes, batch["labels"])}
        return {}

    def _told(self, batch: Batch, drop: Tensor) -> dict[str, Tensor]:
        """Returns features that were kept with the codes, and of samples to `drop` nothing's."""
        config, features = self.model.config, batch["features"]
        if features.shape[-1] != config.features:
            raise ConfigError(
                f"data.reader: it gives {features.shape[-1]} channels, and the model reads "
                f"{config.features}."
            )
        mask = batch.get("features_mask", torch.ones_like(features[..., 0], dtype=torch.bool))
        room = config.features_length - features.shape[1]  # below 0: they are cut
        features, mask = F.pad(features, (0, 0, 0, room)), F.pad(mask, (0, room))
        told = {"features": features, "features_mask": mask}
        if config.pooled:
            told["pooled"] = batch["pooled"]
        for name, free in self._nothing(mask).items():
            out = drop.view(-1, *(1,) * (told[name].ndim - 1))
            told[name] = torch.where(out, free.to(told[name].dtype), told[name])
        return told

    def _nothing(self, mask: Tensor) -> dict[str, Tensor]:
        """Returns what stands for no prompt (1|b …), given what is seen of the prompts (b m)."""
        model, config = self.model, self.model.config
        if config.learned_nothing:  # before the codes it is seen as far as the prompt would be
            seen = torch.ones_like(mask) if config.memory else mask
            none = {"features": model.prompt.nothing[None], "features_mask": seen}
            return none | ({"pooled": model.prompt.vector.nothing[None]} if config.pooled else {})
        if self.unsaid is None:  # what the reader makes of no words, once
            tokens, seen = model.read_text([""])
            told = model.reading({"text": tokens, "text_mask": seen})
            self.unsaid = {"features_mask": torch.ones_like(seen), **told}
        return self.unsaid

    def _read(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Returns the tokens of texts (b m) and which are there; each text is read once."""
        for text in set(texts) - self.texts.keys():
            tokens, mask = self.model.read_text([text])
            self.texts[text] = tokens[0], mask[0]
        tokens, mask = (torch.stack(x) for x in zip(*(self.texts[text] for text in texts)))
        return tokens, mask

    def dropped(self, seeds: Tensor) -> Tensor:
        """Returns whose prompts are left out (b); none when measuring."""
        if not torch.is_grad_enabled():
            return torch.zeros_like(seeds, dtype=torch.bool)
        return uniform(seeds, 1, 11)[:, 0] < self.config.drop


class NextCode(CodesObjective):
    """Each code from those before it."""

    config: NextCodeConfig
    causal = True

    def prepare(self, batch: Batch, seeds: Tensor) -> tuple[dict[str, Any], Tensor, Tensor]:
        codes = self.codes(batch)
        targets = codes.flatten(1)
        arguments = {"codes": codes, **self.asked(batch, self.dropped(seeds))}
        return arguments, targets, torch.ones_like(targets, dtype=torch.bool)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        arguments, targets, _ = self.prepare(batch, batch["seeds"])
        output = model(**arguments)
        codes = F.cross_entropy(
            output.logits.flatten(0, 1).float(), targets.flatten(), label_smoothing=self.smoothing
        )
        right = (output.logits.argmax(-1) == targets).float().mean()
        scalars = {"codes_loss": codes.detach(), "accuracy": right}
        if output.text_logits is None:
            return Loss(codes, scalars)
        # empty places have vectors of their own, not tokens that could be told
        told = arguments["text_mask"][:, 1:]
        text = F.cross_entropy(output.text_logits[told].float(), arguments["text"][:, 1:][told])
        text = torch.nan_to_num(text)  # a batch without any prompt
        share = self.config.text
        value = share * text + (1 - share) * codes
        return Loss(value, {**scalars, "text_loss": text.detach()})


class MaskedCodes(CodesObjective):
    """Hidden codes from the others."""

    config: MaskedCodesConfig
    causal = False

    def prepare(self, batch: Batch, seeds: Tensor) -> tuple[dict[str, Any], Tensor, Tensor]:
        codes = self._cut(self.codes(batch), seeds)
        targets = codes.flatten(1)
        n = targets.shape[1]
        time = uniform(seeds, 1, 12)[:, 0]
        share = torch.tensor([share_masked(self.config.schedule, t) for t in time.tolist()])
        count = (n * share.clamp(min=self.config.least)).ceil().clamp(min=1)
        rank = uniform(seeds, n, 13).argsort(-1).argsort(-1)
        places = rank < count[:, None].to(rank.device)
        hidden = torch.where(places, self.model.mask_code, targets).view_as(codes)
        return {"codes": hidden, **self.asked(batch, self.dropped(seeds))}, targets, places

    def _cut(self, codes: Tensor, seeds: Tensor) -> Tensor:
        """Cuts clips to their first frames, all of a batch or none, as its first seed says."""
        if codes.ndim != 4 or not self.config.first_frame or not torch.is_grad_enabled():
            return codes
        first = float(uniform(seeds[:1], 1, 14)) < self.config.first_frame
        return codes[:, :1] if first else codes

    def drawing_options(self) -> dict[str, Any]:
        return {"steps": self.config.passes}
