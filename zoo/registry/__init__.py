"""Names -> typed config nodes; plugins. Torch-free.

Declare a schema with `kind`, `setting`, `part`, `parts`, `section`; read one with `resolve`,
`read_node`; write it back with `to_mapping`; make what it stands for with `build`.
"""

from zoo.registry.folders import GROUPS, conf_dir, conf_folders, forget, names
from zoo.registry.grammar import Name, parse_name
from zoo.registry.nodes import find_node, read_mapping, read_node, read_tagged
from zoo.registry.overrides import apply_overrides
from zoo.registry.plugins import Plugin
from zoo.registry.schema import build, kind, part, parts, section, setting, to_mapping
from zoo.registry.typed import resolve, resolve_mapping

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
    "read_mapping",
    "read_node",
    "read_tagged",
    "resolve",
    "resolve_mapping",
    "section",
    "setting",
    "to_mapping",
]
