"""Push a model folder: one commit that holds what changed, or none."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from zoo.errors import HubError
from zoo.hub import card
from zoo.hub.cache import Content
from zoo.hub.folder import PUSH_FILES, check_config, check_secrets, has_weights, local_files
from zoo.hub.names import (
    check_collisions,
    check_repo,
    check_revision,
    is_commit,
)
from zoo.hub.pull import contents_of
from zoo.hub.remote import PUBLIC, Remote, is_offline, log, shown_endpoint, without_xet, xet_works

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

__all__ = ["PUSH_FILES", "PushResult", "push"]

_OUR_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
_ROUNDS = 3  # times a push looks again after an answer that was lost


@dataclass(frozen=True)
class PushResult:
    """What a push did.

    Attributes:
        url: where to look at it.
        oid: the commit; the one that was there if nothing changed.
        changed: whether there is a new commit (with `dry_run`: would be).
        files: `(path, "new" | "changed" | "deleted")`, sorted.
        pull_request: its number, None without `create_pr`.
        notes: sentences that the person should read.
    """

    url: str
    oid: str
    changed: bool
    files: tuple[tuple[str, str], ...] = ()
    pull_request: int | None = None
    notes: tuple[str, ...] = field(default=())


def push(
    folder: str | os.PathLike[str],
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    message: str | None = None,
    dry_run: bool = False,
    allow: Iterable[str] = PUSH_FILES,
) -> PushResult:
    """Push a folder's files to a repository as one commit; without changes there is no commit.

    The repository (private if asked) and the branch `revision` are created if they do not exist.
    The card on the hub is brought up to date and never overwritten (see `zoo.hub.card.merge`).
    Weight shards of an earlier push that the folder no longer has are deleted in the same commit.
    What an interrupted push uploaded is not uploaded again. If someone else pushes meanwhile,
    nothing is committed and the error says so.

    Args:
        folder: what `zoo` saves: config.json, model.safetensors, README.md, tokenizer files.
        repo: `owner/name`.
        private: create it private; refused if it exists and is public.
        revision: a branch, or `refs/pr/N` to add to a pull request; None is `main`.
        create_pr: open a pull request against `main` instead of committing to it.
        message: the commit's title.
        dry_run: look, and change nothing.
        allow: file names or patterns; other files of the folder stay at home.

    Raises:
        HubError: the folder is no model, the hub refuses, someone else was faster, or the token
            is in a file.
        ConfigError: config.json is one that a pull would refuse.
    """
    check_repo(repo, namespace=True)
    if create_pr and revision not in (None, "main"):
        raise HubError(
            f"A pull request is opened against main; drop create_pr to push to {revision}."
        )
    if is_commit(revision):
        raise HubError(f"{revision} is a commit and cannot change; push to a branch.")
    revision = check_revision(revision or "main")
    local = local_files(Path(folder), allow)
    check_config(local)
    if is_offline():
        raise HubError("HF_HUB_OFFLINE forbids pushing; unset it.")
    remote = Remote(repo)
    check_secrets(local, remote.token)
    there = _prepare(remote, revision, private, dry_run)
    if there is None:
        files = tuple((path, "new") for path in sorted({*local, "README.md"}))
        return PushResult(f"{shown_endpoint()}/{repo}", "", True, files)
    lost: _Lost | None = None
    for _ in range(_ROUNDS):
        try:
            done = _push_once(remote, local, revision, create_pr, message, dry_run)
        except _Lost as error:
            lost = error
            log.warning("%s Looking whether the commit arrived.", error)
            continue
        if lost and not done.changed:  # it had arrived, only the answer was lost
            return replace(done, changed=True, files=lost.files)
        return done
    assert lost is not None
    raise HubError(str(lost))


class _Lost(HubError):
    """The hub failed after it may have taken the commit: look before doing it again."""

    files: tuple[tuple[str, str], ...] = ()


def _push_once(
    remote: Remote,
    local: dict[str, Path],
    revision: str,
    create_pr: bool,
    message: str | None,
    dry_run: bool,
) -> PushResult:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    head, theirs = contents_of(remote, revision)
    notes: list[str] = []
    contents: dict[str, Path | bytes] = {**local}
    contents["README.md"] = _card(remote, local.get("README.md"), head, theirs, notes)
    operations: list = []
    files = []
    for path, source in sorted(contents.items()):
        state, digest = _compare(source, theirs.get(path))
        if state:
            files.append((path, state))
            if not dry_run:
                operation = CommitOperationAdd(path, source)
                if len(digest) == 64:
                    operation.upload_info.sha256 = bytes.fromhex(digest)  # hashed once is enough
                operations.append(operation)
    for path in sorted(theirs):
        if path not in contents and _OUR_WEIGHTS.fullmatch(path) and has_weights(contents):
            files.append((path, "deleted"))
            operations.append(CommitOperationDelete(path, is_folder=False))
    ours = {path.lower() for path in contents}
    # Only names that meet ours: what else lies in the repository is not this push's affair.
    check_collisions({*contents, *(p for p in theirs if p.lower() in ours)}, remote.repo)
    page = f"{shown_endpoint()}/{remote.repo}"
    if not files or dry_run:
        url = f"{page}/commit/{head}"
        return PushResult(url, head, bool(files), tuple(sorted(files)), None, tuple(notes))
    try:
        done = _commit(remote, operations, head, revision, create_pr, message, notes)
    except _Lost as lost:
        lost.files = tuple(sorted(files))
        raise
    url = done.pr_url or f"{page}/commit/{done.oid}"
    return PushResult(url, done.oid, True, tuple(sorted(files)), done.pr_num, tuple(notes))


def _commit(
    remote: Remote,
    operations: list,
    head: str,
    revision: str,
    create_pr: bool,
    message: str | None,
    notes: list[str],
) -> CommitInfo:
    from contextlib import nullcontext

    from huggingface_hub.errors import HfHubHTTPError

    xet = _xet_address(remote, revision) if xet_works() else None
    large = [
        o for o in operations if not o.path_in_repo.endswith((".json", ".md", ".txt", ".yaml"))
    ]
    if xet == "" and large:
        notes.append(
            f"{shown_endpoint()} has no Xet storage: HF_HUB_DISABLE_XET was set for this push."
        )
        log.info(notes[-1])
    by_xet = xet is not None and xet.startswith("http")
    try:
        with nullcontext() if by_xet else without_xet():
            return remote.api.create_commit(
                remote.repo,
                operations,
                commit_message=message or "Push with zoo",
                revision=revision,
                create_pr=create_pr,
                parent_commit=head,
            )
    except Exception as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if status == 412:
            raise HubError(
                f"Someone else pushed to {remote.repo} at {revision} meanwhile, so nothing was "
                "committed; pull to see it, then push again."
            ) from None
        explained = remote.explain(_root(error), revision)
        if create_pr or remote.pause(_root(error), 1) is None:
            raise explained from None
        raise _Lost(str(explained)) from None


def _root(error: BaseException) -> Exception:
    """The client wraps what an upload thread met."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error if isinstance(error, Exception) else RuntimeError(str(error))


def _prepare(remote: Remote, revision: str, private: bool, dry_run: bool) -> bool | None:
    """Have the repository and the branch. None when a dry run finds no repository."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repo, api = remote.repo, remote.api

    def look() -> bool | None:
        try:
            return bool(api.model_info(repo, timeout=10.0).private)
        except RepositoryNotFoundError as error:
            if isinstance(error, GatedRepoError):
                raise
            return None

    state = remote.call(look)
    if state is None:
        if dry_run:
            return None
        remote.call(api.create_repo, repo, private=private, exist_ok=True)
    elif private and not state:
        raise HubError(f"{repo} exists and is public; make it private in its settings, then push.")

    def branch_exists() -> bool:
        try:
            api.model_info(repo, revision=revision, timeout=10.0)
        except RevisionNotFoundError:
            return False
        return True

    if revision != "main" and not remote.call(branch_exists):
        if revision.startswith("refs/"):
            raise HubError(f"{repo} has no {revision}; open a pull request with create_pr.")
        if dry_run:
            return None
        remote.call(api.create_branch, repo, branch=revision, exist_ok=True)
    return True


def _xet_address(remote: Remote, revision: str) -> str:
    """Where the hub's Xet storage is; empty if it has none: the client would not ask, and fail.

    A storage in a local folder is for clients that cannot choose; LFS takes fewer copies there.
    """
    from huggingface_hub.utils import get_session

    if urlsplit(remote.endpoint).hostname in (urlsplit(PUBLIC).hostname, "hf.co"):
        return PUBLIC
    quoted = revision.replace("/", "%2F")
    url = f"{remote.endpoint}/api/models/{remote.repo}/xet-write-token/{quoted}"

    def probe() -> str:
        answer = get_session().get(url, headers=remote.headers(), timeout=10.0)
        return answer.headers.get("X-Xet-Cas-Url", "") if answer.status_code == 200 else ""

    return remote.call(probe)


def _compare(source: Path | bytes, there: Content | None) -> tuple[str, str]:
    """`new`, `changed` or nothing, and the source's digest as far as it had to be computed."""
    if there is None:
        return "new", ""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size != there.size:
        return "changed", ""
    hasher = there.hasher()
    if isinstance(source, bytes):
        hasher.update(source)
        digest = hasher.hexdigest()
    else:
        digest = there.digest_of(source)
    return ("" if digest == there.digest else "changed"), digest


def _card(
    remote: Remote,
    file: Path | None,
    head: str,
    theirs: dict[str, Content],
    notes: list[str],
) -> bytes:
    """README.md as it should be on the hub: ours, merged into the one that is there."""
    if file is not None:
        ours = _text(file.read_bytes(), str(file))
    else:
        name = remote.repo.split("/")[1]
        usage = f'```python\nimport zoo\n\nmodel = zoo.load("hf:{remote.repo}")\n```'
        ours = card.draft(name, usage)
    if "README.md" not in theirs:
        return card.stamp(ours).encode()
    raw = _read(remote, head)
    if file is None:
        return raw
    there = _text(raw, "README.md on the hub")
    try:
        merged, left_out = card.merge(there, ours)
    except HubError:
        card.parse(ours)  # if it is ours that cannot be read, say so and stop
        notes.append("README.md on the hub has metadata that is not YAML; it was left as it is.")
        return raw
    if left_out:
        notes.append("README.md on the hub has its own text, which was kept; edit it there.")
    return merged.encode()


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise HubError(f"{name} is not UTF-8 text; save it as UTF-8.") from None


def _read(remote: Remote, commit: str) -> bytes:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import get_session, hf_raise_for_status

    url = hf_hub_url(remote.repo, "README.md", revision=commit, endpoint=remote.endpoint)

    def get() -> bytes:
        answer = get_session().get(url, headers=remote.headers(), timeout=10.0)
        hf_raise_for_status(answer)
        return answer.content

    return remote.call(get, asked=commit)
