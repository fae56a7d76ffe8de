"""YAML with the scalar rules of Hydra's reader, so that both readers of a node see one value."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError

__all__ = ["parse_scalar", "read_yaml"]

# YAML 1.1 reads `1e-3` as a string; OmegaConf, like everybody who writes learning rates, reads a
# number.
_FLOAT = re.compile(
    r"""^(?:
     [-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)
    |\.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.X,
)
# What a word may mean on a command line besides itself: tag, form, first characters. YAML's `on`,
# `yes`, `16:9` (969) and `010` (8) are words and plain numbers there, as they are for Hydra.
_WORDS = (
    ("bool", re.compile(r"^(?:true|false)$", re.I), "tTfF"),
    ("null", re.compile(r"^null$", re.I), "nN"),
    ("int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)$"), "-+0123456789"),
    ("float", _FLOAT, "-+0123456789."),
)
# Hydra's `{name:rope}` needs no blank after the colon, YAML does; what is quoted stays as it is.
_KEY = re.compile(r"""('[^']*'|"[^"]*")|([{,]\s*[\w.-]+):(?=\S)""")


@cache
def _loader(command_line: bool = False) -> type:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is

    class Loader(base):
        """SafeLoader that refuses duplicate keys and reads exponent floats."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            seen: set = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                problem = (
                    "a key is a word"
                    if isinstance(key, (list, dict))
                    else f"key {key!r} stands twice"
                    if key in seen
                    else None
                )
                if problem:
                    raise yaml.constructor.ConstructorError(
                        None, None, problem, key_node.start_mark
                    )
                seen.add(key)
            return super().construct_mapping(node, deep)

    # Dates stay strings (as in OmegaConf): a node holds only what JSON can hold.
    Loader.yaml_implicit_resolvers = {
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in Loader.yaml_implicit_resolvers.items()
        if not command_line
    }
    for name, regexp, first in _WORDS:
        if command_line or name == "float":
            Loader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", regexp, list(first))
    return Loader


def read_yaml(path: Path) -> Any:
    """Returns the content of a YAML file; raises ConfigError naming file and line when it is not
    YAML."""
    import yaml

    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: {getattr(error, 'problem', None) or error}.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}).") from None


def parse_scalar(text: str) -> Any:
    """Returns what `key=text` means on a command line: a number, bool, null, list, mapping or
    string.

    Raises: ConfigError for a bracket or a quote that does not close.
    """
    import yaml

    if text[:1] in ("[", "{", "'", '"'):
        text = _KEY.sub(lambda m: m[1] or f"{m[2]}: ", text)
    elif not any(regexp.match(text) for _, regexp, _ in _WORDS):
        return text  # words, paths, `a: b`, `*`: nothing that YAML should have an opinion on
    try:
        return yaml.load(text, Loader=_loader(command_line=True))
    except yaml.YAMLError:
        raise ConfigError(f"{text} is no value: a bracket or a quote does not close.") from None
