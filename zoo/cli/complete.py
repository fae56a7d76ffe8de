"""What may come next on a command line: the shell calls `zoo __complete "typed so far"`."""

from __future__ import annotations

import argparse
import shlex

from zoo.cli.front import command_names, load_command, parser_of
from zoo.errors import ZooError
from zoo.registry.nodes import GROUPS, names

__all__ = ["SCRIPTS", "complete"]

# The groups of conf/train.yaml; a part is chosen where it stands: model.backbone.position=rope.
CHOICES = ("data", "experiment", "model", "objective", "optim", "schedule", "trainer")

# bash splits words at `=` and `:` too: what it holds of the last word is taken off the candidates.
_BASH = """\
_zoo() {
    local line="${COMP_LINE:0:COMP_POINT}" word
    word="${line##* }"
    local IFS=$'\\n' held="${word%"${word##*[=:]}"}"
    COMPREPLY=($(compgen -W "$(zoo __complete "$line" 2>/dev/null)" -- "$word"))
    COMPREPLY=("${COMPREPLY[@]#"$held"}")
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace
    return 0
}
complete -o default -o bashdefault -F _zoo zoo
"""
_ZSH = """\
#compdef zoo
_zoo() {
    local -a found
    found=("${(@f)$(zoo __complete "$LBUFFER" 2>/dev/null)}")
    found=(${found:#})
    if (( ${#found} )); then
        compadd -S '' -q -- ${found:#*[=.]}
        compadd -S '' -- ${(M)found:#*[=.]}
        compstate[insert]=menu
    else
        _files
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _zoo "$@"; else compdef _zoo zoo; fi
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH}


def complete(line: str) -> list[str]:
    """Returns the candidates for the last word of a line; none when files are meant."""
    words = _split(line)
    if len(words) < 2:
        return []
    *before, last = words[1:]
    if not before:
        return _starting(last, command_names())
    try:
        return _starting(last, _candidates(before[0], before[1:], last))
    except ZooError:  # an unknown command, a broken plugin: nothing to offer
        return []


def _split(line: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError:  # an open quote
        words = line.split()
    return [*words, ""] if not line or line[-1].isspace() else words


def _starting(last: str, candidates: list[str]) -> list[str]:
    return sorted({word for word in candidates if word.startswith(last)})


def _candidates(command: str, before: list[str], last: str) -> list[str]:
    module = load_command(command)
    if hasattr(module, "complete"):
        return module.complete(before, last)
    parser = parser_of(command)
    if parser is None:
        return override_candidates(last)
    return _from_parser(parser, before, last)


def _from_parser(parser: argparse.ArgumentParser, before: list[str], last: str) -> list[str]:
    options = {word: action for action in parser._actions for word in action.option_strings}
    positional = [action for action in parser._actions if not action.option_strings]
    place, value_of = 0, None
    for index, word in enumerate(before):
        if value_of is not None:
            value_of = None
        elif word in options:
            value_of = options[word] if options[word].nargs != 0 else None
        else:
            action = positional[min(place, len(positional) - 1)] if positional else None
            if isinstance(action, argparse._SubParsersAction) and word in action.choices:
                return _from_parser(action.choices[word], before[index + 1 :], last)
            place += 1
    if value_of is not None:
        return _values(value_of)
    if last.startswith("-"):
        return [*options]
    if not positional:
        return []
    action = positional[min(place, len(positional) - 1)]
    if place >= len(positional) and action.nargs not in ("*", "+"):
        return []
    return _values(action)


def _values(action: argparse.Action) -> list[str]:
    """Returns what an argument may be; nothing lets the shell offer files."""
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    if action.metavar == "NAME":
        return names("model")
    if action.metavar == "GROUP":
        return [*GROUPS]
    return []


def override_candidates(last: str) -> list[str]:
    """Returns `group=name` words as `zoo train` takes them, also below a dotted key."""
    key, equals, _ = last.partition("=")
    if not equals:
        return [f"{group}=" for group in CHOICES]
    group = key.rpartition(".")[2]
    return [f"{key}={name}" for name in names(group)] if group in GROUPS else []
