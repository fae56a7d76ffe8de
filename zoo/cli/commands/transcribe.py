"""What is said in sounds, as text, subtitles or JSON.

Examples:
    zoo transcribe whisper-small talk.flac
    zoo transcribe whisper-tiny talks/ --format srt --out subtitles --words
    zoo transcribe whisper-large-v3 interview.m4a --language de --task translate --beams 5
    zoo transcribe whisper-large-v3 talk.flac --draft distil-whisper-large-v3
    zoo transcribe whisper-small lecture.mp3 --stream

A folder stands for the files in it. Text goes to the terminal as batches are heard (with --stream
each segment by itself), files to --out (or beside each other in the working directory). On a
terminal a bar shows how far it is. A file that cannot be read gets a line on stderr, and the exit
code is 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.cli.front import UsageError
from zoo.cli.inputs import add_model, expand, load_model
from zoo.cli.output import add_json, note, print_json, progress_of_sound, say_gain
from zoo.errors import ConfigError, DataError
from zoo.registry.suggest import hint

SECTION = "Use"
FORMATS = ("txt", "srt", "vtt", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    add_model(parser)
    parser.add_argument("files", nargs="+", metavar="FILE", help="sounds, or folders of them")
    parser.add_argument("--language", help="what is spoken, by code or name (default: listen)")
    parser.add_argument("--task", choices=("transcribe", "translate"), help="or into English")
    parser.add_argument("--words", action="store_true", help="a time for every word")
    parser.add_argument("--prompt", help="text that might have come before: names, spelling")
    parser.add_argument("--beams", type=int, help="hypotheses kept (default 1: greedy)")
    parser.add_argument("--batch-size", type=int, help="sounds decoded at a time (default 8)")
    parser.add_argument(
        "--draft", metavar="NAME", help="a smaller model that guesses; the text stays the same"
    )
    parser.add_argument(
        "--stream", action="store_true", help="print each segment with its times when it is heard"
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="key=value",
        help="another option of the model's transcribe (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--format", action="append", choices=FORMATS, help="file to write (repeatable)"
    )
    parser.add_argument("--out", metavar="DIR", help="folder that files are written to")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the texts, or writes files and prints their names."""
    given = _options(args)
    files = expand(args.files)
    folder = Path(args.out) if args.out else Path()
    names = _targets(files, args.format or (["txt"] if args.out else []), folder)
    if args.stream and (names or args.json):
        raise UsageError("--stream prints lines; leave out --format, --out and --json.")
    model = load_model(args, "stream" if args.stream else "transcribe")
    given = _known(model, args.name, given)
    if args.draft:
        from zoo.cli.inputs import load_another

        given["draft"] = load_another(args.draft, args)
    if args.stream:
        return _streamed(model, files, given)
    if names:
        folder.mkdir(parents=True, exist_ok=True)
    failed, heard = False, []
    for file, answer in _transcribed(model, files, given):
        if isinstance(answer, DataError):
            failed = True
            note(str(answer))
        elif args.json:
            heard.append({"file": file, **answer.to_mapping()})
            _write(answer, names.get(file, []))
        elif names:
            for path in _write(answer, names[file]):
                print(path, flush=True)
        else:
            text = answer.text.strip()
            print(text if len(files) == 1 else f"{file}\t{text}", flush=True)
    if args.json:
        print_json(heard)
    if args.draft:
        say_gain(model.report)
    return int(failed)


def _write(answer: Any, paths: list[Path]) -> list[Path]:
    from zoo.models.speech.writers import write_transcript

    return [write_transcript(answer, path) for path in paths]


def _streamed(model: Any, files: list[str], given: dict[str, Any]) -> int:
    """Prints segments as they are heard."""
    from zoo.models.speech.writers import clock

    failed = False
    given = {key: value for key, value in given.items() if key != "batch_size"}
    for file in files:
        try:
            for one in model.stream(file, **given):
                times = f"{clock(one.start, hours=False)} --> {clock(one.stop, hours=False)}"
                line = f"{times}\t{one.text.strip()}"
                print(line if len(files) == 1 else f"{file}\t{line}", flush=True)
        except DataError as error:
            failed = True
            note(str(error))
    return int(failed)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what was asked for; options that were not given are the model's own."""
    from zoo.registry.overrides import apply_overrides

    given = apply_overrides({}, args.option)
    named = {"language": args.language, "task": args.task, "prompt": args.prompt}
    named |= {"beams": args.beams, "batch_size": args.batch_size, "words": args.words or None}
    return {**given, **{key: value for key, value in named.items() if value is not None}}


def _known(model: Any, name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Returns the options for a model's `transcribe`; raises ConfigError for one that it lacks."""
    import inspect

    parameters = inspect.signature(model.transcribe).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return given  # it checks them itself
    # models that read a whole utterance always have words
    given = {key: value for key, value in given.items() if key != "words"}
    if unknown := [key for key in given if key not in parameters]:
        raise ConfigError(
            f"{unknown[0]}: {name!r} transcribes without it.{hint(unknown[0], parameters)}"
        )
    return given


def _targets(files: list[str], formats: list[str], folder: Path) -> dict[str, list[Path]]:
    """Returns the files that each sound becomes; raises ConfigError where two would be one."""
    names: dict[str, list[Path]] = {}
    taken: dict[Path, str] = {}
    for file in files if formats else []:
        names[file] = [folder / f"{Path(file).stem}.{format}" for format in formats]
        for path in names[file]:
            if path in taken:
                raise ConfigError(f"{file} and {taken[path]} would both become {path}.")
            taken[path] = file
    return names


def _transcribed(model: Any, files: list[str], given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields (file, answer), batch by batch; where one file cannot be read, the others still get
    theirs."""
    size = given.get("batch_size", 8)
    with progress_of_sound(len(files)) as (update, advance):
        for start in range(0, len(files), size):
            batch = files[start : start + size]
            answers = _batch(model, batch, {**given, "progress": update})
            advance(len(batch))
            yield from zip(batch, answers, strict=True)


def _batch(model: Any, files: list[str], given: dict[str, Any]) -> list[Any]:
    try:
        return model.transcribe(files, **given)
    except DataError as error:
        if len(files) == 1:
            return [error]
        return [answer for file in files for answer in _batch(model, [file], given)]
