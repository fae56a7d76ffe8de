"""Public configs, read key by key: what is asked for is checked, what nobody asked for is refused.

A key that is silently ignored is a model that silently computes something else, so a format must
name every key that it accepts, if only to say that it changes nothing (`ignore`) or that just one
of its values is understood (`only`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from zoo.errors import ConfigError
from zoo.registry.suggest import hint

__all__ = [
    "ACTIVATIONS",
    "GENERIC",
    "Keys",
    "differences",
    "one_size",
    "public_activation",
    "public_labels",
    "show",
]

# Keys of every transformers config, of one version or another, that do not touch the numbers.
GENERIC = frozenset({
    "_name_or_path", "architectures", "bad_words_ids", "begin_suppress_tokens", "bos_token_id",
    "chunk_size_feed_forward", "decoder_start_token_id", "diversity_penalty", "do_sample", "dtype",
    "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id",
    "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id",
    "forced_eos_token_id", "gradient_checkpointing", "id2label", "initializer_factor", "label2id",
    "length_penalty", "max_length", "min_length", "model_type", "no_repeat_ngram_size",
    "num_beam_groups", "num_beams", "num_labels", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_scores", "pad_token_id", "prefix", "problem_type",
    "remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate",
    "sep_token_id", "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss",
    "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers_version",
    "typical_p", "use_bfloat16", "use_cache",
})  # fmt: skip
# Keys that would touch them, with the one value that does not.
NEUTRAL: dict[str, Any] = {
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "pruned_heads": {},
    "tie_encoder_decoder": False,
}

# Their names of activations, all of them; of ours several may be one function.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "quickgelu": "quick_gelu",
    "relu": "relu",
    "relu2": "relu_squared",
    "silu": "silu",
    "swish": "silu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "linear": "linear",
}
# What transformers calls ours.
TRANSFORMERS_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu_squared": "relu2",
    "silu": "silu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "linear": "linear",
}

_REQUIRED: Any = object()


class Keys:
    """A public config. Every method marks the keys it names as known; `finish` refuses the rest.

    Raises: ConfigError naming the key, from every method.
    """

    def __init__(self, content: Mapping[str, Any], where: str = "config.json") -> None:
        self.content, self.where = content, where
        self._known: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return self.content.get(key) is not None

    def take(self, key: str, default: Any = _REQUIRED, *kinds: type) -> Any:
        """Returns the value of a key, which must be of one of `kinds` (by default, of the default's
        type); a null counts as left out."""
        self._known.add(key)
        value = self.content.get(key)
        if value is None:
            if default is _REQUIRED:
                raise ConfigError(f"{self.where}: {key!r} is missing.")
            return default
        kinds = kinds or (type(default),)
        if isinstance(value, int) and not isinstance(value, bool) and float in kinds:
            value = float(value)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise ConfigError(f"{self.where}: {key!r} must be {names}, got {show(value)}.")
        return value

    def pair(self, key: str, default: Any = _REQUIRED) -> list[int]:
        """Returns (height, width) of a key that holds a number or two."""
        value = self.take(key, default, int, list, tuple)
        sizes = [value, value] if isinstance(value, int) else list(value)
        if len(sizes) != 2 or not all(type(size) is int and size > 0 for size in sizes):
            raise ConfigError(f"{self.where}: {key!r} must be one or two sizes, got {show(value)}.")
        return sizes

    def only(self, key: str, *allowed: Any) -> None:
        """Refuses every value of a key but these (and its absence)."""
        self._known.add(key)
        if key in self.content and self.content[key] not in allowed:
            raise ConfigError(
                f"{self.where}: {key!r} = {show(self.content[key])} is not supported "
                f"(only {', '.join(map(show, allowed))})."
            )

    def section(self, key: str) -> Keys:
        """Returns the keys below a key, for reading in the same way."""
        value = self.take(key, {}, dict)
        return Keys(value, f"{self.where}: {key}")

    def activation(self, key: str, default: str) -> str:
        """Returns our name of the activation that a key names."""
        name = self.take(key, default, str)
        if name not in ACTIVATIONS:
            raise ConfigError(
                f"{self.where}: {key!r} names an unknown activation {name!r}."
                + hint(name, ACTIVATIONS, f"Known: {', '.join(ACTIVATIONS)}.")
            )
        return ACTIVATIONS[name]

    def labels(self) -> tuple[int, list[str]]:
        """Returns (how many classes, their names) as transformers counts them: two unless said."""
        names = self.take("id2label", {}, dict)
        count = self.take("num_labels", len(names) or 2, int)
        if not names:
            return count, []
        try:
            ordered = [str(names[str(i)]) for i in range(len(names))]
        except KeyError:
            raise ConfigError(f"{self.where}: 'id2label' does not count from 0.") from None
        plain = ordered == [f"LABEL_{i}" for i in range(len(names))]
        return len(names), [] if plain else ordered

    def architecture(self, *known: str) -> str | None:
        """Returns the class that wrote the file, if it says; refuses others than the known ones."""
        written = self.take("architectures", [], list)
        if written and written[0] not in known:
            raise ConfigError(
                f"{self.where}: architecture {show(written[0])} is not implemented here, only "
                f"{', '.join(known)}."
            )
        return written[0] if written else None

    def ignore(self, *keys: str) -> None:
        """Marks keys that change nothing in what the model computes."""
        self._known.update(keys)

    def ignore_generic(self) -> None:
        """Marks what every transformers config may hold; refuses what would change the model."""
        self.ignore(*GENERIC)
        for key, neutral in NEUTRAL.items():
            self.only(key, neutral, None)

    def rest(self) -> dict[str, Any]:
        """Returns what nothing asked for yet: keys of something that lies in the same file."""
        return {key: value for key, value in self.content.items() if key not in self._known}

    def finish(self, format: str) -> None:
        """Refuses the keys that nothing asked for."""
        unknown = [key for key in self.content if key not in self._known]
        if unknown:
            raise ConfigError(
                f"{self.where}: {', '.join(map(repr, unknown[:5]))} is not known to format "
                f"{format!r}, so the model might compute something else."
                + hint(unknown[0], self._known)
            )


def public_activation(name: str) -> str:
    """Returns transformers' name of one of our activations."""
    return TRANSFORMERS_ACTIVATIONS[name]


def public_labels(classes: int, names: list[str]) -> dict[str, Any]:
    """Returns transformers' keys for classes and their names."""
    names = names or [f"LABEL_{i}" for i in range(classes)]
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def one_size(sizes: Iterable[int]) -> Any:
    """Returns (height, width) as public configs write it: one number for a square."""
    height, width = sizes
    return height if height == width else [height, width]


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Returns the dotted paths at which two plain mappings differ."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        keys = dict.fromkeys((*ours, *theirs))
        return [
            found
            for key in keys
            for found in differences(
                ours.get(key), theirs.get(key), f"{path}.{key}" if path else str(key)
            )
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [f for i, (a, b) in pairs for f in differences(a, b, f"{path}.{i}")]
    if isinstance(ours, float) and isinstance(theirs, float):
        return [] if math.isclose(ours, theirs, rel_tol=1e-9) else [path]
    return [] if ours == theirs else [path]


def show(value: Any) -> str:
    """Returns a value as an error may print it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
