"""`.gitignore` rules, as a server applies them to the files a client offers (gitignore(5))."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["ignored"]


def ignored(path: str, rules: str) -> bool:
    """Whether the last rule that speaks about `path`, or about one of its folders, excludes it.

    As in git, a file cannot be re-included (`!name`) once its folder is excluded.
    """
    parts = path.split("/")
    for end in range(1, len(parts) + 1):
        verdict = False
        for negated, only_folder, pattern in _compiled(rules):
            if (not only_folder or end < len(parts)) and pattern.fullmatch("/".join(parts[:end])):
                verdict = not negated
        if verdict:
            return True
    return False


@lru_cache(maxsize=8)
def _compiled(rules: str) -> tuple[tuple[bool, bool, re.Pattern[str]], ...]:
    found = []
    for line in rules.splitlines():
        rule = line if line.endswith("\\ ") else line.rstrip()
        if not rule or rule.startswith("#"):
            continue
        negated = rule.startswith("!")
        rule = rule[1:] if negated or rule.startswith(("\\#", "\\!")) else rule
        only_folder = rule.endswith("/")
        rule = rule.rstrip("/")
        anchored = "/" in rule
        body = _translate(rule.lstrip("/"))
        found.append((negated, only_folder, re.compile(body if anchored else f"(?:.*/)?{body}")))
    return tuple(found)


def _translate(rule: str) -> str:
    """A glob as a regular expression: `*` and `?` stay inside one folder, `**` crosses folders."""
    out, at = "", 0
    while at < len(rule):
        if rule.startswith("**/", at):
            out, at = out + "(?:.*/)?", at + 3
        elif rule.startswith("/**", at) and at + 3 == len(rule):
            out, at = out + "/.+", at + 3
        elif rule[at] == "*":
            out, at = out + "[^/]*", at + 1
        elif rule[at] == "?":
            out, at = out + "[^/]", at + 1
        elif rule[at] == "[" and (end := rule.find("]", at + 2)) > 0:
            inside = rule[at + 1 : end].replace("\\", "\\\\")
            out += "[" + ("^" + inside[1:] if inside[0] in "!^" else inside) + "]"
            at = end + 1
        elif rule[at] == "\\" and at + 1 < len(rule):
            out, at = out + re.escape(rule[at + 1]), at + 2
        else:
            out, at = out + re.escape(rule[at]), at + 1
    return out
