"""Agreement with labels, its drop, and which rows to look at: derived by hand, and simulated."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvar.evaluation.label_audit import (
    AgreementCounts,
    AskedLabel,
    Overdispersion,
    count_agreement,
    find_disagreements,
    holm,
    overdispersion,
    strongest_disagreements,
)
from pvar.label_audit_config import HoldConfig

RULES = HoldConfig()


def counts(group: str, agree: int, disagree: int, **changes: object) -> AgreementCounts:
    given = {
        "kind": "reward_model",
        "model": "rm",
        "settings": "s",
        "grouping": "source",
        "group": group,
        "num_agree": agree,
        "num_tie": 0,
        "num_disagree": disagree,
        "num_missing": 0,
    }
    return AgreementCounts.model_validate(given | changes)


def asked(prompt: str, margin: float | None, source: str = "web", **changes: str) -> AskedLabel:
    label = AskedLabel(prompt, source, None, "reward_model", "rm", "s", margin)
    return label._replace(**changes)  # type: ignore[arg-type]


def test_a_tie_counts_half_and_a_missing_answer_is_left_out_and_counted() -> None:
    rows = [asked("a", 2.0), asked("b", 0.1), asked("c", 0.0), asked("d", -1.0), asked("e", None)]
    (found,) = count_agreement(rows)
    assert (found.num_agree, found.num_tie, found.num_disagree, found.num_missing) == (2, 1, 1, 1)
    assert found.agreement == 2.5 / 4
    assert count_agreement([asked("a", None)])[0].agreement is None


def test_labels_are_counted_by_model_by_source_and_by_named_annotator() -> None:
    rows = [
        asked("a", 1.0, annotator="ann"),
        asked("b", 1.0),
        asked("a", -1.0, model="other", annotator="ann"),
        asked("c", 1.0, source="mail", annotator="ann"),
    ]
    found = {(row.model, row.grouping, row.group): row.num_labels for row in count_agreement(rows)}
    assert found == {
        ("rm", "source", "web"): 2,
        ("rm", "source", "mail"): 1,
        ("rm", "annotator", "ann"): 2,
        ("other", "source", "web"): 1,
        ("other", "annotator", "ann"): 1,
    }


def test_the_interval_is_wilsons_of_the_labels_that_are_not_ties() -> None:
    # 8 of 10 at 95 %, z = 1.96: (0.8 + z²/20 ± z √(0.8·0.2/10 + z²/400)) / (1 + z²/10), as in
    # Agresti and Coull (1998): 0.490 to 0.943.
    bounds = counts("web", 8, 2).interval()
    assert bounds == pytest.approx((0.4902, 0.9433), abs=1e-4)
    # Ten ties beside them: half of the labels are at ½, so that it shrinks by half towards ½.
    shrunk = counts("web", 8, 2, num_tie=10).interval()
    assert shrunk == pytest.approx((0.5 - 0.0098 / 2, 0.5 + 0.4433 / 2), abs=1e-4)
    assert counts("web", 0, 0, num_tie=3).interval() is None


def test_holms_procedure_is_bonferronis_for_the_smallest_and_less_strict_after_it() -> None:
    # 3 · 0.01, then the greater of it and 2 · 0.02, then of that and 1 · 0.03.
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.5))
def test_something_is_rejected_if_and_only_if_bonferroni_rejects(
    p_values: list[float], level: float
) -> None:
    by_holm = any(each <= level for each in holm(p_values))
    by_bonferroni = any(len(p_values) * each <= level for each in p_values)
    assert by_holm == by_bonferroni


def test_a_drop_is_tested_exactly() -> None:
    # Fisher's lady tasting tea: 3 and 1 of 4. One-sided, (1 + 16) / 70 for the higher one.
    rules = HoldConfig(level=0.9, min_labels=4)
    (found,) = find_disagreements([counts("web", 1, 3)], [counts("web", 3, 1)], rules)
    assert found.p_value == pytest.approx(17 / 70)
    assert "source web: rm agrees with 25.0% of 4 labels, with 75.0%" in found.sentence
    assert find_disagreements([counts("web", 3, 1)], [counts("web", 1, 3)], rules) == []


def test_earlier_batches_are_summed_and_only_labels_under_the_same_model_count() -> None:
    now = [counts("web", 60, 40)]
    earlier = [counts("web", 400, 100), counts("web", 400, 100)]
    (found,) = find_disagreements(now, earlier, RULES)
    assert found.so_far is not None
    assert (found.so_far.num_agree, found.so_far.num_disagree) == (800, 200)
    other = [each.model_copy(update={"settings": "another"}) for each in earlier]
    assert find_disagreements(now, other, RULES) == []


def test_a_new_source_may_differ_from_others_but_not_be_reversed() -> None:
    earlier = [counts("web", 800, 200), counts("new", 3, 1)]
    assert find_disagreements([counts("new", 55, 45)], earlier, RULES) == []
    # 1 of 8 under ½: (1 + 8) / 256.
    rules = HoldConfig(min_labels=8, level=0.04)
    (found,) = find_disagreements([counts("new", 1, 7)], earlier, rules)
    assert found.so_far is None
    assert found.p_value == pytest.approx(9 / 256)
    assert "less than half" in found.sentence


def test_overdispersion_is_pearsons_statistic_over_its_degrees_of_freedom() -> None:
    # Shares 0.7 and 0.9 of 100 around 0.8: 2 · 10² / (100 · 0.8 · 0.2) = 12.5, with 1 degree; and
    # 0.5 twice: 0, with 1.
    batches = [counts("web", 70, 30), counts("web", 90, 10)]
    even = [counts("mail", 50, 50), counts("mail", 50, 50)]
    assert overdispersion(batches) == (pytest.approx(12.5), 1)
    assert overdispersion([*batches, *even]) == (pytest.approx(6.25), 2)
    # A smaller variation than that of independent labels is chance; one batch has none.
    assert overdispersion(even) == (1.0, 1)
    assert overdispersion(batches[:1]) == (1.0, 0)
    assert overdispersion([counts("web", 9, 0), counts("web", 5, 0)]) == (1.0, 0)


def test_a_drop_within_the_variation_of_earlier_batches_is_not_named() -> None:
    now = [counts("web", 140, 60)]
    steady = [counts("web", 160, 40)] * 4
    varied = [counts("web", agree, 200 - agree) for agree in (140, 180, 145, 175)]
    assert len(find_disagreements(now, steady, RULES)) == 1
    assert find_disagreements(now, varied, RULES) == []
    # z = 2 with φ = 4 is 1, read from Student's t with 3 degrees of freedom: 0.1955.
    assert Overdispersion(4.0, 3).scaled(0.02275013) == pytest.approx(0.19550, abs=1e-5)
    assert Overdispersion(1.0, 3).scaled(0.02) == 0.02


@pytest.mark.parametrize(
    "now",
    [
        counts("web", 10, 19),  # fewer labels than min_labels
        counts("web", 0, 0, num_tie=100),  # ties say nothing about a label
        counts("web", 10, 90, kind="champion"),  # another model after each promotion
    ],
)
def test_what_is_not_compared(now: AgreementCounts) -> None:
    earlier = [counts("web", 800, 200), counts("web", 800, 200, kind="champion")]
    assert find_disagreements([now], earlier, RULES) == []


def test_a_significant_drop_that_is_small_is_not_named() -> None:
    now, earlier = [counts("web", 78_000, 22_000)], [counts("web", 800_000, 200_000)]
    assert find_disagreements(now, earlier, RULES) == []
    (found,) = find_disagreements(now, earlier, HoldConfig(min_drop=0.02))
    assert found.p_value < 1e-10


def test_rows_are_ranked_by_how_much_all_models_are_against_them() -> None:
    def by(model: str, margins: dict[str, float | None]) -> list[AskedLabel]:
        return [asked(prompt, margin, model=model) for prompt, margin in margins.items()]

    rows = [
        *by("small", {"a": -1.0, "b": -2.0, "c": 3.0, "d": None}),  # mean size 2
        *by("large", {"a": -30.0, "b": 10.0, "c": 10.0, "d": -30.0}),  # of these 20
        asked("z", -30.0, source="mail", model="large"),  # not of the source that is named
    ]
    # With z, large's mean size is 22; d: 30/22 alone, a: (1/2 + 30/22) / 2, b: (1 − 10/22) / 2.
    found = find_disagreements([counts("web", 60, 40)], [counts("web", 800, 200)], RULES)
    ranked = strongest_disagreements(rows, found, limit=10)
    assert [(row.prompt_id, row.strength) for row in ranked] == [
        ("d", pytest.approx(30 / 22)),
        ("a", pytest.approx((1 / 2 + 30 / 22) / 2)),
        ("b", pytest.approx((1 - 10 / 22) / 2)),
    ]
    assert ranked[0].margins == {"large": -30.0}
    assert strongest_disagreements(rows, found, limit=1) == ranked[:1]


SOURCES = ("web", "mail", "code")
TRUE_AGREEMENT = {"good": 0.8, "fair": 0.7}


def simulated(
    rng: np.random.Generator, num_labels: int, flipped: float = 0.0
) -> list[AgreementCounts]:
    """A batch: two models on three sources, and flipped labels in the first source."""
    found = []
    for model, share in TRUE_AGREEMENT.items():
        for source in SOURCES:
            flips = flipped if source == SOURCES[0] else 0.0
            now = share * (1 - flips) + (1 - share) * flips
            agree = int(rng.binomial(num_labels, now))
            found.append(counts(source, agree, num_labels - agree, model=model))
    return found


def held(rng: np.random.Generator, flipped: float, repeats: int) -> list[set[str]]:
    """The sources that are named in batches of 400 labels of each source, after four clean ones."""
    named = []
    for _ in range(repeats):
        earlier = [row for _ in range(4) for row in simulated(rng, 400)]
        found = find_disagreements(simulated(rng, 400, flipped), earlier, RULES)
        named.append({each.now.group for each in found})
    return named


def test_flipped_labels_of_one_source_are_found_and_named() -> None:
    named = held(np.random.default_rng(1), flipped=0.2, repeats=200)
    assert np.mean([SOURCES[0] in each for each in named]) > 0.95
    assert np.mean([each <= {SOURCES[0]} for each in named]) > 0.95


def test_a_clean_batch_is_held_in_at_most_one_of_twenty_repeats() -> None:
    # 4.2 % without overdispersion, from 40,000 draws of 300 labels (standard error 0.1 points).
    named = held(np.random.default_rng(0), flipped=0.0, repeats=1000)
    assert np.mean([bool(each) for each in named]) <= 0.05
