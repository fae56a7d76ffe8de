"""A model behind an HTTP server that OpenAI's clients talk to.

Examples:
    zoo serve gpt2                                       on this machine only, port 8000
    zoo serve dir:runs/7 --dtype bf16 --running 32 --memory 4096
    ZOO_SERVE_KEY=… zoo serve llama-3.2-1b --host 0.0.0.0

    curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' \\
         -d '{"prompt": "Once upon a time", "max_tokens": 20, "stream": true}'

Completions and chat, whole or streamed; /health says how busy it is. SIGTERM lets open answers
finish for the grace. Clients must send the key of ZOO_SERVE_KEY as a bearer token, when it is set.
"""

from __future__ import annotations

import argparse
import dataclasses
import os

from zoo.cli.front import UsageError
from zoo.cli.inputs import add_model, load_model
from zoo.errors import ConfigError
from zoo.registry.typed import validate
from zoo.serving.schema import Limits

SECTION = "Share"
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    add_model(parser)
    parser.add_argument("--host", default="127.0.0.1", help="default: this machine only")
    parser.add_argument("--port", type=int, default=8000, help="default 8000; 0 takes a free one")
    parser.add_argument("--as", dest="alias", metavar="NAME", help="what clients call the model")
    group = parser.add_argument_group("limits")
    for field in dataclasses.fields(Limits):
        kind = float if "float" in str(field.type) else int
        shown = f"{field.metadata['doc']} (default: {field.default})"
        group.add_argument(f"--{field.name}", type=kind, help=shown)


def run(args: argparse.Namespace) -> None:
    """Serves."""
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(Limits)}
    limits = validate(Limits, {name: value for name, value in given.items() if value is not None})
    key = os.environ.get("ZOO_SERVE_KEY") or None
    if args.host not in LOOPBACK and key is None:
        raise UsageError(
            f"--host {args.host} is open to others: set ZOO_SERVE_KEY to what they must send."
        )
    from zoo.models.text.verbs import CausalVerbs
    from zoo.serving.server import serve  # before a large model is loaded: is the extra there?

    model = load_model(args, "generate")
    if not isinstance(model, CausalVerbs):
        kind = model.config.zoo_kind
        raise ConfigError(f"{args.name!r} is a {kind} model; decoder-only ones alone are served.")

    def say(text: str) -> None:
        print(text, flush=True)  # a script that waits for the address reads a pipe

    serve(model, args.alias or args.name, limits, args.host, args.port, key, say)
