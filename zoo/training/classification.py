"""Training a classifier: cross-entropy, label smoothing, mixup and cutmix; accuracy."""

# b batch, c channels, h w pixels, n tokens, k classes

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.data.augment import boxes
from zoo.data.base import Batch, Data
from zoo.data.draw import uniform
from zoo.errors import ConfigError
from zoo.training.distributed import unwrap
from zoo.training.objective import Loss, Objective
from zoo.training.schema import ClassificationConfig

__all__ = ["Classification", "beta_quantile"]

_STREAM = 16  # of random numbers; augmentation has the ones below


class Classification(Objective):
    """Batches hold `labels` (b) and `pixels` (b c h w), or `tokens` (b n) with their `mask` (b n);
    the model gives `.logits` (b k). What mixes pictures leaves text alone."""

    metric = "accuracy"
    config: ClassificationConfig

    def higher_is_better(self, name: str) -> bool:
        return name != "loss"

    def check(self, model: nn.Module, data: Data) -> None:
        """Raises ConfigError unless the model has a class for every label."""
        classes = getattr(getattr(unwrap(model), "config", None), "classes", None)
        if classes is not None and data.labels and classes != len(data.labels):
            raise ConfigError(
                f"model.classes: the model has {classes} classes and the data {len(data.labels)}; "
                f"add model.classes={len(data.labels)}."
            )

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Returns the cross-entropy with smoothed (and mixed) targets."""
        labels = batch["labels"]
        if not (self.config.mixup or self.config.cutmix) or "pixels" not in batch:
            logits = _logits(model, batch)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.config.smoothing)
            return Loss(loss, {"accuracy": (logits.argmax(-1) == labels).float().mean()})
        pixels, partners, share = self.mix(batch["pixels"], batch["seeds"])
        logits = _logits(model, {"pixels": pixels})
        own, other = (
            F.cross_entropy(logits, target, label_smoothing=self.config.smoothing, reduction="none")
            for target in (labels, labels[partners])
        )
        return Loss((share * own + (1 - share) * other).mean())

    def mix(self, pixels: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (mixed pictures, partner of each, share b of its own label that each keeps).

        Samples mix in pairs of neighbours, by numbers drawn from the first one's seed, so a step's
        pairs are the same for any number of processes (as long as each has an even number of
        samples; a last odd one stays alone).
        """
        count = len(pixels)
        own = torch.arange(count, device=pixels.device)
        partners = torch.where((own ^ 1) < count, own ^ 1, own)
        drawn = uniform(seeds[::2], 5, _STREAM).repeat_interleave(2, dim=0)[:count]
        mixed = (drawn[:, 0] < self.config.mix_chance) & (partners != own)
        cuts = torch.zeros_like(mixed)
        if self.config.cutmix:
            cuts = drawn[:, 1] < (0.5 if self.config.mixup else 1.0)
        share = beta_quantile(drawn[:, 2], self.config.mixup) if self.config.mixup else drawn[:, 2]
        share = torch.where(own % 2 == 0, share, 1 - share)
        if self.config.cutmix:  # the box has the same place and size in both pictures of a pair
            area = 1 - beta_quantile(drawn[:, 2], self.config.cutmix)
            box = boxes(area, drawn[:, 3:5], *pixels.shape[2:])
            share = torch.where(cuts, 1 - box.flatten(1).float().mean(1), share)
        share = torch.where(mixed, share, 1.0)
        blend = share.view(-1, 1, 1, 1).to(pixels.dtype)
        result = blend * pixels + (1 - blend) * pixels[partners]
        if self.config.cutmix:
            cut = torch.where(box, pixels[partners], pixels)
            result = torch.where((mixed & cuts).view(-1, 1, 1, 1), cut, result)
        return result, partners, share

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns the sums of `loss` (plain cross-entropy), `accuracy` and, with more classes
        than k, `top-k`."""
        labels, valid = batch["labels"], batch["valid"]
        logits, count = _logits(model, batch), valid.sum()
        losses = F.cross_entropy(logits, labels, reduction="none")
        sums = {"loss": losses, "accuracy": (logits.argmax(-1) == labels).float()}
        for k in self.config.top:
            if k < logits.shape[-1]:
                sums[f"top{k}"] = (logits.topk(k).indices == labels[:, None]).any(-1).float()
        return {name: ((values * valid).sum(), count) for name, values in sums.items()}


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    is_text = "tokens" in batch
    output = model(batch["tokens"], batch.get("mask")) if is_text else model(batch["pixels"])
    return (output if isinstance(output, Tensor) else output.logits).float()


def beta_quantile(u: Tensor, alpha: float) -> Tensor:
    """Returns the numbers below which a share `u` of a Beta(alpha, alpha) distribution lies.

    Drawn this way, a sample is a function of one uniform number. The density is integrated over t =
    x^alpha, in which it has no pole, from 0 to the middle; the other half is its mirror image.
    """
    points = 2049
    t = torch.linspace(0, 0.5**alpha, points, dtype=torch.float64)
    x = t ** (1 / alpha)
    density = (1 - x) ** (alpha - 1)
    mass = torch.cumulative_trapezoid(density, t)
    mass = torch.cat([mass.new_zeros(1), mass]) / (2 * mass[-1])  # 0 to 1/2
    lower = torch.minimum(u, 1 - u).double().cpu()
    right = torch.searchsorted(mass, lower).clamp(1, points - 1)
    width = mass[right] - mass[right - 1]
    part = ((lower - mass[right - 1]) / width.clamp_min(1e-300)).clamp(0, 1)
    value = (t[right - 1] + part * (t[right] - t[right - 1])) ** (1 / alpha)
    return torch.where(u.cpu() <= 0.5, value, 1 - value).to(u)
