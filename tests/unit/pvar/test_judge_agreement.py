"""Agreement of a judge with people: accuracy, its interval, Cohen's kappa, by source."""

from collections.abc import Sequence

import pytest

from pvar.evaluation.judge_agreement import (
    Side,
    agreement_by_source,
    chosen_side,
    cohen_kappa,
    judge_agreement,
    named_side,
)
from pvar.judging_result import JudgedPair, JudgingResult, Showing


def pair(prompt_id: str, straight: float | None, swapped: float | None = None) -> JudgedPair:
    """Preferences for the chosen answer, in both orders; one number is both."""
    both = (straight, straight if swapped is None else swapped)
    return JudgedPair(
        prompt_id,
        tuple(
            Showing(bool(n), value, None, None if value is not None else "no_verdict")
            for n, value in enumerate(both)
        ),
    )


def result(*pairs: JudgedPair) -> JudgingResult:
    return JudgingResult(pairs, min_coverage=0, num_calls=0, num_cached=0, usd=0.0)


def prompts_at(side: Side, num: int) -> list[str]:
    """Prompt ids whose chosen answer is counted at that side."""
    return [name for name in (f"p{i}" for i in range(200)) if chosen_side(name) == side][:num]


def test_accuracy_is_the_share_of_judged_pairs_with_the_chosen_answer_and_a_tie_is_half() -> None:
    # Means 0.9, 0.6, 0.5, 0.2: 1 + 1 + ½ + 0 of 4. The fifth has no verdict in one order.
    missing = JudgedPair("e", (Showing(False, 1.0, None, None), Showing(True, None, None, "why")))
    found = judge_agreement(
        result(pair("a", 0.9), pair("b", 1.0, 0.2), pair("c", 0.8, 0.2), pair("d", 0.2), missing),
        seed=0,
    )

    assert (found.num_pairs, found.num_judged, found.coverage) == (5, 4, 0.8)
    assert found.accuracy == pytest.approx(2.5 / 4)
    # a and d name the same side in both orders; b and c do not.
    assert found.position_consistency == pytest.approx(0.5)


def test_a_mean_of_a_half_is_a_tie_whatever_the_rounding() -> None:
    # 0.1 + (1 − 0.1)·… in floats: 1 − 0.9 = 0.09999999999999998.
    found = judge_agreement(result(pair("a", 0.9, 1 - 0.9), pair("b", 1 - 0.7, 0.7)), seed=0)

    assert found.accuracy == 0.5


def test_the_interval_is_over_prompts() -> None:
    # All right: the lower end is (α/2)^(1/n) with n prompts, and not with the 8 pairs.
    pairs = [pair(f"p{n % 4}", 1.0) for n in range(8)]
    found = judge_agreement(result(*pairs), seed=0)

    assert found.accuracy == 1.0
    assert found.accuracy_lower == pytest.approx(0.025 ** (1 / 4))
    assert found.accuracy_upper == 1.0


def test_a_prompt_with_many_pairs_counts_as_many_pairs() -> None:
    # p0 has three right pairs, p1 and p2 one wrong pair each: 3 of 5, and not 1 of 3 prompts.
    pairs = [*[pair("p0", 1.0)] * 3, pair("p1", 0.0), pair("p2", 0.0)]
    found = judge_agreement(result(*pairs), seed=0)

    assert found.accuracy == pytest.approx(0.6)
    assert found.accuracy_lower is not None
    assert found.accuracy_upper is not None
    assert 0 <= found.accuracy_lower < 0.6 < found.accuracy_upper <= 1
    assert judge_agreement(result(*pairs), seed=0) == found


TABLE: Sequence[tuple[Side, Side, int]] = (
    ("A", "A", 4), ("A", "B", 1), ("A", "tie", 1),
    ("B", "A", 0), ("B", "B", 3), ("B", "tie", 1),
)  # fmt: skip
"""Person, judge, number of pairs.

p_o = (4 + 3)/10 = 0.7. The person names A 6 times and B 4 times, the judge A 4, B 4, tie 2 times:
p_e = 0.6·0.4 + 0.4·0.4 + 0·0.2 = 0.4. κ = (0.7 − 0.4)/(1 − 0.4) = 0.5.
"""


def test_kappa_of_a_table_by_hand() -> None:
    human = [person for person, _, num in TABLE for _ in range(num)]
    judge = [judge for _, judge, num in TABLE for _ in range(num)]

    assert cohen_kappa(human, judge) == pytest.approx(0.5)


def test_kappa_of_pairs_is_that_of_the_sides_that_they_name() -> None:
    """The table above, from preferences for the chosen answer."""
    pairs = []
    left = {side: iter(prompts_at(side, 10)) for side in ("A", "B")}
    for person, judge, num in TABLE:
        preference = 0.5 if judge == "tie" else float(person == judge)
        pairs += [pair(next(left[person]), preference) for _ in range(num)]

    found = judge_agreement(result(*pairs), seed=0)

    assert found.kappa == pytest.approx(0.5)
    assert found.accuracy == pytest.approx((7 + 2 / 2) / 10)


def test_kappa_is_one_for_the_same_sides_minus_one_for_the_others_and_unknown_for_one_side() -> (
    None
):
    sides: list[Side] = ["A", "B", "A", "B"]
    others: list[Side] = ["B", "A", "B", "A"]
    assert cohen_kappa(sides, sides) == 1.0
    # p_o = 0, p_e = ½: −½ / ½.
    assert cohen_kappa(sides, others) == -1.0
    assert cohen_kappa(["A", "A"], ["A", "A"]) is None
    # p_o = 0 and p_e = 0: nothing in common, as by chance.
    assert cohen_kappa(["A", "A"], ["tie", "tie"]) == 0.0


def test_the_side_of_the_chosen_answer_is_fair_and_the_judges_side_follows_from_it() -> None:
    sides = [chosen_side(f"prompt {n}") for n in range(400)]
    # Binomial(400, ½): standard deviation 10; 4 of them are 40.
    assert abs(sides.count("A") - 200) < 40
    for side, other in (("A", "B"), ("B", "A")):
        [prompt_id] = prompts_at(side, 1)
        assert named_side(prompt_id, 0.7) == side
        assert named_side(prompt_id, 0.3) == other
        assert named_side(prompt_id, 0.5) == "tie"


def test_each_source_has_its_own_agreement_and_one_without_verdicts_stays_unknown() -> None:
    pairs = [pair("a", 1.0), pair("b", 0.0), pair("c", 1.0), pair("d", None)]
    found = agreement_by_source(result(*pairs), ["y", "x", "y", "z"], seed=0)

    assert list(found) == ["x", "y", "z"]
    assert (found["x"].accuracy, found["y"].accuracy) == (0.0, 1.0)
    assert found["z"] == (1, 0, 0.0, None, None, None, None, None)
