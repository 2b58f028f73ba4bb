"""A result says what it does not cover, and is not final below the required coverage.

Preferences are the challenger's; `unseen` is a showing without a verdict.
"""

import pytest

from pvar.errors import BudgetError, CoverageError, JudgeError
from pvar.judging_result import (
    BUDGET_SPENT,
    JudgedPair,
    JudgingResult,
    Showing,
    served_name,
    served_text,
)
from pvar.records import Verdict


def seen(preference: float, *, is_swapped: bool = False) -> Showing:
    return Showing(is_swapped, preference, None, None)


def unseen(reason: str) -> Showing:
    return Showing(True, None, None, reason)


def result(*showings: tuple[Showing, ...], min_coverage: float = 1.0) -> JudgingResult:
    pairs = tuple(JudgedPair(f"p{i}", each) for i, each in enumerate(showings))
    return JudgingResult(pairs, min_coverage, num_calls=3, num_cached=0, usd=0.0)


def test_a_pair_has_the_mean_of_its_showings_or_none() -> None:
    judged = result((seen(1.0), seen(0.5)), (seen(1.0), unseen("timeout")), (seen(0.25),))

    # With the first showing alone the second pair's preference would be the position's, 1.
    assert judged.verdicts == (
        Verdict("p0", 0.75),
        Verdict("p1", None, "timeout"),
        Verdict("p2", 0.25),
    )
    assert judged.num_judged == 2
    assert judged.coverage == pytest.approx(2 / 3)
    assert judged.missing == {"timeout": 1}


def test_consistency_counts_the_pairs_whose_showings_name_the_same_side() -> None:
    judged = result(
        (seen(0.9), seen(0.6)),  # challenger twice
        (seen(0.9), seen(0.4)),  # whoever is shown second
        (seen(0.5), seen(0.5)),  # a tie twice
        (seen(0.5), seen(0.6)),
        (seen(0.9), unseen("timeout")),  # not comparable
        (seen(0.9),),
    )

    assert judged.position_consistency == pytest.approx(2 / 4)
    assert result((seen(0.9),)).position_consistency is None


def test_a_result_is_final_from_the_required_coverage_on() -> None:
    pairs = ((seen(1.0),), (seen(1.0),), (seen(0.0),), (unseen("timeout"),))

    enough = result(*pairs, min_coverage=0.75)
    assert enough.is_final
    assert enough.final_verdicts() == enough.verdicts

    too_little = result(*pairs, min_coverage=0.76)
    assert not too_little.is_final
    with pytest.raises(JudgeError, match=r"3 of 4 pairs .*75\.0%, required 76\.0%.*timeout"):
        too_little.final_verdicts()


def test_a_coverage_that_no_later_run_can_raise_is_an_error_of_its_own() -> None:
    # Of 4 pairs, 75 % are 3: with one lasting gap a later run can still judge 3, with two only 2.
    pairs = ((seen(1.0),), (seen(1.0),), (unseen("truncated"),))
    with pytest.raises(JudgeError) as passing:
        result(*pairs, (unseen("http_503"),), min_coverage=0.75).final_verdicts()
    assert not isinstance(passing.value, CoverageError)
    with pytest.raises(CoverageError, match="truncated and no_verdict will be missing again"):
        result(*pairs, (seen(1.0), unseen("no_verdict")), min_coverage=0.75).final_verdicts()


def test_a_spent_budget_is_an_error_of_its_own_and_only_below_the_required_coverage() -> None:
    pairs = ((seen(1.0),), (unseen(BUDGET_SPENT),))

    assert len(result(*pairs, min_coverage=0.5).final_verdicts()) == 2
    with pytest.raises(BudgetError, match="3 calls spent the judge's budget"):
        result(*pairs, min_coverage=0.9).final_verdicts()


def test_nothing_judged_is_not_final() -> None:
    assert result().coverage == 0.0
    assert not result(min_coverage=0.01).is_final


@pytest.mark.parametrize("reason", ["timeout", "rate_limited", "http_503", "http_408"])
def test_what_may_pass_is_to_be_run_again(reason: str) -> None:
    with pytest.raises(JudgeError, match="run again to judge the missing pairs"):
        result((seen(1.0),), (unseen(reason),)).final_verdicts()


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("truncated", "raise the judge's `max_tokens`"),
        ("only_thought", "a model that thinks less"),
        ("no_verdict", "another `model` or wording"),
        ("http_400", "read in the log why the server refuses"),
        ("reward_not_a_number", "look at these comparisons"),
    ],
)
def test_what_would_fail_again_is_not_to_be_run_again(reason: str, change: str) -> None:
    with pytest.raises(JudgeError) as refused:
        result((seen(1.0),), (unseen(reason),)).final_verdicts()

    message = str(refused.value)
    assert f"{reason} will be missing again" in message
    assert change in message
    assert "run again" not in message

    with pytest.raises(JudgeError, match=f"a second run judges only the other ones; {reason} will"):
        result((unseen("timeout"),), (unseen(reason),)).final_verdicts()


def test_what_the_servers_called_themselves_is_counted_in_showings() -> None:
    def by(model: str | None, fingerprint: str | None) -> Showing:
        return seen(1.0)._replace(served_model=model, system_fingerprint=fingerprint)

    judged = result(
        (by("m-1", "fp_a"), by("m-1", "fp_b")),
        (by("m-1", "fp_b"), by("m-2", None)),
        (by(None, "fp_c"), by(None, None)),
    )

    counts = {"m-1 (fp_b)": 2, "m-1 (fp_a)": 1, "m-2": 1, "unnamed (fp_c)": 1}
    assert judged.served == counts
    assert list(judged.served) == list(counts)
    assert served_text(judged.served) == "m-1 (fp_b): 2; m-1 (fp_a): 1; m-2: 1; unnamed (fp_c): 1"
    assert served_text({}) is None
    assert served_name(None, None) is None


def test_many_names_are_a_text_that_ends() -> None:
    counts = {f"m ({number})": 100 - number for number in range(12)}

    # The last two have 90 and 89.
    assert str(served_text(counts)).endswith("m (9): 91; 2 others: 179")


def test_the_form_of_the_judge_is_that_of_all_its_verdicts() -> None:
    def by(evidence: str | None) -> Showing:
        return seen(1.0)._replace(evidence=evidence)

    text, tokens = by('{"form": "text", "text": "M"}'), by('{"m": -1.0}')
    assert result((text,), (unseen("timeout"),)).judge_form == "text"
    assert result((tokens,)).judge_form == "tokens"
    assert result((tokens,), (text,)).judge_form == "mixed"
    assert result((by(None),), (by("B wins. [[B>A]]"),)).judge_form is None
