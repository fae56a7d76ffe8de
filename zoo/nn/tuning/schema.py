"""Schemas of what is trained beside a model. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.registry import kind, setting


@dataclass(kw_only=True)
class TuningConfig:
    """Small trained additions to a model whose own weights stay as they are."""


@kind("tuning", "lora", builds="zoo.nn.tuning.lora:LoRA")
@dataclass(kw_only=True)
class LoRAConfig(TuningConfig):
    """Low-rank additions to linear layers (Hu et al. 2021, arXiv 2106.09685)."""

    rank: int = setting(8, "columns of B and rows of A", low=1)
    alpha: float = setting(16.0, "the addition counts alpha / rank times", above=0.0)
    dropout: float = setting(0.0, "dropout on what the addition reads, in training", low=0, high=1)
    on: list[str] = setting(
        ["*attention.*", "*feedforward.*"],
        "patterns of the linear layers that get additions, by name",
    )
