"""Files of differences: sums as the field's own scripts compute them, and what does not fit."""

import pytest
import torch

from zoo.errors import ConfigError, WeightsError
from zoo.weights.bases import summed
from zoo.weights.lazy import as_lazy

BASE = {"table": torch.arange(6.0).view(3, 2).half(), "line": torch.ones(2), "one": torch.ones(())}


def found(own, deltas=None):
    lazy = summed(own, {"text": "base"} if deltas is None else deltas, lambda name: BASE)
    return {name: as_lazy(value).read() for name, value in lazy.items()}


def test_rows_that_the_base_lacks_are_the_file_s():
    """apply_delta of LLaVA's code: added tokens have no difference."""
    own = {"text.table": torch.randn(5, 2).half(), "adapter.w": torch.randn(2)}
    whole = found(own)
    assert torch.equal(whole["text.table"][:3], own["text.table"][:3] + BASE["table"])
    assert torch.equal(whole["text.table"][3:], own["text.table"][3:])
    assert torch.equal(whole["adapter.w"], own["adapter.w"])


def test_sums_have_the_file_s_dtype_and_leave_it_alone():
    own = {"text.line": torch.ones(2, dtype=torch.bfloat16), "text.one": torch.ones(())}
    whole = found(own)
    assert whole["text.line"].dtype == torch.bfloat16 and whole["text.line"].tolist() == [2, 2]
    assert whole["text.one"] == 2 and own["text.line"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"text.table": torch.ones(3, 3)}, r"table of base is \(3, 2\), to be added to \(3, 3\)"),
        ({"text.table": torch.ones(2, 2)}, "table of base has 3 rows, to be added to 2"),
        ({"text.table": torch.ones(3)}, r"is \(3, 2\), to be added to \(3\)"),
        ({"text.more": torch.ones(3)}, r"deltas\.text: base has no more to add to"),
    ],
)
def test_what_cannot_be_added(own, words):
    with pytest.raises(WeightsError, match=words):
        found(own)


def test_a_module_that_is_not_there():
    with pytest.raises(ConfigError, match=r"deltas\.ears: the file holds nothing"):
        found({"text.line": torch.ones(2)}, {"ears": "base"})
