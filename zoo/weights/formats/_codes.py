"""What the layouts of models that draw share: they hold the transformer, and not what it draws with
or reads with."""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["transformer_alone"]


def transformer_alone(config: Any) -> Any:
    """Returns a generator's config without what lies elsewhere (the tokenizer of pictures, the
    reader of texts) and what says how it is used."""
    return dataclasses.replace(
        config,
        visual=None,
        image=None,
        codes=config.codebook,
        grid=list(config.shape),
        tokenizer=None,
        reader=None,
        reader_layer=-1,
        reader_masks=False,
        bases={},
        labels=[],
        sampling={},
    )
