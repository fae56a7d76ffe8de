"""The commands: a file here is a command (`push.py` is `zoo push`), found by its name.

The first line of a file's docstring is its line in `zoo --help`, the rest its description. It must
not import torch when it is imported, and it holds either

    SECTION = "Look"                       # optional: where in `zoo --help` it stands
    def add_arguments(parser): ...         # an argparse parser
    def run(args) -> int | None: ...       # the exit code; None is 0

or, for a command that parses its own words, `run_raw(command, words) -> int | None`.
Positional arguments called NAME, GROUP, FILE or FOLDER are completed by the shell as what they are.
"""
