"""Routes that read: lists, descriptions, trees, refs, history and the files themselves.

The protocol is read from huggingface_hub 2.4.0's requests; fields its client does not need are left
out.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs

from zoo.errors import HubError
from zoo.hub import card
from zoo.hub.protocol import API, FILES, USER, Refusal, Reply, Request, Table, parse_object
from zoo.hub.repository import Commit, Entry, Repository, lfs_pointer
from zoo.hub.storage import KINDS

__all__ = ["ROUTES"]

ROUTES = Table()


@ROUTES.route("GET", f"/api/({'|'.join(KINDS)})")
def listing(request: Request, kind: str) -> Reply:
    search = request.query.get("search", [""])[0].lower()
    author = request.query.get("author", [""])[0]
    wanted = set(request.query.get("filter", []))
    found = []
    for name in request.hub.storage.names(kind):
        repository = request.hub.storage.repository(kind, name)
        if not (request.open or not repository.settings()["private"]):
            continue
        info = _info(repository, repository.commit("main"), full=request.flag("full"))
        by = author in ("", info["author"])
        if by and search in name.lower() and wanted <= set(info["tags"]):
            found.append(info)
    limit = request.query.get("limit", [""])[0]
    return Reply(found[: int(limit)] if limit.isdigit() else found)


@ROUTES.route("GET", f"{API}(?:/revision/([^/]+))?")
def info(request: Request, kind: str, name: str, revision: str) -> Reply:
    repository = request.repository(kind, name)
    commit = repository.commit(revision or "main")
    return Reply(_info(repository, commit, full=True, sizes=request.flag("blobs")))


@ROUTES.route("GET", f"{API}/tree/([^/]+)(?:/(.*))?")
def tree(request: Request, kind: str, name: str, revision: str, folder: str) -> Reply:
    repository = request.repository(kind, name)
    commit = repository.commit(revision)
    prefix = folder.strip("/") + "/" if folder.strip("/") else ""
    inside = {p: e for p, e in commit.files.items() if p.startswith(prefix)}
    if prefix and not inside:
        raise Refusal(404, f"{name} has no folder {folder}.", "EntryNotFound")
    rows: dict[str, dict] = {}
    for path, entry in inside.items():
        parts = path[len(prefix) :].split("/")
        for end in range(1, len(parts) if request.flag("recursive") else min(len(parts), 2)):
            parent = prefix + "/".join(parts[:end])
            rows[parent] = {"type": "directory", "path": parent, "size": 0, "oid": commit.oid}
        if len(parts) == 1 or request.flag("recursive"):
            rows[path] = _file_row(path, entry)
    if request.flag("expand"):
        _add_last_commits(repository, revision, rows)
    return Reply([rows[path] for path in sorted(rows)])


@ROUTES.route("POST", f"{API}/paths-info/([^/]+)")
def paths_info(request: Request, kind: str, name: str, revision: str) -> Reply:
    repository = request.repository(kind, name)
    commit = repository.commit(revision)
    body = request.body()
    if "json" in request.headers.get("Content-Type", ""):
        asked = parse_object(body).get("paths", [])
    else:
        asked = parse_qs(body.decode("utf-8", "replace")).get("paths", [])
    rows = []
    for path in asked:
        if path in commit.files:
            rows.append(_file_row(path, commit.files[path]))
        elif any(p.startswith(f"{path}/") for p in commit.files):
            rows.append({"type": "directory", "path": path, "size": 0, "oid": commit.oid})
    return Reply(rows)


@ROUTES.route("GET", f"{API}/refs")
def refs(request: Request, kind: str, name: str) -> Reply:
    found: dict[str, list] = {"heads": [], "tags": [], "pr": []}
    for ref, oid in request.repository(kind, name).refs().items():
        group, _, short = ref.partition("/")
        row = {"name": ref if group == "pr" else short, "ref": f"refs/{ref}", "targetCommit": oid}
        found[group].append(row)
    reply = {"branches": found["heads"], "tags": found["tags"], "converts": []}
    if request.flag("include_prs"):
        reply["pullRequests"] = found["pr"]
    return Reply(reply)


@ROUTES.route("GET", f"{API}/commits/([^/]+)")
def commits(request: Request, kind: str, name: str, revision: str) -> Reply:
    return Reply(
        [
            {
                "id": commit.oid,
                "title": commit.title,
                "message": commit.message,
                "date": commit.date,
                "authors": [{"user": USER}],
            }
            for commit in request.repository(kind, name).history(revision)
        ]
    )


@ROUTES.route("GET HEAD", f"{FILES}/(?:resolve|raw)/([^/]+)/(.+)")
def resolve(request: Request, kind: str, name: str, revision: str, path: str) -> Reply:
    repository = request.repository(kind, name)
    commit = repository.commit(revision)
    entry = commit.files.get(path)
    if entry is None:
        message = f"{name} has no file {path} at {revision}."
        raise Refusal(404, message, "EntryNotFound", **{"X-Repo-Commit": commit.oid})
    tag = f'"{entry.sha256 if entry.lfs else entry.git}"'
    short = path.rsplit("/", 1)[-1].encode("ascii", "replace").decode().replace('"', "_")
    headers = {
        "X-Repo-Commit": commit.oid,
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'attachment; filename="{short}"',
    }
    if entry.lfs:
        headers |= {"X-Linked-Etag": tag, "X-Linked-Size": str(entry.size)}
    file = repository.blob(entry.sha256)
    part = _part(request.headers.get("Range"), entry.size)
    if part is None:
        return Reply(status=200, headers=headers, file=file)
    headers["Content-Range"] = f"bytes {part[0]}-{part[1] - 1}/{entry.size}"
    return Reply(status=206, headers=headers, file=file, part=part)


def _part(asked: str | None, size: int) -> tuple[int, int] | None:
    """The one range of `bytes=a-b`, `bytes=a-` or `bytes=-n`; anything else is answered in full."""
    match = re.fullmatch(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", asked or "")
    if not match or not any(match.groups()):
        return None
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= end:
        raise Refusal(
            416, "The file ends before the range.", **{"Content-Range": f"bytes */{size}"}
        )
    return start, end


def _file_row(path: str, entry: Entry) -> dict[str, Any]:
    row = {"type": "file", "path": path, "size": entry.size, "oid": entry.git}
    if entry.lfs:
        pointer = len(lfs_pointer(entry.sha256, entry.size))
        row["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": pointer}
    return row


def _add_last_commits(repository: Repository, revision: str, rows: dict[str, dict]) -> None:
    after: Commit | None = None
    for commit in [*repository.history(revision), None]:
        if after is not None:
            before = commit.files if commit else {}
            for path, entry in after.files.items():
                if path in rows and before.get(path) != entry:
                    last = {"id": after.oid, "title": after.title, "date": after.date}
                    rows[path].setdefault("lastCommit", last)
        after = commit


def _info(repository: Repository, commit: Commit, *, full: bool, sizes: bool = False) -> dict:
    meta: dict = {}
    readme = commit.files.get("README.md")
    if readme is not None and readme.size <= card.LIMIT:
        try:
            meta = card.parse(repository.read(readme).decode("utf-8", "replace")).meta
        except HubError:
            meta = {}  # a card that cannot be read hides no model
    meta = card.plain(meta)
    tags = [str(tag) for tag in meta.get("tags") or [] if isinstance(tag, (str, int))]
    if meta.get("license"):
        tags.append(f"license:{meta['license']}")
    library = meta.get("library_name")
    described = {
        "_id": repository.name,
        "id": repository.name,
        "modelId": repository.name,
        "author": repository.name.split("/")[0],
        "sha": commit.oid,
        "createdAt": repository.settings()["created"],
        "lastModified": commit.date,
        "private": repository.settings()["private"],
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [*tags, *([library] if library and library not in tags else [])],
        "library_name": library,
        "pipeline_tag": meta.get("pipeline_tag"),
    }
    if full:
        described["cardData"] = meta
        described["siblings"] = [{"rfilename": path} for path in commit.files]
    if sizes:
        for row in described["siblings"]:
            entry = commit.files[row["rfilename"]]
            row |= {"size": entry.size, "blobId": entry.git}
            if entry.lfs:
                pointer = len(lfs_pointer(entry.sha256, entry.size))
                row["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": pointer}
    return described


@ROUTES.route("GET HEAD", f"/api/(?:{'|'.join(KINDS)})/.*|/[^/]+/resolve/.*")
def without_owner(request: Request) -> Reply:
    """The last route: names of the public hub's early days, such as `gpt2`."""
    status = 404 if request.open else 401
    raise Refusal(status, "Repositories here are called owner/name.", "RepoNotFound")
