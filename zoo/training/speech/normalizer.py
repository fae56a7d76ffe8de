"""What counts as the same text when errors are counted: Whisper's normalizers, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo.errors import ConfigError

__all__ = ["normalizer"]


def normalizer(name: str) -> Callable[[str], str]:
    """Returns what makes of a text the one that is compared (Radford et al. 2022, appendix C).

    | name      | what it takes away                                                               |
    |-----------|----------------------------------------------------------------------------------|
    | `none`    | nothing                                                                          |
    | `basic`   | capitals, punctuation, what stands in brackets                                   |
    | `english` | that, hesitations, contractions, British spelling, and how numbers are written   |

    Raises: ConfigError where the package whisper-normalizer is missing.
    """
    if name == "none":
        return lambda text: text
    try:
        return _made(name)
    except ImportError:
        raise ConfigError(
            f"normalizer: {name!r} needs the package 'whisper-normalizer': "
            "pip install 'multimodal-zoo[wer]'."
        ) from None


def _made(name: str) -> Any:
    if name == "basic":
        from whisper_normalizer.basic import BasicTextNormalizer

        plain: Any = BasicTextNormalizer()
        return lambda text: plain(text).strip()  # a sign at an end leaves a blank
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()
