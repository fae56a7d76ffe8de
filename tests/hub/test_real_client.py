"""The unmodified huggingface_hub client against the hub, by LFS and by Xet."""

import json
import os
import subprocess
import sys

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    constants,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    IncompleteSnapshotError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


@pytest.fixture(params=["lfs", "xet"])
def served(request, start_hub, monkeypatch, token):
    """A hub reached by LFS or by Xet, and the client's API with the hub's token."""
    if request.param == "xet":
        pytest.importorskip("hf_xet", reason="hf_xet is what uploads by Xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    hub = start_hub(token=token, xet=request.param == "xet")
    assert (hub.server.xet is not None) == (request.param == "xet")
    return hub, HfApi(endpoint=hub.url, token=token)


@pytest.fixture
def folder(make_model):
    folder = make_model(numbers=400_000, card="---\nlicense: mit\ntags: [x]\n---\n# Hi\n")
    (folder / "sub").mkdir()
    (folder / "sub/a.txt").write_text("a")
    (folder / "empty.txt").touch()
    return folder


def test_push_and_pull(served, folder, tmp_path, token):
    hub, api = served
    assert api.whoami()["name"] == "local"
    assert api.create_repo("acme/m", private=True) == f"{hub.url}/acme/m"
    assert api.create_repo("acme/m", exist_ok=True) == f"{hub.url}/acme/m"
    commit = api.upload_folder(repo_id="acme/m", folder_path=folder, commit_message="first")
    assert commit == f"{hub.url}/acme/m/commit/{commit.oid}"
    posts = hub.count("POST", "/commit/")
    assert api.upload_folder(repo_id="acme/m", folder_path=folder).oid == commit.oid
    assert hub.count("POST", "/commit/") == posts == 1

    there = snapshot_download("acme/m", endpoint=hub.url, token=token, cache_dir=tmp_path / "c")
    for file in (p for p in folder.rglob("*") if p.is_file()):
        name = file.relative_to(folder)
        with open(os.path.join(there, name), "rb") as pulled:
            assert pulled.read() == file.read_bytes(), name
    report = api.verify_repo_checksums("acme/m", cache_dir=tmp_path / "c")
    assert report.checked_count == 5 and not report.mismatches and not report.missing_paths
    assert (hub.count("PUT") > 0) == (hub.server.xet is None)


def test_describing(served, folder):
    _hub, api = served
    api.create_repo("acme/m")
    commit = api.upload_folder(repo_id="acme/m", folder_path=folder)
    info = api.model_info("acme/m", files_metadata=True)
    assert (info.id, info.sha, info.private, info.author) == ("acme/m", commit.oid, False, "acme")
    assert info.card_data.license == "mit" and set(info.tags) == {"x", "license:mit"}
    sizes = {s.rfilename: (s.size, s.lfs is not None) for s in info.siblings}
    size = (folder / "model.safetensors").stat().st_size
    assert sizes["model.safetensors"] == (size, True) and sizes["sub/a.txt"] == (1, False)
    assert [m.id for m in api.list_models(author="acme", search="M", filter="x")] == ["acme/m"]
    assert list(api.list_models(author="other")) == []
    flat = [row.path for row in api.list_repo_tree("acme/m")]
    assert flat == ["README.md", "config.json", "empty.txt", "model.safetensors", "sub"]
    assert [row.path for row in api.list_repo_tree("acme/m", "sub")] == ["sub/a.txt"]
    rows = list(api.list_repo_tree("acme/m", recursive=True, expand=True))
    assert {r.last_commit.oid for r in rows if hasattr(r, "blob_id")} == {commit.oid}
    found = api.get_paths_info("acme/m", ["config.json", "sub", "nothing"])
    assert [row.path for row in found] == ["config.json", "sub"]
    assert api.file_exists("acme/m", "config.json") and not api.file_exists("acme/m", "x")
    assert api.auth_check("acme/m", write=True) is None
    assert [c.title for c in api.list_repo_commits("acme/m")][1:] == ["initial commit"]


def test_tags_branches_and_pins(served, folder, tmp_path, token):
    hub, api = served
    api.create_repo("acme/m")
    first = api.upload_folder(repo_id="acme/m", folder_path=folder)
    api.create_tag("acme/m", tag="v1")
    api.create_branch("acme/m", branch="dev/x", revision="v1")
    (folder / "config.json").write_text("{}")
    second = api.upload_folder(repo_id="acme/m", folder_path=folder, revision="dev/x")
    refs = api.list_repo_refs("acme/m")
    assert {r.name: r.target_commit for r in refs.branches} == {
        "main": first.oid,
        "dev/x": second.oid,
    }
    assert [(t.name, t.target_commit) for t in refs.tags] == [("v1", first.oid)]
    for revision, content in ((first.oid, "vit"), ("v1", "vit"), ("dev/x", "{}"), ("main", "vit")):
        file = hf_hub_download(
            "acme/m", "config.json", revision=revision, endpoint=hub.url, token=token
        )
        with open(file) as opened:
            assert content in opened.read()
    with pytest.raises(HfHubHTTPError):
        api.create_tag("acme/m", tag="v1")
    api.create_tag("acme/m", tag="v1", exist_ok=True)
    api.delete_tag("acme/m", tag="v1")
    api.delete_branch("acme/m", branch="dev/x")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("acme/m", revision="v1")


def test_pull_requests(served, folder, make_model):
    _hub, api = served
    api.create_repo("acme/m")
    base = api.upload_folder(repo_id="acme/m", folder_path=folder)
    make_model(seed=1, numbers=300_000)
    asked = api.upload_folder(repo_id="acme/m", folder_path=folder, create_pr=True)
    assert asked.pr_revision == "refs/pr/1" and asked.pr_num == 1
    assert api.model_info("acme/m").sha == base.oid
    assert api.model_info("acme/m", revision="refs/pr/1").sha == asked.oid
    (folder / "sub/a.txt").write_text("b")
    api.upload_folder(repo_id="acme/m", folder_path=folder, revision="refs/pr/1")
    details = api.get_discussion_details("acme/m", 1)
    assert details.is_pull_request and details.status == "open"
    assert [d.num for d in api.get_repo_discussions("acme/m")] == [1]
    api.merge_pull_request("acme/m", 1)
    assert api.get_discussion_details("acme/m", 1).status == "merged"
    rows = api.list_repo_tree("acme/m", recursive=True)
    sizes = {row.path: getattr(row, "size", 0) for row in rows}
    assert sizes["model.safetensors"] == (folder / "model.safetensors").stat().st_size


def test_pull_requests_that_clash_name_the_file(served):
    _, api = served
    api.create_repo("acme/m")

    def add(text, **options):
        operations = [CommitOperationAdd("a.txt", text)]
        return api.create_commit("acme/m", operations, commit_message="m", **options)

    add(b"1")
    asked = add(b"2", create_pr=True)
    add(b"3")
    with pytest.raises(HfHubHTTPError, match=r"a\.txt changed on main"):
        api.merge_pull_request("acme/m", asked.pr_num)
    api.change_discussion_status("acme/m", asked.pr_num, "closed")
    assert api.get_discussion_details("acme/m", asked.pr_num).status == "closed"
    assert not list(api.get_repo_discussions("acme/m", discussion_status="open"))


def test_a_race_is_412_and_a_commit_can_add_copy_and_delete(served, folder):
    _, api = served
    api.create_repo("acme/m")
    first = api.upload_folder(repo_id="acme/m", folder_path=folder)
    operations = [CommitOperationAdd("x.txt", b"1"), CommitOperationDelete("sub/")]
    operations += [CommitOperationCopy("model.safetensors", "copy.safetensors")]
    api.create_commit("acme/m", operations, commit_message="m", parent_commit=first.oid)
    names = {"README.md", "config.json", "copy.safetensors", "empty.txt", "model.safetensors"}
    assert set(api.list_repo_files("acme/m")) == names | {"x.txt"}
    with pytest.raises(HfHubHTTPError) as caught:
        operations = [CommitOperationAdd("y.txt", b"1")]
        api.create_commit("acme/m", operations, commit_message="m", parent_commit=first.oid)
    assert caught.value.response.status_code == 412
    with pytest.raises(RemoteEntryNotFoundError, match="doesn't exist"):
        operations = [CommitOperationDelete("nothing.txt")]
        api.create_commit("acme/m", operations, commit_message="m")


def test_private_is_missing_to_others(served, folder, token):
    hub, api = served
    api.create_repo("acme/m", private=True)
    api.upload_folder(repo_id="acme/m", folder_path=folder)
    stranger = HfApi(endpoint=hub.url, token=False)
    for ask in (
        lambda: stranger.model_info("acme/m"),
        lambda: stranger.list_repo_files("acme/m"),
        lambda: hf_hub_download("acme/m", "config.json", endpoint=hub.url, token=False),
        lambda: snapshot_download("acme/m", endpoint=hub.url, token=False),
    ):
        with pytest.raises(RepositoryNotFoundError):
            ask()
    assert list(stranger.list_models()) == []
    with pytest.raises(HfHubHTTPError) as caught:
        HfApi(endpoint=hub.url, token="hf_wrong").model_info("acme/m")
    assert caught.value.response.status_code == 401
    with pytest.raises(HfHubHTTPError, match="token"):
        stranger.create_repo("acme/other")
    api.update_repo_settings("acme/m", private=False)
    assert stranger.model_info("acme/m").id == "acme/m"
    with pytest.raises(HfHubHTTPError):
        stranger.create_tag("acme/m", tag="v1")


def test_missing_things_have_their_own_errors(served):
    hub, api = served
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("acme/none")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("none")
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("none", "config.json", endpoint=hub.url, token=api.token)
    api.create_repo("acme/m")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("acme/m", revision="v9")
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download("acme/m", "x", endpoint=hub.url, token=api.token)
    with pytest.raises(HfHubHTTPError):
        api.create_repo("acme/m")


def test_moving_and_deleting(served, folder):
    _, api = served
    api.create_repo("acme/m")
    api.upload_folder(repo_id="acme/m", folder_path=folder)
    api.move_repo("acme/m", "acme/n")
    assert api.file_exists("acme/n", "config.json") and not api.repo_exists("acme/m")
    api.delete_repo("acme/n")
    assert not api.repo_exists("acme/n")
    api.delete_repo("acme/n", missing_ok=True)


def test_gitignore_is_respected(served, folder):
    _, api = served
    (folder / ".gitignore").write_text("*.txt\n!empty.txt\n")
    api.create_repo("acme/m")
    api.upload_folder(repo_id="acme/m", folder_path=folder)
    files = set(api.list_repo_files("acme/m"))
    assert "sub/a.txt" not in files and {"empty.txt", "model.safetensors"} <= files


def test_data_sets_have_a_place_of_their_own(served, tmp_path, token):
    hub, api = served
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.bin").write_bytes(os.urandom(2000))
    api.create_repo("acme/m", repo_type="dataset")
    api.upload_folder(repo_id="acme/m", folder_path=tmp_path / "data", repo_type="dataset")
    assert not api.repo_exists("acme/m")
    file = hf_hub_download(
        "acme/m", "train.bin", repo_type="dataset", endpoint=hub.url, token=token
    )
    with open(file, "rb") as opened:
        assert opened.read() == (tmp_path / "data/train.bin").read_bytes()


def test_a_download_that_breaks_off_goes_on_by_range(served, folder, token):
    hub, api = served
    api.create_repo("acme/m")
    api.upload_folder(repo_id="acme/m", folder_path=folder)
    ranges = []

    def cut(handler):
        if handler.command == "GET" and "/resolve/" in handler.path:
            ranges.append(handler.headers.get("Range"))
            if len(ranges) == 1:
                data = (folder / "model.safetensors").read_bytes()
                handler._left = 0
                handler.send_response(200)
                handler.send_header("Content-Length", str(len(data)))
                handler.end_headers()
                handler.wfile.write(data[:100_000])
                handler.close_connection = True
                return True
        return False

    hub.faults.append(cut)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
        patch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
        file = hf_hub_download("acme/m", "model.safetensors", endpoint=hub.url, token=token)
    with open(file, "rb") as opened:
        assert opened.read() == (folder / "model.safetensors").read_bytes()
    assert ranges == [None, "bytes=100000-"]


def test_the_client_offline_and_half(served, folder, token, tmp_path):
    hub, api = served
    api.create_repo("acme/m")
    api.upload_folder(repo_id="acme/m", folder_path=folder)
    there = snapshot_download("acme/m", endpoint=hub.url, token=token, cache_dir=tmp_path / "c")
    offline = {"cache_dir": tmp_path / "c", "local_files_only": True}
    assert snapshot_download("acme/m", **offline) == there
    os.unlink(os.path.join(there, "model.safetensors"))
    with pytest.raises(IncompleteSnapshotError):
        snapshot_download("acme/m", **offline)


def test_by_environment_alone_with_a_card_in_a_fresh_process(served, token, tmp_path):
    """As a user has it: HF_ENDPOINT and HF_TOKEN set before the client is imported."""
    hub, _ = served
    script = """
import json, os, sys
from huggingface_hub import ModelCard, ModelCardData, EvalResult, HfApi, hf_hub_download
api = HfApi()
api.create_repo("acme/m", private=True)
result = EvalResult("image-classification", "digits", "digits", "accuracy", 98.6)
data = ModelCardData(license="mit", model_name="m", eval_results=[result])
card = ModelCard.from_template(data, template_str="---\\n{{ card_data }}\\n---\\n# Hi")
card.push_to_hub("acme/m")
weights = os.urandom(50000)
api.upload_file(path_or_fileobj=weights, path_in_repo="model.safetensors", repo_id="acme/m")
read = ModelCard.load("acme/m")
size = os.path.getsize(hf_hub_download("acme/m", "model.safetensors"))
value, licence = read.data.eval_results[0].metric_value, api.model_info("acme/m").card_data.license
print(json.dumps([value, size, licence]))
"""
    env = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": token,
        "HF_HOME": str(tmp_path / "fresh"),
        "HF_HUB_DISABLE_XET": "0" if hub.server.xet else "1",
    }
    env.pop("HF_HUB_CACHE")
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [98.6, 50000, "mit"]
