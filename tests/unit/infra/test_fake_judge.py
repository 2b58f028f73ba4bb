"""The fake judge: stable, symmetric, and failing as often as it is told to."""

import pytest

from infra.judges.fake_judge import FakePairJudge
from pvar.digest import canonical_json
from pvar.records import Comparison, Message


def comparisons(num: int) -> list[Comparison]:
    question = (Message("user", "Why?"),)
    return [Comparison(f"p{i}", question, f"first {i}", f"second {i}") for i in range(num)]


def swapped(comparison: Comparison) -> Comparison:
    return comparison._replace(first=comparison.second, second=comparison.first)


def test_the_verdict_is_a_fixed_function_of_the_texts() -> None:
    # printf '["quality",[],["a"]]' | sha256sum → 0a33a356c6bba…, of "b": ab367dbe5be6a….
    [verdict] = FakePairJudge().judge([Comparison("p", (), "a", "b")])

    first, second = 0x0A33A356C6BBA / 2**52, 0xAB367DBE5BE6A / 2**52
    assert verdict.preference == pytest.approx(0.5 + (second - first) / 2, abs=1e-12)


def test_verdicts_keep_the_order_and_do_not_depend_on_neighbours_or_ids() -> None:
    rows = comparisons(5)
    together = FakePairJudge().judge(rows)

    assert [v.prompt_id for v in together] == ["p0", "p1", "p2", "p3", "p4"]
    assert [FakePairJudge().judge([row])[0] for row in rows] == together
    assert (
        FakePairJudge().judge([rows[3]._replace(prompt_id="x")])[0].preference
        == together[3].preference
    )


def test_swapping_the_answers_turns_the_verdict_around_and_equal_ones_tie() -> None:
    for row in comparisons(20):
        [forward, backward] = FakePairJudge().judge([row, swapped(row)])
        assert forward.preference is not None
        assert backward.preference is not None
        assert forward.preference + backward.preference == pytest.approx(1, abs=1e-15)
    assert FakePairJudge().judge([Comparison("p", (), "same", "same")])[0].preference == 0.5


def test_the_asked_share_is_missing_with_a_reason_and_the_others_are_as_before() -> None:
    rows = comparisons(1000)
    whole, partly = FakePairJudge().judge(rows), FakePairJudge(missing_share=0.2).judge(rows)

    missing = [verdict for verdict in partly if verdict.preference is None]
    # Binomial standard deviation √(1000 · 0.2 · 0.8) = 12.6; 4 of them are 50.
    assert 150 <= len(missing) <= 250
    assert {verdict.reason for verdict in missing} == {"fake_failure"}
    assert all(a == b for a, b in zip(whole, partly, strict=True) if b.preference is not None)


def test_the_identity_can_enter_a_digest() -> None:
    assert canonical_json(FakePairJudge().identity)
