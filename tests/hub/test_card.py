import datetime
import time

import pytest
import yaml

from zoo.errors import HubError
from zoo.hub import card

THEIRS = """---
# written by hand
license: mit   # do not touch
language:
- en

tags:
- mine
library_name: something-else
model-index:
- name: m
  results:
  - task: {type: image-classification}
    dataset: {name: digits, type: digits}
    metrics:
    - {type: accuracy, value: 1}
  - task: {type: image-classification}
    dataset: {name: other, type: other}
    metrics:
    - {type: accuracy, value: 2}
# at the end
---

# By hand \t
\tA body\u2028with  odd\r\nspaces and no line end"""

OURS = card.draft(
    "m",
    "Trained by zoo.",
    {"license": "apache-2.0", "pipeline_tag": "image-classification"},
    {"digits": {"accuracy": 98.6}},
    "image-classification",
)


def values(text):
    return yaml.safe_load(text.split("---\n")[1])


def body(text):
    return card.parse(text).body


def test_a_draft_is_a_card_that_the_hub_reads():
    from huggingface_hub import ModelCard

    read = ModelCard(OURS)
    assert read.data.library_name == "multimodal-zoo" and read.data.tags == ["zoo"]
    (result,) = read.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == (
        "digits",
        "accuracy",
        98.6,
    )
    assert "# m\n" in read.text and "| digits | accuracy | 98.6 |" in read.text


def test_merging_keeps_their_body_byte_for_byte_and_their_lines():
    merged, left_out = card.merge(THEIRS, OURS)
    assert left_out
    assert body(merged) == body(THEIRS)
    for line in ("# written by hand", "license: mit   # do not touch", "# at the end", "- en\n\n"):
        assert line in merged
    found = values(merged)
    assert found["license"] == "mit" and found["language"] == ["en"]
    assert found["tags"] == ["mine", "zoo"]
    assert found["library_name"] == "multimodal-zoo"
    assert found["pipeline_tag"] == "image-classification"
    results = {
        r["dataset"]["name"]: r["metrics"][0]["value"] for r in found["model-index"][0]["results"]
    }
    assert results == {"digits": 98.6, "other": 2}


def test_merging_again_changes_nothing():
    merged, _ = card.merge(THEIRS, OURS)
    assert card.merge(merged, OURS) == (merged, True)


def test_a_body_that_nobody_edited_follows_ours():
    pushed = card.stamp(OURS)
    assert card.merge(pushed, OURS) == (pushed, False)
    newer = OURS.replace("Trained by zoo.", "Trained longer.")
    merged, left_out = card.merge(pushed, newer)
    assert not left_out and "Trained longer." in body(merged)
    again, left_out = card.merge(merged, OURS)
    assert not left_out and again == pushed


def test_a_body_edited_on_the_hub_stays_for_ever():
    edited = card.stamp(OURS).replace("Trained by zoo.", "Trained by Ada.")
    once, left_out = card.merge(edited, OURS)
    twice, left_out_again = card.merge(once, OURS + "\nMore.\n")
    assert left_out and left_out_again
    assert "Trained by Ada." in twice and "More." not in twice


def test_a_card_without_metadata_gets_some():
    merged, left_out = card.merge("Just text\n", OURS)
    assert left_out and body(merged) == "Just text\n"
    assert values(merged)["library_name"] == "multimodal-zoo"


def test_windows_line_ends_stay():
    merged, _ = card.merge("---\r\nlicense: mit\r\n---\r\nHi\r\n", OURS)
    assert "\n" not in merged.replace("\r\n", "")
    assert card.parse(merged).meta["license"] == "mit"


def test_a_rule_at_the_top_is_no_metadata():
    assert card.parse("---\n\ntext").meta == {} and card.parse("---\n\ntext").body == "---\n\ntext"


def test_metadata_in_one_line_is_understood():
    merged, _ = card.merge("---\n{license: mit, tags: [a]}\n---\nHi\n", OURS)
    assert values(merged)["license"] == "mit" and values(merged)["tags"] == ["a", "zoo"]


@pytest.mark.parametrize(
    "front",
    [
        "a: [",
        "- a\n- b",
        "a: !!python/object/apply:os.system ['touch MARKER']",
        "a: &x [1]\nb: *x",
        "a: b: c",
        "[" * 50000,
        "- " * 50000,
        "{a: " * 50000,
        "? [a]\n: b",
        "a: " + "x" * 600000,
    ],
)
def test_metadata_that_cannot_be_read_is_refused_in_one_sentence(front, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = time.process_time()
    with pytest.raises(HubError, match=r"README\.md") as caught:
        card.parse(f"---\n{front}\n---\nHi\n")
    assert time.process_time() - start < 1
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_card_has_a_size():
    with pytest.raises(HubError, match="1 MiB"):
        card.parse("x" * (card.LIMIT + 1))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "98", None])
def test_only_measured_numbers_enter_a_card(value):
    with pytest.raises(HubError, match="not a finite number"):
        card.model_index("m", {"digits": {"accuracy": value}})


def test_the_newer_form_of_results_reads_back():
    from huggingface_hub import parse_eval_result_entries

    text = card.eval_results({"acme/bench": {"accuracy": 98.6}, "digits": {"accuracy": 1.0}})
    (entry,) = parse_eval_result_entries(yaml.safe_load(text))
    assert (entry.dataset_id, entry.value, entry.notes) == ("acme/bench", 98.6, "accuracy")
    assert card.eval_results({"digits": {"accuracy": 1.0}}) == ""


def test_dates_become_text():
    day = datetime.date(2026, 1, 2)
    assert card.plain({"a": [day, float("nan"), {1: b"x"}]}) == {
        "a": ["2026-01-02", None, {"1": "b'x'"}]
    }
