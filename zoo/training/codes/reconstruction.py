"""Training a visual tokenizer: the decoder's loss and the quantizer's, a perceptual and an
adversarial one; PSNR, use of the codes, what the data's own readers say of reconstructions."""

# b batch, c channels, t h w frames and pixels

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.base import Batch, Data
from zoo.errors import ConfigError
from zoo.registry import build
from zoo.tokenizers.visual.quantizers.base import use_of
from zoo.training.codes.adversary import adaptive_weight, deceived, told_apart
from zoo.training.codes.schema import ReconstructionObjectiveConfig
from zoo.training.distributed import World, unwrap
from zoo.training.objective import Loss, Objective

__all__ = ["Reconstruction", "psnr"]

_REMEDIES = (
    "try quantizer=fsq or quantizer=lfq, which have no table to collapse; quantizer.revive=0.1, "
    "which puts idle codes back to work; or quantizer.l2=true with a small quantizer.width"
)


class Reconstruction(Objective):
    """Batches hold `pixels` (b c h w) or (b c t h w) in [0, 1]; the model gives a `CodesOutput`."""

    metric = "psnr"
    config: ReconstructionObjectiveConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.judge: Any = None
        self.distance: Any = None
        self.perceptual: Any = None if config.perceptual is None else build(config.perceptual)
        self.deceives = False  # whether the adversary counts by now

    def higher_is_better(self, name: str) -> bool:
        return name not in ("loss", "frechet")

    def check(self, model: nn.Module, data: Data) -> None:
        """Raises ConfigError unless the model makes codes and pixels of them."""
        config = getattr(unwrap(model), "config", None)
        if getattr(config, "zoo_kind", None) != "visual-codes":
            raise ConfigError("objective: 'reconstruction' trains visual tokenizers alone.")
        if config.decoder is None:  # type: ignore[union-attr]
            raise ConfigError("model.decoder: nothing is reconstructed without one; name one.")
        self.judge = getattr(data, "judge", None)
        self.distance = getattr(data, "distance", None)
        if self.config.adversary is not None:
            self.opponent = build(self.config.adversary, channels=config.channels)  # type: ignore[union-attr]

    def begin(self, model: nn.Module, step: int, steps: int) -> None:
        unwrap(model).anneal(step / steps)
        adversary = self.config.adversary
        self.deceives = adversary is not None and step >= adversary.start

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Returns the decoder's loss plus the quantizer's, and those of the other networks."""
        pixels = batch["pixels"]
        output = model(pixels)
        scalars = {"reconstruction": output.reconstruction, **output.codes.losses}
        value = self.config.weight * output.reconstruction
        if self.config.perceptual is not None:
            scalars["perceptual"] = self.perceptual(_frames(output.pixels), _frames(pixels))
            value = value + self.config.perceptual.weight * scalars["perceptual"]
        opponent = None
        if self.deceives:
            added, opponent, more = self._against(unwrap(model), value, output.pixels, pixels)
            value, scalars = value + added, {**scalars, **more}
        for loss in output.codes.losses.values():
            value = value + loss
        scalars["psnr"] = psnr(output.pixels, pixels).mean()
        return Loss(value, scalars, opponent)

    def _against(
        self, model: Any, plain: Tensor, made: Tensor, real: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Returns what the adversary adds to the loss, its own loss, and what of both to log."""
        config, network = self.config.adversary, self.opponent
        assert config is not None and network is not None
        made, real = (2 * _frames(x).float() - 1 for x in (made, real))
        deceit = deceived(network, made)
        weight = adaptive_weight(config, plain, deceit, model.decoder.last)
        own = told_apart(network, config, real, made)
        more = {"deceit": deceit, "adversary": own, "adversary_weight": weight}
        return weight * deceit, own, more

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns the sums of `psnr` and of what the data's judge says of the reconstructions."""
        pixels, valid, plain = batch["pixels"], batch["valid"], unwrap(model)
        codes = plain.encode(pixels)
        self.counts += torch.bincount(codes.ids[valid].flatten().cpu(), minlength=len(self.counts))
        answer = plain.decode(codes.ids)
        found = {"psnr": psnr(answer, pixels)}
        if self.judge is not None:
            found |= {f"judge_{n}": v.float() for n, v in self.judge(answer, batch).items()}
        if self.distance is not None:
            self.made.append(answer[valid].cpu())
        return {name: ((values * valid).sum(), valid.sum()) for name, values in found.items()}

    def evaluate(
        self, model: nn.Module, batches: Iterable[Batch], world: World
    ) -> dict[str, float]:
        """Returns the means, how evenly the codes are used and, where the data measures it, the
        Fréchet distance of all reconstructions; warns when few codes are used."""
        self.counts = torch.zeros(unwrap(model).codebook_size, dtype=torch.int64)
        self.made: list[Tensor] = []
        means = super().evaluate(model, batches, world)
        if self.distance is not None:  # processes have a part each, and their mean is told
            apart = torch.tensor([float(self.distance(torch.cat(self.made))), 1.0])
            total, count = world.sum(apart.double()).tolist()
            means["frechet"] = total / count
        use = use_of(world.sum(self.counts.double()))
        if use["codes_used"] < self.config.collapse and world.is_main:
            warnings.warn(
                f"The codebook has collapsed: {use['codes_used']:.0%} of its codes are in use; "
                f"{_REMEDIES}.",
                stacklevel=2,
            )
        return {**means, **use}


def _frames(pixels: Tensor) -> Tensor:
    """Returns pictures (b c h w): pixels, or all frames of clips."""
    return pixels if pixels.ndim == 4 else pixels.transpose(1, 2).flatten(0, 1)


def psnr(answer: Tensor, pixels: Tensor) -> Tensor:  # b ... -> b
    """Returns the peak signal-to-noise ratio of each sample in dB; 100 where they agree."""
    error = (answer.float().clamp(0, 1) - pixels.float()).square().flatten(1).mean(1)
    return -10 * error.clamp(min=1e-10).log10()
