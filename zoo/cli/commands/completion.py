"""A script that completes commands, options and names in your shell.

Examples:
    source <(zoo completion bash)          in ~/.bashrc
    zoo completion zsh > ~/.zfunc/_zoo     with that folder in fpath
"""

from __future__ import annotations

import argparse

SECTION = "House"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("shell", choices=["bash", "zsh"])


def run(args: argparse.Namespace) -> None:
    """Prints the script."""
    from zoo.cli.complete import SCRIPTS

    print(SCRIPTS[args.shell], end="")
