"""Routes of a push: what goes where, LFS and Xet uploads, the commit itself, pull requests."""

from __future__ import annotations

import base64
import re
import shutil
import time
from collections.abc import Callable

from zoo.hub import pulls
from zoo.hub.ignore import ignored
from zoo.hub.names import check_path
from zoo.hub.protocol import API, FILES, USER, Refusal, Reply, Request, Table, parse_object
from zoo.hub.repository import Entry, Missing, Repository, decode_base64

__all__ = ["ROUTES"]

ROUTES = Table()

_LFS_ENDINGS = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".gguf", ".h5", ".msgpack"),
    *(".npz", ".npy", ".parquet", ".arrow", ".zip", ".tar", ".gz", ".model"),
    *(".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp4", ".wav", ".flac", ".mp3"),
)
_LFS_SIZE = 1 << 20  # text this long goes by LFS, too
_UPLOAD_SECONDS = 24 * 3600

Change = Callable[[dict[str, Entry]], None]


@ROUTES.route("POST", f"{API}/preupload/([^/]+)")
def preupload(request: Request, kind: str, name: str, revision: str) -> Reply:
    """For each file: by LFS or inside the commit, to be left out or not, and what is there now."""
    repository, asked = request.writable(kind, name), request.json()
    files = repository.commit(revision).files
    rules = asked.get("gitIgnore")
    if rules is None and ".gitignore" in files:
        rules = repository.read(files[".gitignore"]).decode("utf-8", "replace")
    rows = []
    for file in asked.get("files", []):
        path, size = str(file.get("path")), file.get("size", 0)
        check_path(path, name)
        sample = base64.b64decode(file.get("sample") or "")
        lfs = path.lower().endswith(_LFS_ENDINGS) or size >= _LFS_SIZE or b"\0" in sample
        there = files.get(path)
        oid = None if there is None else there.sha256 if there.lfs else there.git
        rows.append(
            {
                "path": path,
                "uploadMode": "lfs" if lfs and size else "regular",
                "shouldIgnore": bool(rules) and ignored(path, rules or ""),
                "oid": oid,
            }
        )
    return Reply({"files": rows})


# LFS


@ROUTES.route("POST", f"{FILES}\\.git/info/lfs/objects/batch")
def lfs_batch(request: Request, kind: str, name: str) -> Reply:
    """Where to send each content; none of that for what is here already."""
    repository, asked = request.writable(kind, name), request.json()
    rows = []
    for wanted in asked.get("objects", []):
        oid, size = wanted.get("oid"), wanted.get("size")
        repository.blob(oid)
        row = {"oid": oid, "size": size}
        if not repository.has_blob(oid, size):
            until = int(time.time()) + _UPLOAD_SECONDS
            tail = f"size={size}&until={until}&signature={_sign(request, name, oid, size, until)}"
            base = f"{request.page(kind or 'models', name)}.git/info/lfs"
            row["actions"] = {
                "upload": {"href": f"{base}/objects/{oid}?{tail}"},
                "verify": {"href": f"{base}/verify"},
            }
        rows.append(row)
    return Reply({"transfer": "basic", "objects": rows})


@ROUTES.route("PUT", f"{FILES}\\.git/info/lfs/objects/([0-9a-f]{{64}})")
def lfs_upload(request: Request, kind: str, name: str, oid: str) -> Reply:
    """Take a content. The client sends no token; the address's signature stands for it."""
    size, until, signature = (
        request.query.get(key, ["0"])[0] for key in ("size", "until", "signature")
    )
    good = size.isdigit() and until.isdigit() and int(until) > time.time()
    if not good or signature != _sign(request, name, oid, int(size), int(until)):
        raise Refusal(403, "This upload address is not valid any more; push again.")
    repository = request.hub.storage.repository(kind or "models", name)
    if int(size) > shutil.disk_usage(repository.folder).free:
        raise Refusal(507, "The hub's disk has no room for this file.")
    repository.add_blob(request.chunks(), oid, int(size))
    return Reply({})


@ROUTES.route("POST", f"{FILES}\\.git/info/lfs/verify")
def lfs_verify(request: Request, kind: str, name: str) -> Reply:
    repository, asked = request.writable(kind, name), request.json()
    if not repository.has_blob(str(asked.get("oid")), asked.get("size")):
        raise Refusal(404, "The content did not arrive whole; push again.", "EntryNotFound")
    return Reply({})


def _sign(request: Request, name: str, oid: str, size: int, until: int) -> str:
    return request.hub.sign(f"{name} {oid} {size} {until}")


# Xet


@ROUTES.route("GET", f"{API}/xet-write-token/([^/]+)")
def xet_token(request: Request, kind: str, name: str, revision: str) -> Reply:
    """A fresh folder for this upload. `hf_xet` reads the body, other clients the headers."""
    request.writable(kind, name)
    if request.hub.xet is None:
        raise Refusal(404, "This hub has no Xet storage; set HF_HUB_DISABLE_XET=1 and push again.")
    folder, until = request.hub.xet.open(), int(time.time()) + _UPLOAD_SECONDS
    headers = {
        "X-Xet-Cas-Url": folder,
        "X-Xet-Access-Token": "local",
        "X-Xet-Token-Expiration": str(until),
    }
    return Reply({"casUrl": folder, "exp": until, "accessToken": "local"}, headers=headers)


# commits


@ROUTES.route("POST", f"{API}/commit/([^/]+)")
def commit(request: Request, kind: str, name: str, revision: str) -> Reply:
    """One commit from lines of JSON: a header, then files and deletions in order."""
    repository = request.writable(kind, name)
    header: dict = {}
    changes: list[Change] = []
    for line in request.lines():
        operation = parse_object(line)
        value = operation.get("value")
        if not isinstance(value, dict):
            raise Refusal(400, "A line of the commit has no value.")
        if operation.get("key") == "header":
            header = value
        else:
            changes.append(_change(request, repository, operation.get("key"), value))
    title = str(header.get("summary") or "").strip()
    if not title:
        raise Refusal(400, "The commit has no summary.")

    def change(files: dict[str, Entry]) -> dict[str, Entry]:
        for one in changes:
            one(files)
        return files

    message, expected = str(header.get("description") or ""), header.get("parentCommit")
    if expected is not None and not re.fullmatch(r"[0-9a-f]{7,40}", str(expected)):
        raise Refusal(400, "parentCommit is not a commit id.")
    num = None
    if request.flag("create_pr"):
        num = pulls.open_pull(repository, title, message, USER, base=expected or "main")
        ref = f"pr/{num}"
    elif revision.startswith("refs/"):
        ref = revision.removeprefix("refs/")
    else:
        ref = f"heads/{revision}"
    if not ref.startswith(("heads/", "pr/")):
        raise Refusal(400, f"{revision} is not a branch and cannot take commits.")
    done = repository.push(ref, title, message, change, None if num else expected)
    page = request.page(kind, name)
    reply = {"success": True, "commitOid": done.oid, "commitUrl": f"{page}/commit/{done.oid}"}
    if num:
        reply["pullRequestUrl"] = f"{page}/discussions/{num}"
    return Reply(reply)


def _change(request: Request, repository: Repository, key: object, value: dict) -> Change:
    """One line of a commit as a change of the file table; contents are stored before it returns."""
    path = str(value.get("path") or "").rstrip("/")
    check_path(path, repository.name)
    if key == "file":
        if value.get("encoding") == "base64":
            content = decode_base64(value.get("content") or "")
        else:
            content = str(value.get("content") or "").encode()
        entry = repository.add_blob([content])
        return lambda files: files.update({path: entry})
    if key == "lfsFile":
        oid, size = str(value.get("oid")), value.get("size")
        repository.blob(oid)
        if not repository.has_blob(oid, size) and request.hub.xet is not None:
            request.hub.xet.unpack(repository, oid)
        if not repository.has_blob(oid, size):
            raise Refusal(400, f"The content of {path} was never uploaded whole; push again.")
        entry = repository.entry(oid, lfs=True)
        return lambda files: files.update({path: entry})
    if key in ("deletedFile", "deletedFolder"):
        return lambda files: _delete(files, path, folder=key == "deletedFolder")
    raise Refusal(400, f"This hub does not know the commit operation {str(key)[:40]!r}.")


def _delete(files: dict[str, Entry], path: str, folder: bool) -> None:
    gone = [p for p in files if p.startswith(f"{path}/")] if folder else [path]
    if not gone or any(p not in files for p in gone):
        kind = "folder" if folder else "file"
        raise Missing("EntryNotFound", f"A {kind} with this name doesn't exist: {path}")
    for name in gone:
        del files[name]


# pull requests


@ROUTES.route("GET", f"{API}/discussions")
def discussions(request: Request, kind: str, name: str) -> Reply:
    repository = request.repository(kind, name)
    wanted = request.query.get("status", [""])[0]
    found = [
        _described(request, repository, pull)
        for pull in pulls.pulls(repository)
        if wanted in ("", "all") or (wanted == "open") == (pull["status"] == "open")
    ]
    return Reply({"discussions": found, "count": len(found), "start": 0})


@ROUTES.route("POST", f"{API}/discussions")
def open_discussion(request: Request, kind: str, name: str) -> Reply:
    repository, asked = request.writable(kind, name), request.json()
    if asked.get("pullRequest") is not True:
        raise Refusal(400, "This hub keeps pull requests, not discussions.")
    title, text = str(asked.get("title") or "Untitled"), str(asked.get("description") or "")
    num = pulls.open_pull(repository, title, text, USER)
    return Reply(
        {"num": num, "pullRequest": {"url": f"{request.page(kind, name)}/discussions/{num}"}}
    )


@ROUTES.route("GET", f"{API}/discussions/([0-9]{{1,9}})")
def discussion(request: Request, kind: str, name: str, num: str) -> Reply:
    repository = request.repository(kind, name)
    return Reply(_described(request, repository, pulls.pull_details(repository, int(num))))


@ROUTES.route("POST", f"{API}/discussions/([0-9]{{1,9}})/merge")
def merge(request: Request, kind: str, name: str, num: str) -> Reply:
    repository = request.writable(kind, name)
    return Reply(_described(request, repository, pulls.merge_pull(repository, int(num))))


@ROUTES.route("POST", f"{API}/discussions/([0-9]{{1,9}})/status")
def status(request: Request, kind: str, name: str, num: str) -> Reply:
    repository, wanted = request.writable(kind, name), request.json().get("status")
    if wanted not in ("open", "closed"):
        raise Refusal(400, "A pull request's status is open or closed.")
    pull = pulls.close_pull(repository, int(num), wanted)
    return Reply({"newStatus": _event(pull, "status-change", {"status": pull["status"]})})


def _described(request: Request, repository: Repository, pull: dict) -> dict:
    comment = {"edited": False, "hidden": False, "latest": {"raw": pull["description"]}}
    changes = {"base": "refs/heads/main", "mergeCommitId": pull["merged"]}
    return {
        "num": pull["num"],
        "title": pull["title"],
        "status": pull["status"],
        "author": {"name": pull["author"]},
        "createdAt": pull["created"],
        "repo": {"name": repository.name, "type": repository.kind.removesuffix("s")},
        "isPullRequest": True,
        "changes": changes,
        "filesWithConflicts": [],
        "events": [_event(pull, "comment", comment)],
        "url": f"{request.page(repository.kind, repository.name)}/discussions/{pull['num']}",
    }


def _event(pull: dict, kind: str, data: dict) -> dict:
    return {
        "id": f"{pull['num']:024x}",
        "type": kind,
        "createdAt": pull["created"],
        "author": {"name": pull["author"]},
        "data": data,
    }
