"""What the hub says over plain HTTP, to friends and to others."""

import http.client
import json
import os
import socket
import threading
import urllib.parse

import pytest

from zoo.errors import HubError
from zoo.hub.server import HubServer, running_hub, serve


def ask(hub, method, path, body=None, headers=None, token=None):
    """One request; gives status, headers and body."""
    url = urllib.parse.urlsplit(hub.url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=10)
    headers = dict(headers or {})
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if isinstance(body, (dict, list)):
        body = json.dumps(body).encode()
    connection.request(method, path, body=body, headers=headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, answer.headers, data


@pytest.fixture
def filled(start_hub, token):
    """A hub with one repository of one file."""
    hub = start_hub(token=token, xet=False)
    repository, _ = hub.server.storage.create("models", "acme/m", False)
    entry = repository.add_blob([b"0123456789"])
    repository.push("heads/main", "first", "", lambda files: {"dir/a b.txt": entry})
    return hub


FILE = "/acme/m/resolve/main/dir/a%20b.txt"


@pytest.mark.parametrize(
    ("asked", "status", "body", "said"),
    [
        (None, 200, b"0123456789", None),
        ("bytes=0-", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=4-5", 206, b"45", "bytes 4-5/10"),
        ("bytes=4-500", 206, b"456789", "bytes 4-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-30", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=5-4", 416, None, "bytes */10"),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
def test_ranges(filled, asked, status, body, said):
    headers = {"Range": asked} if asked else {}
    found, answered, data = ask(filled, "GET", FILE, headers=headers)
    assert found == status and answered["Content-Range"] == said
    assert body is None or data == body
    found, answered, data = ask(filled, "HEAD", FILE, headers=headers)
    assert found == status and data == b""
    if body is not None:
        assert int(answered["Content-Length"]) == len(body)


def test_files_are_never_a_web_page(filled):
    _, headers, _ = ask(filled, "GET", FILE)
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Disposition"].startswith("attachment")


def test_a_missing_file_still_names_the_commit(filled):
    status, headers, _ = ask(filled, "HEAD", "/acme/m/resolve/main/none")
    assert status == 404 and headers["X-Error-Code"] == "EntryNotFound"
    assert len(headers["X-Repo-Commit"]) == 40


def test_people_see_what_is_there(filled):
    status, headers, data = ask(filled, "GET", "/")
    assert status == 200 and headers["Content-Type"].startswith("text/plain")
    assert f"{filled.url}/acme/m" in data.decode()
    oid = filled.server.storage.repository("models", "acme/m").resolve("main")
    _, _, data = ask(filled, "GET", f"/acme/m/commit/{oid}")
    assert "dir/a b.txt" in data.decode() and "first" in data.decode()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:80", ""])
def test_other_names_for_this_machine_are_refused(filled, host):
    """DNS rebinding: a page of evil.example, whose name now leads here."""
    status, _, data = ask(filled, "GET", "/", headers={"Host": host})
    assert status == 403 and b"this machine only" in data


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_web_pages_are_refused(start_hub, headers):
    hub = start_hub(xet=False)
    body = {"name": "m", "organization": "acme"}
    status, _, _ = ask(hub, "POST", "/api/repos/create", body, headers)
    assert status == 403 and hub.server.storage.names("models") == []


WRITES = [
    ("POST", "/api/repos/create", {"name": "x", "organization": "acme"}),
    ("DELETE", "/api/repos/delete", {"name": "m", "organization": "acme"}),
    ("POST", "/api/repos/move", {"fromRepo": "acme/m", "toRepo": "acme/n"}),
    ("PUT", "/api/models/acme/m/settings", {"private": True}),
    ("POST", "/api/models/acme/m/preupload/main", {"files": []}),
    ("POST", "/acme/m.git/info/lfs/objects/batch", {"objects": []}),
    ("POST", "/acme/m.git/info/lfs/verify", {"oid": "0" * 64, "size": 1}),
    ("GET", "/api/models/acme/m/xet-write-token/main", None),
    ("POST", "/api/models/acme/m/commit/main", {"key": "header", "value": {"summary": "x"}}),
    ("POST", "/api/models/acme/m/branch/x", {}),
    ("POST", "/api/models/acme/m/tag/main", {"tag": "x"}),
    ("DELETE", "/api/models/acme/m/tag/x", None),
    ("POST", "/api/models/acme/m/discussions", {"title": "x", "pullRequest": True}),
    ("POST", "/api/models/acme/m/discussions/1/merge", {}),
    ("POST", "/api/models/acme/m/discussions/1/status", {"status": "closed"}),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_every_write_wants_the_token(filled, method, path, body, token):
    files = sorted(p for p in filled.root.rglob("*") if p.is_file())
    for given in (None, "hf_wrong"):
        status, _, _ = ask(filled, method, path, body, token=given)
        assert status == 401, given
    assert sorted(p for p in filled.root.rglob("*") if p.is_file()) == files
    status, _, _ = ask(filled, method, path, body, token=token)
    assert status != 401


def test_every_route_that_writes_is_in_the_list_above():
    from zoo.hub import pushing, repositories

    open_to_all = {"whoami", "validate_yaml", "lfs_upload"}  # the last is signed
    for methods, pattern, route in [*pushing.ROUTES, *repositories.ROUTES]:
        if set(methods) & {"POST", "PUT", "DELETE"} and route.__name__ not in open_to_all:
            hit = [w for w in WRITES if w[0] in methods and pattern.fullmatch(w[1])]
            assert hit, route.__name__


def test_an_upload_address_cannot_be_guessed_or_bent(filled, token):
    import hashlib

    oid = hashlib.sha256(b"new").hexdigest()
    batch = {"objects": [{"oid": oid, "size": 3}]}
    _, _, data = ask(filled, "POST", "/acme/m.git/info/lfs/objects/batch", batch, token=token)
    href = json.loads(data)["objects"][0]["actions"]["upload"]["href"]
    path = href.removeprefix(filled.url)
    assert token not in href
    other = hashlib.sha256(b"evil").hexdigest()
    for bent in (
        path.replace(oid, other),
        path.replace("size=3", "size=4"),
        path.replace("until=", "until=9"),
        path.replace("/acme/m", "/acme/n"),
        path.split("?")[0],
        path[:-4] + "0000",
    ):
        status, _, _ = ask(filled, "PUT", bent, b"new")
        assert status == 403, bent
    assert ask(filled, "PUT", path, b"bad")[0] == 400
    assert ask(filled, "PUT", path, b"")[0] == 400
    assert ask(filled, "PUT", path, b"new")[0] == 200
    _, _, data = ask(filled, "POST", "/acme/m.git/info/lfs/objects/batch", batch, token=token)
    assert "actions" not in json.loads(data)["objects"][0]


def commit_lines(*operations, **header):
    lines = [{"key": "header", "value": {"summary": "x", **header}}, *operations]
    return b"\n".join(json.dumps(line).encode() for line in lines)


def file_line(path, content="MQ=="):
    return {"key": "file", "value": {"path": path, "content": content, "encoding": "base64"}}


EVIL_COMMITS = {
    "traversal": commit_lines(file_line("../../../evil")),
    "absolute": commit_lines(file_line("/etc/evil")),
    "backslash": commit_lines(file_line("..\\evil")),
    "git folder": commit_lines(file_line(".git/hooks/pre-commit")),
    "file as folder": commit_lines(file_line("dir/a b.txt/x")),
    "folder as file": commit_lines(file_line("dir")),
    "no base64": commit_lines(file_line("x", "!!!")),
    "no path": commit_lines({"key": "file", "value": {"content": "MQ=="}}),
    "no value": commit_lines({"key": "file"}),
    "unknown operation": commit_lines({"key": "symlink", "value": {"path": "x"}}),
    "never uploaded": commit_lines(
        {"key": "lfsFile", "value": {"path": "x", "oid": "0" * 64, "size": 1}}
    ),
    "traversal by digest": commit_lines(
        {"key": "lfsFile", "value": {"path": "x", "oid": "../../../repo.json", "size": 1}}
    ),
    "no digest": commit_lines({"key": "lfsFile", "value": {"path": "x"}}),
    "no summary": b'{"key": "header", "value": {}}',
    "empty": b"",
    "no JSON": b"hello",
    "deep": b"[" * 100_000,
    "list": b"[1]",
    "bad parent": commit_lines(parentCommit="../../x"),
}


@pytest.mark.parametrize("evil", EVIL_COMMITS)
def test_evil_commits_are_refused_and_change_nothing(filled, evil, token, tmp_path):
    before = filled.server.storage.repository("models", "acme/m").resolve("main")
    path = "/api/models/acme/m/commit/main"
    status, _, data = ask(filled, "POST", path, EVIL_COMMITS[evil], token=token)
    assert status in (400, 409), data
    assert "error" in json.loads(data)
    assert filled.server.storage.repository("models", "acme/m").resolve("main") == before
    assert not [p for p in tmp_path.rglob("*") if "evil" in p.name]


@pytest.mark.parametrize("revision", ["v1", "refs%2Ftags%2Fv1", "0" * 40, "nothing", "..%2F..%2Fx"])
def test_only_branches_take_commits(filled, token, revision):
    ask(filled, "POST", "/api/models/acme/m/tag/main", {"tag": "v1"}, token=token)
    path = f"/api/models/acme/m/commit/{revision}"
    status, _, _ = ask(filled, "POST", path, commit_lines(file_line("x")), token=token)
    assert status in (400, 404)


@pytest.mark.parametrize(
    "path",
    [
        "/acme/m/resolve/main/../../repo.json",
        "/acme/m/resolve/..%2F..%2F..%2Fetc/passwd",
        "/acme/m/resolve/main/%2e%2e/%2e%2e/repo.json",
        "/..%2f..%2fetc/passwd/resolve/main/x",
        "/api/models/..%2F..%2Fx/m",
        "/api/models/acme/m/tree/..%2F..%2Frepo.json",
        "/acme/m/resolve/refs%2Fheads%2F..%2F..%2Frepo.json/x",
        "//etc/passwd",
        "/api/models/%00/x",
    ],
)
def test_nothing_outside_is_read(filled, path):
    status, _, data = ask(filled, "GET", path)
    assert status in (401, 404) and b"created" not in data and b"root:" not in data


def test_bodies_are_limited(filled, token, monkeypatch):
    from zoo.hub import protocol

    monkeypatch.setattr(protocol, "LINE_LIMIT", 1000)
    path = "/api/models/acme/m/commit/main"
    status, _, _ = ask(filled, "POST", path, commit_lines(file_line("x", "A" * 5000)), token=token)
    assert status == 413
    status, _, _ = ask(filled, "POST", "/api/repos/create", b"x" * (17 << 20), token=token)
    assert status == 413


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: -5",
        "Content-Length: 1e3",
        "Content-Length: 5, 5",
        "Transfer-Encoding: chunked\r\n\r\n-5",
        "Transfer-Encoding: chunked\r\n\r\nzz",
    ],
)
def test_lengths_that_are_none_are_refused(filled, token, lines):
    url = urllib.parse.urlsplit(filled.url)
    with socket.create_connection((url.hostname, url.port), timeout=5) as line:
        head = "POST /api/models/acme/m/commit/main HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        line.sendall(f"{head}Authorization: Bearer {token}\r\n{lines}\r\n\r\nxxxxx".encode())
        assert line.recv(100).startswith(b"HTTP/1.1 400 ")


def test_the_other_loopback_address(tmp_path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with HubServer(tmp_path, "::1", xet=False) as server:
        assert server.url.startswith("http://[::1]:")
        line = http.client.HTTPConnection("::1", urllib.parse.urlsplit(server.url).port, timeout=5)
        line.request("GET", "/")
        assert line.getresponse().status == 200


def test_a_connection_serves_many_requests_and_survives_refusals(filled, token):
    url = urllib.parse.urlsplit(filled.url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=10)
    for path, expected in ((FILE, 200), ("/acme/m/resolve/main/none", 404), (FILE, 200)):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == expected
    # A refused request with a body that the hub did not read must not be taken for the next one,
    # and whoever is still sending it must get the answer all the same.
    body = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 400_000
    connection.request("POST", "/api/none", body=body)
    answer = connection.getresponse()
    assert answer.status == 404 and answer.headers["Connection"] == "close"


def test_a_stopped_hub_answers_nobody(tmp_path):
    server = HubServer(tmp_path, xet=False).start()
    url = urllib.parse.urlsplit(server.url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=5)
    connection.request("GET", "/")
    connection.getresponse().read()
    server.stop()
    with pytest.raises((OSError, http.client.HTTPException)):
        connection.request("GET", "/")
        connection.getresponse()
    HubServer(tmp_path, xet=False).stop()


def test_chunked_bodies_are_read(filled, token):
    url = urllib.parse.urlsplit(filled.url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=10)
    data = commit_lines(file_line("x"))
    connection.request(
        "POST",
        "/api/models/acme/m/commit/main",
        body=iter([data[:10], data[10:]]),
        headers={"Authorization": f"Bearer {token}", "Transfer-Encoding": "chunked"},
        encode_chunked=True,
    )
    assert connection.getresponse().status == 200


def test_a_client_that_leaves_in_the_middle_leaves_nothing(filled, token):
    url = urllib.parse.urlsplit(filled.url)
    with socket.create_connection((url.hostname, url.port)) as line:
        head = "POST /api/models/acme/m/commit/main HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        line.sendall(
            f"{head}Authorization: Bearer {token}\r\nContent-Length: 500\r\n\r\n{{".encode()
        )
    assert ask(filled, "GET", FILE)[0] == 200
    history = filled.server.storage.repository("models", "acme/m").history("main")
    assert [c.title for c in history] == ["first", "initial commit"]


def test_without_a_token_everything_is_open_but_nothing_private(start_hub):
    hub = start_hub(xet=False)
    body = {"name": "m", "organization": "acme"}
    status, _, data = ask(hub, "POST", "/api/repos/create", {**body, "visibility": "private"})
    assert status == 403 and b"without a token" in data
    assert ask(hub, "POST", "/api/repos/create", body)[0] == 200
    assert ask(hub, "PUT", "/api/models/acme/m/settings", {"visibility": "private"})[0] == 403
    # A token meant for another hub is sent along by clients; it opens and closes nothing.
    assert ask(hub, "GET", "/api/models/acme/m", token="hf_other")[0] == 200


def test_beyond_this_machine_only_with_a_token(tmp_path):
    with pytest.raises(HubError, match="needs a token"):
        HubServer(tmp_path, "0.0.0.0")
    server = HubServer(tmp_path, "0.0.0.0", token="a-long-token", xet=True)
    assert server.xet is None  # its clients may be on other machines
    server.stop()
    with pytest.raises(HubError, match="printable"):
        HubServer(tmp_path, token="a b")


def test_an_address_in_use_is_one_sentence(filled, tmp_path):
    port = urllib.parse.urlsplit(filled.url).port
    with pytest.raises(HubError, match=f"{port} cannot be listened on"):
        HubServer(tmp_path / "other", port=port)
    with running_hub(tmp_path / "other") as url:  # the folder was let go
        assert url.startswith("http://127.0.0.1:")


def test_many_pushes_at_once_are_one_after_another(filled, token):
    answers = []

    def push(number):
        data = commit_lines(file_line(f"f{number}"))
        answers.append(ask(filled, "POST", "/api/models/acme/m/commit/main", data, token=token)[0])

    threads = [threading.Thread(target=push, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 12
    repository = filled.server.storage.repository("models", "acme/m")
    assert len(list(repository.history("main"))) == 14
    assert len(repository.commit("main").files) == 13


def test_a_file_that_does_not_fit_is_refused_before_it_is_taken(filled, token, monkeypatch):
    import shutil

    batch = {"objects": [{"oid": "0" * 64, "size": 1 << 60}]}
    _, _, data = ask(filled, "POST", "/acme/m.git/info/lfs/objects/batch", batch, token=token)
    href = json.loads(data)["objects"][0]["actions"]["upload"]["href"]
    status, _, data = ask(filled, "PUT", href.removeprefix(filled.url), b"x" * 5_000_000)
    assert status == 507 and b"no room" in data
    assert shutil.disk_usage("/").free < 1 << 60


def test_a_full_disk_is_507_and_leaves_nothing(filled, token, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    said = []
    filled.server.say = said.append
    monkeypatch.setattr(os, "fsync", full)
    path = "/api/models/acme/m/commit/main"
    status, _, data = ask(filled, "POST", path, commit_lines(file_line("x")), token=token)
    monkeypatch.undo()
    assert status == 507 and b"disk is full" in data
    assert said and not list(filled.server.storage.temporary.iterdir())


def test_the_log_and_the_messages_hold_no_secret(start_hub, token, monkeypatch):
    lines = []
    hub = start_hub(token=token, xet=False, log=lines.append, say=lines.append)
    ask(hub, "GET", f"/api/whoami-v2?token={token}", token=token)
    ask(hub, "GET", "/none", token=token)
    monkeypatch.setattr(hub.server.storage, "names", lambda kind: 1 / 0)
    assert ask(hub, "GET", "/", token=token)[0] == 500
    assert len(lines) >= 3 and "ZeroDivisionError" in "".join(lines)
    assert token not in "".join(lines)


def test_a_log_line_is_one_line(start_hub):
    lines = []
    hub = start_hub(xet=False, log=lines.append)
    url = urllib.parse.urlsplit(hub.url)
    with socket.create_connection((url.hostname, url.port), timeout=5) as line:
        line.sendall(b"GET /\x1b[2J\x07 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        line.recv(100)
    assert lines and all(text.isprintable() for text in lines)


def test_behind_a_proxy_with_tls_addresses_are_https(filled, token):
    batch = {"objects": [{"oid": "0" * 64, "size": 3}]}
    for sent, begin in (({"X-Forwarded-Proto": "https"}, b"https://127"), ({}, b"http://127")):
        path = "/acme/m.git/info/lfs/objects/batch"
        _, _, data = ask(filled, "POST", path, batch, sent, token)
        assert b'"href": "' + begin in data


def test_serving_says_how_to_use_it(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(HubServer, "run", HubServer.stop)
    serve(tmp_path / "a", say=said.append)
    assert "HF_ENDPOINT=http://127.0.0.1:" in said[0] and "no token" in said[1]
    said.clear()
    serve(tmp_path / "b", token="a-long-token", say=said.append)
    assert "a-long-token" not in "".join(said) and "no token" not in "".join(said)
