"""The front of the `zoo` command: find the command, parse, run, turn errors into one line.

Nothing here imports torch, and only the file of the command that was asked for is imported.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from zoo.errors import ZooError
from zoo.registry.suggest import hint

__all__ = ["UsageError", "command_names", "load_command", "main", "parser_of"]

COMMANDS = Path(__file__).parent / "commands"
SECTIONS = ("Look", "Use", "Train", "Share", "House")  # the order of `zoo --help`
INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 + the signal's number, as a shell reports them


class UsageError(ZooError):
    """A command line that means nothing here."""


class Parser(argparse.ArgumentParser):
    """argparse that raises instead of exiting, and names the nearest option."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")

    def read(self, words: list[str]) -> argparse.Namespace:
        """Returns the parsed words; options and positional words may come in any order."""
        nested = any(isinstance(a, argparse._SubParsersAction) for a in self._actions)
        parse = self.parse_known_args if nested else self.parse_known_intermixed_args
        found, unknown = parse(words)
        if unknown:
            options = [word for action in self._actions for word in action.option_strings]
            near = hint(unknown[0], options) if unknown[0].startswith("-") else ""
            raise UsageError(
                f"{self.prog} does not understand {unknown[0]!r}.{near} See {self.prog} --help."
            )
        return found


# -- commands --------------------------------------------------------------------------------------


def command_names() -> list[str]:
    """Returns the commands that a person may type, sorted."""
    files = (file.stem for file in COMMANDS.glob("*.py") if not file.stem.startswith("_"))
    return sorted(stem.replace("_", "-") for stem in files)


def load_command(name: str) -> ModuleType:
    """Returns the module of a command; raises UsageError naming the nearest one."""
    known = command_names()
    if name not in known:
        raise UsageError(f"Unknown command {name!r}.{hint(name, known)} See zoo --help.")
    return importlib.import_module(f"zoo.cli.commands.{name.replace('-', '_')}")


def parser_of(name: str) -> Parser | None:
    """Returns the parser of a command, or None for one that parses its own words."""
    module = load_command(name)
    if hasattr(module, "run_raw"):
        return None
    parser = Parser(
        prog=f"zoo {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    return parser


def help_text() -> str:
    """Returns what `zoo --help` prints: every command with the first line of its file."""
    rows: dict[str, list[str]] = {section: [] for section in SECTIONS}
    for name in command_names():
        module = load_command(name)
        line = (module.__doc__ or "").strip().splitlines()[0].rstrip(".")
        rows[getattr(module, "SECTION", "Use")].append(f"  {name:<12} {line}")
    blocks = [f"{section}\n" + "\n".join(lines) for section, lines in rows.items() if lines]
    return (
        "usage: zoo COMMAND [...]        zoo COMMAND --help        zoo --version\n\n"
        "Every transformer in the field's textbook, loaded by name.\n\n" + "\n\n".join(blocks)
    )


# -- running ---------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Runs a command line and returns its exit code.

    A ZooError becomes one line on stderr and code 2; `ZOO_DEBUG=1` shows where it came from.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            warnings.filterwarnings("default", r".* is now called ", DeprecationWarning)
            code = _dispatch(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
        return code
    except (
        BrokenPipeError
    ):  # `zoo list | head`: whoever read has gone, and Python must not say so at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except (ZooError, OSError) as error:
        if os.environ.get("ZOO_DEBUG"):
            raise
        print(f"zoo: {_one_line(error)}", file=sys.stderr)
        return 2


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        if words[1:]:  # zoo help push
            return _dispatch([words[1], "--help"])
        print(help_text())
        return 0
    if words[0] in ("-V", "--version"):
        from zoo import __version__

        print(f"zoo {__version__}")
        return 0
    if words[0] == "__complete":  # what the shell's completion script calls
        from zoo.cli.complete import complete

        print(*complete(words[1] if words[1:] else ""), sep="\n")
        return 0
    module = load_command(words[0])
    if hasattr(module, "run_raw"):
        return module.run_raw(words[0], words[1:]) or 0
    parser = parser_of(words[0])
    assert parser is not None
    try:
        arguments = parser.read(words[1:])
    except SystemExit as done:  # --help
        return int(done.code or 0)
    return module.run(arguments) or 0


def _one_line(error: Exception) -> str:
    """Returns the text of an error as one line."""
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return " ".join(str(error).split())


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    """Warnings are for people too: one line, without the path of a source file."""
    print(f"zoo: {' '.join(str(message).split())}", file=sys.stderr)
