"""Pull requests: a branch `refs/pr/N` with a title, merged file by file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from zoo.hub.disk import dump_json, now, write_atomic
from zoo.hub.repository import Conflict, Entry, Missing, Repository

__all__ = ["close_pull", "merge_pull", "open_pull", "pull_details", "pulls"]


def pulls(repository: Repository) -> Iterator[dict]:
    """Every pull request, oldest first."""
    for file in sorted((repository.folder / "pulls").glob("*.json"), key=lambda p: int(p.stem)):
        yield json.loads(file.read_bytes())


def open_pull(
    repository: Repository, title: str, description: str, author: str, base: str = "main"
) -> int:
    """Open a pull request at the state of `base` and return its number."""
    with repository.storage.changing(repository.kind, repository.name):
        num = 1 + max((pull["num"] for pull in pulls(repository)), default=0)
        start = repository.resolve(base)
        repository.set_ref(f"pr/{num}", start)
        _save(
            repository,
            {
                "num": num,
                "title": title,
                "description": description,
                "status": "open",
                "author": author,
                "created": now(),
                "base": start,
                "merged": None,
            },
        )
        return num


def pull_details(repository: Repository, num: int) -> dict:
    """One pull request as it is kept.

    Raises:
        Missing: there is none with this number.
    """
    try:
        return json.loads(_file(repository, num).read_bytes())
    except OSError:
        raise Missing("EntryNotFound", f"{repository.name} has no pull request {num}.") from None


def close_pull(repository: Repository, num: int, status: str) -> dict:
    """Set a pull request to `open` or `closed`."""
    with repository.storage.changing(repository.kind, repository.name):
        pull = pull_details(repository, num)
        if pull["status"] == "merged":
            raise Conflict(409, f"Pull request {num} of {repository.name} is merged already.")
        return _save(repository, {**pull, "status": status})


def merge_pull(repository: Repository, num: int) -> dict:
    """Bring a pull request's files into `main`; files that both sides changed stop it.

    Raises:
        Conflict: naming those files (409).
    """
    with repository.storage.changing(repository.kind, repository.name):
        pull = pull_details(repository, num)
        if pull["status"] != "open":
            raise Conflict(409, f"Pull request {num} of {repository.name} is {pull['status']}.")
        base = repository.commit(pull["base"]).files
        head = repository.commit(f"refs/pr/{num}").files

        def change(files: dict[str, Entry]) -> dict[str, Entry]:
            touched = [p for p in {*base, *head} if base.get(p) != head.get(p)]
            both = [p for p in touched if files.get(p) not in (base.get(p), head.get(p))]
            if both:
                names = ", ".join(sorted(both))
                raise Conflict(409, f"{names} changed on main since pull request {num} was opened.")
            for path in touched:
                files.pop(path, None)
                if path in head:
                    files[path] = head[path]
            return files

        merged = repository.push("heads/main", f"{pull['title']} (#{num})", "", change)
        return _save(repository, {**pull, "status": "merged", "merged": merged.oid})


def _file(repository: Repository, num: int) -> Path:
    return repository.folder / "pulls" / f"{num}.json"


def _save(repository: Repository, pull: dict) -> dict:
    write_atomic(_file(repository, pull["num"]), dump_json(pull), repository.storage.temporary)
    return pull
