"""Names -> typed config nodes; plugins. Torch-free.

Declare a schema with `kind`, `setting`, `part`, `parts`, `section`; read one with `resolve`, `read_node`;
write it back with `to_mapping`; make what it stands for with `build`.
"""

from zoo.registry.names import Name, parse_name
from zoo.registry.nodes import (
    GROUPS,
    conf_dir,
    conf_folders,
    find_node,
    forget,
    names,
    read_mapping,
    read_node,
    resolve,
)
from zoo.registry.overrides import apply_overrides
from zoo.registry.plugins import Plugin, plugins
from zoo.registry.schema import build, kind, part, parts, section, setting, to_mapping

__all__ = [
    "GROUPS",
    "Name",
    "Plugin",
    "apply_overrides",
    "build",
    "conf_dir",
    "conf_folders",
    "find_node",
    "forget",
    "kind",
    "names",
    "parse_name",
    "part",
    "parts",
    "plugins",
    "read_mapping",
    "read_node",
    "resolve",
    "section",
    "setting",
    "to_mapping",
]
