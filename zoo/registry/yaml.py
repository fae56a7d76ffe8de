"""YAML with the same scalar rules as Hydra's reader, so that both readers of a node see one value."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError

__all__ = ["parse_scalar", "read_yaml"]

# YAML 1.1 reads `1e-3` as a string; OmegaConf, like everybody who writes learning rates, reads a number.
_FLOAT = re.compile(
    r"""^(?:
     [-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
    |\.[0-9_]+(?:[eE][-+][0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.X,
)


@cache
def _loader() -> type:
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        """SafeLoader that refuses duplicate keys and reads exponent floats."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            seen: set = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key!r} stands twice", key_node.start_mark
                    )
                seen.add(key)
            return super().construct_mapping(node, deep)

    # Dates stay strings (as in OmegaConf): a node holds only what JSON can hold.
    Loader.yaml_implicit_resolvers = {
        first: [
            (tag, regexp) for tag, regexp in resolvers if not tag.endswith((":float", ":timestamp"))
        ]
        for first, resolvers in Loader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
    return Loader


def read_yaml(path: Path) -> Any:
    """Returns the content of a YAML file; raises ConfigError naming file and line when it is not YAML."""
    import yaml

    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: {getattr(error, 'problem', None) or error}.") from None


def parse_scalar(text: str) -> Any:
    """Returns the value that `key=text` on a command line means: number, bool, null, list, mapping or string."""
    import yaml

    if text[:1] in "{[":  # Hydra's `{name:rope}` needs no blank after the colon
        text = re.sub(r"([\w.-]+):(?=[^\s/])", r"\1: ", text)
    try:
        return yaml.load(text, Loader=_loader()) if text else ""
    except yaml.YAMLError:
        return text
