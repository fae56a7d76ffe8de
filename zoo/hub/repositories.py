"""Routes about repositories: who asks, create, delete, move, settings, branches, tags."""

from __future__ import annotations

from zoo.errors import HubError
from zoo.hub import card
from zoo.hub.names import check_revision
from zoo.hub.protocol import API, FILES, USER, Refusal, Reply, Request, Table
from zoo.hub.repository import Repository
from zoo.hub.storage import KINDS

__all__ = ["ROUTES"]

ROUTES = Table()


# who and what is here


@ROUTES.route("GET HEAD", "/")
def index(request: Request) -> Reply:
    lines = [f"zoo hub at {request.base}", ""]
    for kind in KINDS:
        for name in request.hub.storage.names(kind):
            settings = request.hub.storage.repository(kind, name).settings()
            if request.open or not settings["private"]:
                lines.append(request.page(kind, name))
    return Reply("\n".join(lines) + "\n")


@ROUTES.route("GET HEAD", f"{FILES}(?:/(?:tree|commit|discussions)/([^/]+))?")
def page(request: Request, kind: str, name: str, revision: str) -> Reply:
    """For a person who follows the address of a commit: what is in it, as plain text."""
    repository = request.repository(kind, name)
    commit = repository.commit(f"refs/pr/{revision}" if revision.isdigit() else revision or "main")
    lines = [f"{name} at {commit.oid}", f"{commit.date}  {commit.title}", "", commit.message]
    lines += [f"{entry.size:>14}  {path}" for path, entry in commit.files.items()]
    return Reply("\n".join(lines) + "\n")


@ROUTES.route("GET", "/api/whoami-v2")
def whoami(request: Request) -> Reply:
    request.must_be_open()
    access = {"displayName": "token", "role": "write"}
    return Reply(
        {
            "type": "user",
            "id": USER,
            "name": USER,
            "fullname": USER,
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": access},
        }
    )


@ROUTES.route("GET", f"{API}/auth-check(/write)?")
def auth_check(request: Request, kind: str, name: str, write: str) -> Reply:
    request.writable(kind, name) if write else request.repository(kind, name)
    return Reply({})


@ROUTES.route("POST", "/api/validate-yaml")
def validate_yaml(request: Request) -> Reply:
    try:
        card.parse(str(request.json().get("content", "")))
    except HubError as error:
        return Reply({"errors": [{"message": str(error)}], "warnings": []}, 400)
    return Reply({"errors": [], "warnings": []})


# repositories


@ROUTES.route("POST", "/api/repos/create")
def create(request: Request) -> Reply:
    request.must_be_open()
    asked = request.json()
    kind, name = _asked_repository(asked)
    private = asked.get("visibility") == "private" or asked.get("private") is True
    _check_private(request, private)
    _, new = request.hub.storage.create(kind, name, private)
    url = request.page(kind, name)
    if not new:
        return Reply({"error": f"{name} exists already.", "url": url, "name": name}, 409)
    return Reply({"url": url, "name": name})


@ROUTES.route("DELETE", "/api/repos/delete")
def delete(request: Request) -> Reply:
    kind, name = _asked_repository(request.json())
    request.writable(kind, name)
    request.hub.storage.delete(kind, name)
    return Reply({})


@ROUTES.route("POST", "/api/repos/move")
def move(request: Request) -> Reply:
    asked = request.json()
    kind = f"{asked.get('type') or 'model'}s"
    request.writable(kind, str(asked.get("fromRepo")))
    request.hub.storage.move(kind, str(asked.get("fromRepo")), str(asked.get("toRepo")))
    return Reply({})


@ROUTES.route("PUT", f"{API}/settings")
def settings(request: Request, kind: str, name: str) -> Reply:
    repository, asked = request.writable(kind, name), request.json()
    private = asked.get("visibility", "private" if asked.get("private") else "public") == "private"
    _check_private(request, private)
    repository.change_settings(private=private)
    return Reply({"private": private})


def _asked_repository(asked: dict) -> tuple[str, str]:
    kind = f"{asked.get('type') or 'model'}s"
    if kind not in KINDS:
        raise Refusal(400, f"This hub keeps {' and '.join(KINDS)} only.")
    return kind, f"{asked.get('organization') or USER}/{asked.get('name')}"


def _check_private(request: Request, private: bool) -> None:
    if private and not request.hub.token:
        raise Refusal(
            403,
            "This hub runs without a token and cannot keep anything private; "
            "restart it with a token, or push without private.",
        )


# branches and tags


@ROUTES.route("POST", f"{API}/branch/(.+)")
def create_branch(request: Request, kind: str, name: str, branch: str) -> Reply:
    repository = request.writable(kind, name)
    oid = repository.resolve(request.json().get("startingPoint") or "main")
    return _new_ref(repository, f"heads/{check_revision(branch)}", oid)


@ROUTES.route("POST", f"{API}/tag/([^/]+)")
def create_tag(request: Request, kind: str, name: str, revision: str) -> Reply:
    repository = request.writable(kind, name)
    tag = check_revision(str(request.json().get("tag")))
    return _new_ref(repository, f"tags/{tag}", repository.resolve(revision))


def _new_ref(repository: Repository, ref: str, oid: str) -> Reply:
    with repository.storage.changing(repository.kind, repository.name):
        if repository.ref_file(ref).is_file():
            raise Refusal(409, f"{repository.name} has {ref.partition('/')[2]} already.")
        repository.set_ref(ref, oid)
    return Reply({})


@ROUTES.route("DELETE", f"{API}/(branch|tag)/(.+)")
def delete_ref(request: Request, kind: str, name: str, group: str, ref: str) -> Reply:
    repository = request.writable(kind, name)
    if (group, ref) == ("branch", "main"):
        raise Refusal(403, "The branch main cannot be deleted.")
    repository.delete_ref(f"{'heads' if group == 'branch' else 'tags'}/{ref}")
    return Reply({})
