"""What follows a prompt, as it comes.

Examples:
    zoo generate gpt2 "Once upon a time" --max-new-tokens 50
    zoo generate gpt2 "def main():" --temperature 0.8 --top-p 0.9 --seed 1
    zoo generate gpt2 --file letter.txt --prompt-cache letter.safetensors
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from zoo.cli.decoding import add_decoding, decoding
from zoo.cli.inputs import add_model, load_another, load_model
from zoo.cli.output import add_json, print_json
from zoo.errors import ConfigError, DataError

SECTION = "Use"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    add_model(parser)
    parser.add_argument(
        "prompt", metavar="PROMPT", nargs="?", help="the text to go on from; - reads stdin"
    )
    parser.add_argument("--file", metavar="FILE", help="a file with the text, in place of PROMPT")
    parser.add_argument("--draft", help="'prompt', or the name of a smaller model that guesses")
    parser.add_argument(
        "--prompt-cache", metavar="FILE", help="keeps what reading the prompt computes"
    )
    parser.add_argument(
        "--cache", help="full (default), or int8: a quarter of the memory for keys and values"
    )
    add_decoding(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Streams one answer; several (--results, --beams) are printed when they are there."""
    given, prompt = decoding(args), _prompt(args)
    model = load_model(args, "generate")
    if args.draft is not None:
        alone = args.draft == "prompt"
        given["draft"] = args.draft if alone else load_another(args.draft, args)
    if args.prompt_cache:
        given["prompt_cache"] = args.prompt_cache
    if args.cache:
        given["cache"] = args.cache
    whole = "draft" in given or "prompt_cache" in given
    if args.json or whole or given.get("beams", 1) > 1 or given.get("results", 1) > 1:
        answer = model.generate(prompt, **given)
        texts = answer if isinstance(answer, list) else [answer]
        if args.json:
            print_json([{"prompt": prompt, "text": text} for text in texts])
        else:
            print("\n".join(texts))
        return 0
    for piece in model.stream(prompt, **given):
        print(piece, end="", flush=True)
    print()
    return 0


def _prompt(args: argparse.Namespace) -> str:
    """Returns the text to go on from; raises ConfigError unless there is exactly one."""
    if (args.prompt is None) == (args.file is None):
        raise ConfigError("Give the text to go on from, or --file with a file that holds it.")
    if args.file is None:
        return sys.stdin.read() if args.prompt == "-" else args.prompt
    try:
        return Path(args.file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--file: {args.file} cannot be read as text: {error}.") from None
