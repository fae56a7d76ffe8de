"""Running a Hydra app with errors that people can read.

The app is a plain `@hydra.main`, so everything that Hydra's command line can do works. What differs
is what is said when a word is wrong: every refusal, Hydra's included, is one sentence.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from zoo.errors import ConfigError, ZooError

__all__ = ["SHOWS", "quote", "run_app"]

# flags that print something instead of running what was composed
SHOWS = ("--help", "-h", "--hydra-help", "--info", "-i", "--shell-completion", "-sc", "--version")


def run_app(name: str, words: list[str], task: Callable[[Any], None]) -> None:
    """Runs a Hydra app on conf/NAME.yaml with the words as its command line."""
    import hydra

    from zoo.registry import conf_dir
    from zoo.training.compose import Loader, installed

    folder = _check_flags(name, words)
    # A node comes after what it extends, with or without `_self_`, in both of its readers.
    warnings.filterwarnings("ignore", "In .*: Defaults list is missing `_self_`")
    Loader.strict = not set(SHOWS) & set(words)
    problems: list[ZooError] = []

    def job(cfg: Any) -> None:
        try:
            task(cfg)
        except ZooError as problem:  # raised below: Hydra would print the overrides before it
            problems.append(problem)

    app = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=name)(job)
    with installed(), _command_line([f"zoo {name}", *words], folder), _in_our_words():
        try:
            app()
        except SystemExit as done:  # --help and the like end so
            if done.code:
                raise
    if problems:
        raise problems[0]


@contextmanager
def _command_line(words: list[str], folder: str | None) -> Iterator[None]:
    """Hydra reads sys.argv, hides errors behind sys.exit(1) unless asked for them, and sets up the
    root logger; all of it is put back, since this may run in somebody's process.

    `folder` is that of `--config-dir`, whose names zoo's reader must know as well as Hydra does.
    """
    argv, environment, root = sys.argv, dict(os.environ), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = words, "1"
    if folder is not None:
        known = os.environ.get("ZOO_CONF_PATH")
        paths = [*([known] if known else []), os.path.abspath(folder)]
        os.environ["ZOO_CONF_PATH"] = os.pathsep.join(paths)
    try:
        yield
    finally:
        sys.argv = argv
        root.handlers[:] = handlers
        root.setLevel(level)
        for key in ("HYDRA_FULL_ERROR", "ZOO_CONF_PATH"):
            os.environ.pop(key, None)
            if key in environment:
                os.environ[key] = environment[key]


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Turns Hydra's errors into ours: one sentence, with the nearest right name."""
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except OverrideParseException as error:
        raise ConfigError(
            f"{error.override!r} cannot be read: {_first_line(error)}; quote what is no plain "
            "word, as in 'key=\"a, b\"'."
        ) from None
    except MissingConfigException as error:
        _missing(error)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_composition(error)) from None


def _missing(error: Any) -> NoReturn:
    """A node that is not there: the registry says it best, and knows the nearest name."""
    from zoo.registry.folders import GROUPS
    from zoo.training.compose import check_option

    group, _, option = (error.missing_cfg_file or "").removesuffix(".yaml").partition("/")
    if group in GROUPS and option:
        check_option(group, option)
    raise ConfigError(_first_line(error)) from None


def _composition(error: Exception) -> str:
    text = str(error)
    if "Could not override" in text and "No match in the defaults list" in text:
        group = text.partition("'")[2].partition("'")[0]
        return (
            f"{group}: this is no choice of the experiment; set a part where it stands, as in "
            f"model.backbone.{group.partition('@')[0]}=NAME."
        )
    if "requires --multirun" in text or "Ambiguous value for argument" in text:
        word = text.partition("'")[2].partition("'")[0]
        return (
            f"{word}: several values make a sweep, which is zoo sweep (or -m); a list is key=[a,b]."
        )
    cause = error.__cause__ or error.__context__
    reason = f" ({_first_line(cause)})" if cause is not None and not text else ""
    return f"{_first_line(error)}{reason}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0].rstrip(".")


def _check_flags(name: str, words: list[str]) -> str | None:
    """Returns what `--config-dir` says; raises ConfigError with the nearest option for a flag that
    Hydra would answer with its whole usage."""
    from hydra._internal.utils import get_args_parser

    from zoo.registry.suggest import hint

    parser = get_args_parser()
    parser.error = _refuse(name)  # type: ignore[assignment]
    read, unknown = parser.parse_known_args([w for w in words if w not in ("--version", "-sc")])
    for word in unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        raise ConfigError(f"zoo {name} does not understand {word!r}.{hint(word, known)}")
    return read.config_dir


def _refuse(name: str) -> Callable[[str], NoReturn]:
    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"zoo {name}: {message}.")

    return refuse


def quote(text: str) -> str:
    """Returns a word that Hydra's grammar reads as this text, whatever is in it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
