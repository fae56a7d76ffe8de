"""What a person types: `zoo COMMAND …`. One file per command in `zoo/cli/commands/`."""

from __future__ import annotations


def main(argv: list[str] | None = None) -> int:
    """Runs a command line and returns its exit code (the entry point of the `zoo` command)."""
    from zoo.cli.front import main as front

    return front(argv)
