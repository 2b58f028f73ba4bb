"""Style counts and features: by hand, and against the published metadata."""

import numpy as np
import pytest
from benchmark_data import ARENA_HARD, needs_shared_data, read_jsonl

from pvar.evaluation.style import StyleCounts, count_style, standardise, style_differences

ANSWER = """# Title
## Part
#not a header
1. first
   2. nested
- point
* star
+ plus
**bold** and __also bold__ but **not
this**
```python
# no header
- no list
**no bold**
```
"""


def test_markdown_is_counted_outside_code_blocks() -> None:
    assert count_style(ANSWER, num_tokens=77) == StyleCounts(tokens=77, headers=2, lists=5, bolds=2)


@needs_shared_data
@pytest.mark.parametrize("model", ["o3-mini-2025-01-31", "sky-t1-32b"])
def test_published_style_metadata_is_recounted(model: str) -> None:
    rows = read_jsonl(ARENA_HARD / "v2.0" / "model_answer" / f"{model}.jsonl.gz")

    assert len(rows) > 700
    for row in rows:
        metadata = row["metadata"]
        counted = count_style(row["messages"][-1]["content"]["answer"], num_tokens=0)
        assert counted[1:] == tuple(
            sum(metadata[f"{kind}_count"].values()) for kind in ("header", "list", "bold")
        )


def test_v01_differences_are_relative_to_the_sum_plus_one() -> None:
    model, baseline = np.array([[300.0, 3, 0, 1]]), np.array([[99.0, 0, 0, 2]])

    # 201/400, 3/4, 0/1, −1/4
    np.testing.assert_allclose(
        style_differences(model, baseline, "v0.1"), [[0.5025, 0.75, 0, -0.25]]
    )


def test_v20_differences_compare_densities() -> None:
    model, baseline = np.array([[299.0, 3, 0, 1]]), np.array([[99.0, 0, 0, 2]])

    # tokens 200/398; densities 0.01 against 0, 0 against 0, 1/300 against 0.02
    np.testing.assert_allclose(
        style_differences(model, baseline, "v2.0"),
        [[200 / 398, 0.01 / 1.01, 0, (1 / 300 - 0.02) / (1 / 300 + 1.02)]],
    )


def test_two_empty_answers_do_not_differ() -> None:
    empty = np.zeros((1, 4))

    for version in ("v0.1", "v2.0"):
        np.testing.assert_array_equal(style_differences(empty, empty, version), np.zeros((1, 4)))


@pytest.mark.parametrize("ddof", [0, 1])
def test_a_weight_stands_for_that_many_rows(ddof: int) -> None:
    features, weights = np.array([[1.0], [2.0], [6.0]]), np.array([3.0, 1.0, 1.0])
    repeated = np.array([1.0, 1, 1, 2, 6])

    expected = (features[:, 0] - repeated.mean()) / repeated.std(ddof=ddof)
    np.testing.assert_allclose(standardise(features, weights, ddof=ddof)[:, 0], expected)


def test_a_constant_feature_becomes_zero() -> None:
    np.testing.assert_array_equal(
        standardise(np.full((3, 1), 0.1), np.ones(3), ddof=1), np.zeros((3, 1))
    )
