"""What is installed, what fits together, and what is broken.

Examples:
    zoo doctor
    zoo doctor --json

The exit code is 1 when something is broken. It prints no secrets: of the token only whether there
is one.
"""

from __future__ import annotations

import argparse
from itertools import groupby

from zoo.cli.output import add_json, is_terminal, print_json, status

SECTION = "House"
MARKS = {"ok": "[green]✓[/]", "absent": "[dim]-[/]", "broken": "[bold red]✗[/]", "note": " "}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Examines and reports."""
    from zoo.doctor.report import examine

    with status("looking"):
        findings = [*examine()]
    broken = [finding for finding in findings if finding.state == "broken"]
    if args.json:
        print_json({"ok": not broken, "findings": [vars(finding) for finding in findings]})
        return 1 if broken else 0
    for section, group in groupby(findings, key=lambda finding: finding.section):
        _print_section(section, [*group])
    if broken:
        print(f"\n{len(broken)} broken: {', '.join(finding.name for finding in broken)}")
    else:
        print("\nnothing is broken")
    return 1 if broken else 0


def _print_section(section: str, findings: list) -> None:
    if not is_terminal():
        for item in findings:
            advice = f" ({item.advice})" if item.advice else ""
            print(f"{section}\t{item.name}\t{item.state}\t{item.text}{advice}")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=3, justify="right")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for item in findings:
        advice = f"\n[dim]{escape(item.advice)}[/]" if item.advice else ""
        table.add_row(MARKS[item.state], escape(item.name), escape(item.text) + advice)
    console = Console()
    console.print(f"\n[bold]{section}[/]")
    console.print(table)
