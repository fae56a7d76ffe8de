"""A push is one commit or none; what others wrote stays; what must not leave stays."""

import json
import logging
import os

import pytest

from zoo.errors import ConfigError, HubError
from zoo.hub import card
from zoo.hub.client import PUSH_FILES, pull, push


def sentence(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 500 and "Traceback" not in text
    return text


def titles(hub, revision="main"):
    repository = hub.server.storage.repository("models", "acme/m")
    return [c.title for c in repository.history(revision)]


def card_on_hub(hub, revision="main"):
    repository = hub.server.storage.repository("models", "acme/m")
    return repository.read(repository.commit(revision).files["README.md"]).decode()


def test_the_first_push_makes_all_of_it(hub, make_model):
    done = push(make_model(), "acme/m", private=True, message="hello")
    assert done.changed and done.url == f"{hub.url}/acme/m/commit/{done.oid}"
    names = ("README.md", "config.json", "model.safetensors")
    assert done.files == tuple((name, "new") for name in names)
    repository = hub.server.storage.repository("models", "acme/m")
    assert repository.settings()["private"] and repository.resolve("main") == done.oid
    assert titles(hub) == ["hello", "initial commit"]
    assert 'zoo.load("hf:acme/m")' in card_on_hub(hub)


def test_unchanged_is_no_commit_and_no_upload(hub, make_model):
    first = push(make_model(), "acme/m")
    hub.requests.clear()
    again = push(make_model(), "acme/m")
    assert (again.oid, again.changed, again.files) == (first.oid, False, ())
    assert not [r for r in hub.requests if r.startswith(("PUT", "POST"))]


def test_only_what_changed_goes(hub, make_model):
    push(make_model(), "acme/m")
    folder = make_model(seed=1)
    done = push(folder, "acme/m")
    assert done.files == (("model.safetensors", "changed"),) and done.changed
    assert titles(hub) == ["Push with zoo", "Push with zoo", "initial commit"]
    assert (pull("acme/m") / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()


def test_a_dry_run_changes_nothing(hub, make_model):
    plan = push(make_model(), "acme/m", dry_run=True)
    assert plan.changed and ("model.safetensors", "new") in plan.files
    assert hub.server.storage.names("models") == []
    first = push(make_model(), "acme/m")
    make_model(seed=1)
    hub.requests.clear()
    plan = push(make_model(seed=1), "acme/m", dry_run=True)
    assert plan.files == (("model.safetensors", "changed"),) and plan.oid == first.oid
    assert not push(make_model(), "acme/m", dry_run=True).changed
    assert all(r.startswith("GET") for r in hub.requests)


def test_branches_and_pull_requests(hub, make_model):
    first = push(make_model(), "acme/m")
    branch = push(make_model(seed=1), "acme/m", revision="dev/x")
    asked = push(make_model(seed=2), "acme/m", create_pr=True)
    assert asked.pull_request == 1 and asked.url == f"{hub.url}/acme/m/discussions/1"
    more = push(make_model(seed=3), "acme/m", revision="refs/pr/1")
    repository = hub.server.storage.repository("models", "acme/m")
    refs = repository.refs()
    assert refs == {"heads/main": first.oid, "heads/dev/x": branch.oid, "pr/1": more.oid}
    assert repository.commit(more.oid).parent == asked.oid
    assert push(make_model(), "acme/m", create_pr=True).pull_request is None
    for options, said in (
        ({"create_pr": True, "revision": "dev"}, "drop create_pr"),
        ({"revision": "refs/pr/7"}, "has no refs/pr/7"),
        ({"revision": "0" * 40}, "is a commit"),
        ({"revision": "../x"}, "not a revision"),
    ):
        with pytest.raises(HubError, match=said):
            push(make_model(seed=4), "acme/m", **options)


def test_shards_of_an_earlier_push_go_with_it(hub, make_model, api):
    folder = make_model()
    weights = (folder / "model.safetensors").read_bytes()
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        (folder / name).write_bytes(weights)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    (folder / "model.safetensors").unlink()
    push(folder, "acme/m")
    for name in ("ema.safetensors", "notes.txt"):
        api.upload_file(path_or_fileobj=b"theirs", path_in_repo=name, repo_id="acme/m")
    for file in folder.glob("model*"):
        file.unlink()
    done = push(make_model(), "acme/m")
    assert [p for p, state in done.files if state == "deleted"] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    kept = {"README.md", "config.json", "ema.safetensors", "model.safetensors", "notes.txt"}
    assert set(api.list_repo_files("acme/m")) == kept


# cards


def test_a_card_written_on_the_hub_keeps_its_text(hub, make_model, api):
    push(make_model(card=card.draft("m", "ours")), "acme/m")
    theirs = "---\nlicense: mit # mine\n---\n\n# By hand\r\n\twith  odd spaces"
    api.upload_file(path_or_fileobj=theirs.encode(), path_in_repo="README.md", repo_id="acme/m")
    done = push(make_model(seed=1, card=card.draft("m", "ours, newer")), "acme/m")
    assert ("README.md", "changed") in done.files
    assert "kept" in done.notes[0]
    found = card_on_hub(hub)
    assert found.endswith("---\n\n# By hand\r\n\twith  odd spaces")
    assert "license: mit # mine" in found and "library_name: multimodal-zoo" in found
    assert not push(make_model(seed=1, card=card.draft("m", "ours, newer")), "acme/m").changed


def test_a_card_nobody_touched_follows_the_folder(hub, make_model):
    push(make_model(card=card.draft("m", "first text")), "acme/m")
    done = push(make_model(card=card.draft("m", "second text")), "acme/m")
    assert done.files == (("README.md", "changed"),) and done.notes == ()
    assert "second text" in card_on_hub(hub) and "first text" not in card_on_hub(hub)


def test_a_pulled_model_pushes_back_unchanged(hub, make_model, tmp_path):
    push(make_model(card=card.draft("m", "text")), "acme/m")
    assert not push(pull("acme/m"), "acme/m").changed  # links into the cache count as files


def test_a_card_on_the_hub_that_cannot_be_read_is_left_alone(hub, make_model, api):
    push(make_model(), "acme/m")
    broken = b"---\na: [\n---\nby hand"
    api.upload_file(path_or_fileobj=broken, path_in_repo="x.md", repo_id="acme/m")
    repository = hub.server.storage.repository("models", "acme/m")
    entry = repository.add_blob([broken])
    repository.push("heads/main", "broken card", "", lambda f: {**f, "README.md": entry})
    done = push(make_model(seed=1, card=card.draft("m")), "acme/m")
    assert done.files == (("model.safetensors", "changed"),) and "left as it is" in done.notes[0]
    assert card_on_hub(hub) == broken.decode()


def test_our_own_card_that_cannot_be_read_stops_the_push(hub, make_model):
    with pytest.raises(HubError, match=r"README\.md .* not YAML"):
        push(make_model(card="---\na: [\n---\n"), "acme/m")


def test_measured_numbers_reach_the_hub(hub, make_model, api):
    text = card.draft("m", measured={"digits": {"accuracy": 98.6}}, task="image-classification")
    push(make_model(card=text), "acme/m")
    (result,) = api.model_info("acme/m").card_data.eval_results
    assert (result.dataset_type, result.metric_value) == ("digits", 98.6)


# what is refused


def test_folders_that_hold_no_model_are_refused(hub, make_model, tmp_path):
    cases = {"nothing": tmp_path / "none", "a file": make_model() / "config.json"}
    (tmp_path / "empty").mkdir()
    cases["empty"] = tmp_path / "empty"
    cases["no weights"] = make_model("a")
    (cases["no weights"] / "model.safetensors").unlink()
    cases["no config"] = make_model("b")
    (cases["no config"] / "config.json").unlink()
    cases["cut weights"] = make_model("c")
    os.truncate(cases["cut weights"] / "model.safetensors", 500)
    cases["no weights at all"] = make_model("d")
    (cases["no weights at all"] / "model.safetensors").write_bytes(b"x" * 100)
    cases["broken link"] = make_model("e")
    (cases["broken link"] / "vocab.txt").symlink_to(tmp_path / "gone")
    for folder in cases.values():
        with pytest.raises(HubError) as error:
            push(folder, "acme/m")
        assert str(folder) in sentence(error)
    assert hub.server.storage.names("models") == []


def test_a_configuration_that_a_pull_would_refuse_is_not_published(hub, make_model):
    folder = make_model()
    (folder / "config.json").write_text('{"zoo": {}, "config": {"_target_": "os.system"}}')
    with pytest.raises(ConfigError, match="_target_"):
        push(folder, "acme/m")
    (folder / "config.json").write_text('{"model_type": "vit", "auto_map": {}}')
    with pytest.raises(ConfigError, match="auto_map"):
        push(folder, "acme/m")
    (folder / "config.json").write_text('{"model_type": "vit", "_name_or_path": "x"}')
    assert push(folder, "acme/m").changed


def test_what_lies_beside_stays_at_home(hub, make_model, api):
    folder = make_model()
    for name in (".env", "train.log", "checkpoint.pt", "secrets.yaml", "events.out", "x.py"):
        (folder / name).write_text("private")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/model.safetensors").write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / ".git/config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    push(folder, "acme/m")
    kept = {"README.md", "config.json", "model.safetensors", "tokenizer.json"}
    assert set(api.list_repo_files("acme/m")) == kept
    push(folder, "acme/m", allow=(*PUSH_FILES, "train.log"))
    assert "train.log" in api.list_repo_files("acme/m")


def test_names_that_fall_together_are_refused(hub, make_model, api):
    push(make_model(), "acme/m")
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="Tokenizer.json", repo_id="acme/m")
    folder = make_model()
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(HubError, match=r"both Tokenizer\.json and tokenizer\.json"):
        push(folder, "acme/m")
    (folder / "tokenizer.json").unlink()
    for name in ("A.txt", "a.txt"):  # theirs among themselves are their affair
        api.upload_file(path_or_fileobj=b"x", path_in_repo=name, repo_id="acme/m")
    assert push(make_model(seed=1), "acme/m").changed


def test_private_is_not_made_public_by_mistake(hub, make_model):
    push(make_model(), "acme/m")
    with pytest.raises(HubError, match="exists and is public"):
        push(make_model(seed=1), "acme/m", private=True)
    assert len(titles(hub)) == 2


def test_private_on_a_hub_that_cannot_keep_it(start_hub, make_model, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", start_hub(xet=False).url)
    with pytest.raises(HubError, match="runs without a token"):
        push(make_model(), "acme/m", private=True)
    assert push(make_model(), "acme/m").changed


def test_without_or_with_a_wrong_token(hub, make_model, monkeypatch):
    for wrong in (None, "hf_wrongTokenOfSomeone"):
        monkeypatch.delenv("HF_TOKEN", raising=False)
        if wrong:
            monkeypatch.setenv("HF_TOKEN", wrong)
        with pytest.raises(HubError) as error:
            push(make_model(), "acme/m")
        assert "HF_TOKEN" in sentence(error) and "hf_wrong" not in sentence(error)
    assert hub.server.storage.names("models") == []


def test_offline_there_is_no_push(hub, make_model, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE forbids pushing"):
        push(make_model(), "acme/m")
    assert hub.requests == []


@pytest.mark.parametrize("repo", ["m", "a/b/c", "../x", "", "a--b/c"])
def test_names_of_repositories_are_checked_first(hub, make_model, repo):
    with pytest.raises(HubError, match="owner"):
        push(make_model(), repo)
    assert hub.requests == []


# company and trouble


def test_someone_else_was_faster(hub, make_model):
    push(make_model(), "acme/m")
    repository = hub.server.storage.repository("models", "acme/m")
    entry = repository.add_blob([b"theirs"])

    def race(handler):
        if handler.command == "POST" and "/commit/" in handler.path:
            repository.push("heads/main", "theirs", "", lambda f: {**f, "x.txt": entry})
            hub.faults.clear()
        return False

    hub.faults.append(race)
    with pytest.raises(HubError) as error:
        push(make_model(seed=1), "acme/m")
    assert "Someone else pushed to acme/m" in sentence(error)
    assert titles(hub)[0] == "theirs"
    assert push(make_model(seed=1), "acme/m").changed
    assert "x.txt" in repository.commit("main").files


@pytest.mark.parametrize("status", [500, 503, 429])
@pytest.mark.parametrize(
    "part", ["POST /api/repos", "preupload", "batch", "PUT", "/commit/", "/tree/"]
)
def test_a_busy_hub_is_asked_again(hub, make_model, status, part, monkeypatch):
    import time

    monkeypatch.setattr(time, "sleep", lambda _: None)
    hub.fail(part, status)
    done = push(make_model(), "acme/m")
    assert done.changed and titles(hub) == ["Push with zoo", "initial commit"]


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub, make_model, caplog):
    def lose(handler, reply):
        hub.faults.clear()
        raise ConnectionError("lost")

    hub.change("/commit/", lose)
    with caplog.at_level(logging.WARNING, logger="zoo.hub"):
        done = push(make_model(), "acme/m")
    assert done.changed and len(done.files) == 3
    assert titles(hub) == ["Push with zoo", "initial commit"]
    assert "Looking whether the commit arrived" in caplog.text
    assert not push(make_model(), "acme/m").changed


def test_a_hub_that_keeps_failing_is_given_up(hub, make_model):
    push(make_model(), "acme/m")
    met = hub.fail("/commit/", 500, times=99)
    with pytest.raises(HubError, match="error 500"):
        push(make_model(seed=1), "acme/m")
    assert len(met) == 3
    met = hub.fail("/commit/", 500, times=99)
    hub.faults.pop(0)
    with pytest.raises(HubError, match="error 500"):
        push(make_model(seed=1), "acme/m", create_pr=True)
    assert len(met) == 1  # a second try could open a second pull request


def test_a_full_hub_says_so(hub, make_model):
    push(make_model(), "acme/m")
    hub.fail("PUT", 507, times=99)
    with pytest.raises(HubError, match="error 507"):
        push(make_model(seed=1), "acme/m")


def test_what_was_uploaded_is_not_uploaded_again(hub, make_model):
    push(make_model(), "acme/m")
    hub.fail("/commit/", 400)
    with pytest.raises(HubError):
        push(make_model(seed=1), "acme/m")
    uploads = hub.count("PUT")
    assert push(make_model(seed=1), "acme/m").changed
    assert hub.count("PUT") == uploads


def test_a_hub_without_xet_is_told_and_used(hub, make_model, caplog):
    from huggingface_hub import constants

    pytest.importorskip("hf_xet", reason="without it nothing would go by Xet")
    done = push(make_model(), "acme/m")
    assert "no Xet storage" in done.notes[0] and "HF_HUB_DISABLE_XET" in done.notes[0]
    assert hub.count("GET", "xet-write-token") == 1 and hub.count("PUT") == 1
    assert constants.HF_HUB_DISABLE_XET is False  # as it was, for other hubs


def test_a_hub_whose_xet_is_a_local_folder_is_used_by_lfs(start_hub, make_model, monkeypatch):
    pytest.importorskip("hf_xet", reason="hf_xet is what uploads by Xet")
    hub = start_hub(xet=True)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    done = push(make_model(), "acme/m")
    assert done.changed and done.notes == () and hub.count("PUT") == 1
    assert not list((hub.root / "xet").glob("*"))


def test_the_person_who_switched_xet_off_is_not_told(hub, make_model, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    assert push(make_model(), "acme/m").notes == ()
    assert hub.count("GET", "xet") == 0


def test_results_are_json_for_a_command_line(hub, make_model):
    from dataclasses import asdict

    assert json.loads(json.dumps(asdict(push(make_model(), "acme/m"))))["changed"] is True
