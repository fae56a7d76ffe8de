"""Upload a model folder or a run to a hub repository, in one commit.

Examples:
    zoo push runs/7 acme/my-muse --private
    zoo push runs/7 acme/my-muse --dry-run      says what would change

The hub is HF_ENDPOINT, the token HF_TOKEN. The card on the hub is brought up to date, never
overwritten; when nothing changed there is no commit.
"""

from __future__ import annotations

import argparse

from zoo.cli.output import add_json, note, print_json, print_table

SECTION = "Share"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("folder", metavar="FOLDER", help="what zoo saved: a model folder or a run")
    parser.add_argument("repo", help="owner/name")
    parser.add_argument("--private", action="store_true", help="create the repository private")
    parser.add_argument("--revision", help="a branch (default: main), created when it is new")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead")
    parser.add_argument("--message", help="the commit's title")
    parser.add_argument("--dry-run", action="store_true", help="look, and change nothing")
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Pushes."""
    import zoo

    done = zoo.push(
        args.folder,
        args.repo,
        private=args.private,
        revision=args.revision,
        create_pr=args.create_pr,
        message=args.message,
        dry_run=args.dry_run,
    )
    for text in done.notes:
        note(text)
    if args.json:
        print_json(vars(done))
        return
    if done.files:
        print_table(["file", "state"], done.files)
    if not done.changed:
        print(f"nothing to push: {done.url}")
    else:
        print(f"{'would push to' if args.dry_run else 'pushed'} {done.url}")
