"""Stage promote on a real registry: what moves the alias, and what does not."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flows.promotions import decide
from flows.wiring import Wiring
from infra.settings import Settings
from pvar.errors import PromotionError
from pvar.evaluate_config import PromoteConfig
from pvar.exam import exam_digest
from pvar.ports import RegisteredVersion, Store
from pvar.records import Prompt, Verdict
from pvar.row_counts import RowCounts
from pvar.runtime_config import RuntimeConfig
from tasks.engine.artifact import ArtifactKeys
from tasks.engine.stage import Job
from tasks.engine.stage_outcome import Waiting
from tasks.engine.tables import write_table
from tasks.stages.ingest import PROMPTS
from tasks.stages.judgments import VERDICTS
from tasks.stages.person_decision import PersonDecision, keep_decision
from tasks.stages.promote import PROMOTE, PromotionRecord, promote, refuse_stale, version_tags
from tasks.stages.promotion_gate import EXAM_PROMPTS, FIRST_DIVERGENCE, FIRST_RESULTS, PromoteSpec
from tests.artifacts import ONE_ROW, opened, put_artifact
from tests.services.registry import MODEL, RegistryNeighbours

pytestmark = pytest.mark.slow  # MLflow sets up its database

# Lower end above one half, everything judged, nine of ten answers ended by themselves.
GOOD = {
    "win_rate": 0.61,
    "win_rate_lower": 0.53,
    "win_rate_upper": 0.68,
    "coverage": 1.0,
    "challenger_ended_share": 0.9,
    "num_ability_questions": None,
}
ABILITY = {
    "ability": 0.7,
    "opponent_ability": 0.75,
    "ability_change": -0.05,
    "ability_change_lower": -0.15,
    "ability_change_upper": 0.05,
    "num_ability_questions": 40,
}
POLICY = "bundled:start#bundled:start-1"


class Bench(NamedTuple):
    """A store, a registry, and jobs over them."""

    neighbours: RegistryNeighbours
    folder: Path

    def model(self, seed: int) -> ArtifactKeys:
        """A trained model; its seed makes it another one."""
        files = {"model/config.json": json.dumps({"seed": seed}).encode()}
        return put_artifact(self.neighbours.store, "train", config={"seed": seed}, files=files)

    def table(self, name: str, rows: Sequence[Any], record: type[Any]) -> dict[str, bytes]:
        """A file of an artifact."""
        write_table(self.folder / name, rows, record)
        return {name: (self.folder / name).read_bytes()}

    def job(self, model: ArtifactKeys, opponent: str = POLICY, **changes: Any) -> Job[PromoteSpec]:
        """The promotion of a model that was compared with `opponent`; `changes` are of figures."""
        store = self.neighbours.store
        gate = PromoteConfig(
            model_name=MODEL,
            mode=changes.pop("mode", "automatic"),
            max_ability_loss=changes.pop("max_ability_loss", None),
            alpha_budget=changes.pop("alpha_budget", None),
            max_total_ability_loss=changes.pop("max_total_ability_loss", None),
            max_total_divergence=changes.pop("max_total_divergence", None),
        )
        first, verdicts = changes.pop("first", None), changes.pop("verdicts", None)
        divergence, counts = changes.pop("divergence", None), changes.pop("counts", ONE_ROW)
        results = put_artifact(
            store,
            "evaluate",
            config={"opponent": opponent},
            inputs={"challenger": model},
            files=None if verdicts is None else self.table(VERDICTS, verdicts, Verdict),
            summary={**GOOD, **changes},
        )
        inputs = {"results": results, "model": model}
        if verdicts is not None:
            asked = [Prompt(row.prompt_id, (), "eval", "x") for row in verdicts]
            files = self.table(PROMPTS, asked, Prompt)
            inputs[EXAM_PROMPTS] = put_artifact(store, "ingest", files=files)
        if first is not None:
            inputs[FIRST_RESULTS] = put_artifact(
                store, "evaluate", config={}, inputs={"opponent": model}, summary=first
            )
        if divergence is not None:
            inputs[FIRST_DIVERGENCE] = put_artifact(
                store,
                "divergence",
                config={"counts": counts.model_dump(mode="json")},
                inputs={"policy": model},
                summary=divergence,
                row_counts=counts,
            )
        tracking = self.neighbours.tracking()
        settings = Settings(home=self.folder)
        return Job(
            spec=PromoteSpec(
                gate=gate,
                strategy="top",
                budget="fraction=0.1",
                opponent=opponent,
                first=None if first is None else POLICY,
            ),
            runtime=RuntimeConfig(),
            inputs={
                name: opened(store, keys, self.folder / "cache") for name, keys in inputs.items()
            },
            ports=Wiring(settings, store, tracking, self.neighbours.registry()),
            keys=ArtifactKeys("promote", "0123456789abcdef"),
            scratch=self.folder,
            log_step=lambda step, figures: None,
        )

    def promote(
        self, model: ArtifactKeys, opponent: str = POLICY, **changes: Any
    ) -> PromotionRecord:
        return promote(self.job(model, opponent, **changes))


@pytest.fixture
def bench(tmp_path: Path, file_store: Store) -> Bench:
    return Bench(RegistryNeighbours(tmp_path, file_store), tmp_path)


def as_opponent(model: ArtifactKeys) -> str:
    """How a run refers to a champion that its own store holds."""
    return f"artifact:{model.root}#{model.root}"


def test_a_model_that_passes_becomes_champion(bench: Bench) -> None:
    model = bench.model(1)
    record = bench.promote(model)
    assert (record.passed, record.promoted, record.decision) == (True, True, None)
    assert (record.version, record.previous_version) == (1, None)
    assert bench.neighbours.alias("champion") == 1
    (move,) = bench.neighbours.registry().history(MODEL)
    assert move.reason == "gate passed: promote/0123456789abcdef"


def test_the_version_says_where_it_came_from_and_what_came_out(bench: Bench) -> None:
    model = bench.model(1)
    job = bench.job(model)
    promote(job)
    (facts,) = bench.neighbours.registry().versions(MODEL)
    assert facts.version.artifact == model.root
    assert facts.tags == {
        "pvar.artifact": model.root,
        "pvar.results": job.inputs["results"].keys.root,
        "pvar.opponent": POLICY,
        "pvar.strategy": "top",
        "pvar.budget": "fraction=0.1",
        "pvar.gate": "passed",
        "pvar.gate_note": "ability not measured: no ability questions",
        "pvar.promotion": "automatic",
        "pvar.win_rate": "0.6100",
        "pvar.win_rate_lower": "0.5300",
        "pvar.win_rate_upper": "0.6800",
        "pvar.coverage": "1.0000",
    }


def test_the_version_says_on_which_exam_it_was_measured(bench: Bench) -> None:
    bench.promote(bench.model(1), exam="e1", exam_conditions="c1")
    (facts,) = bench.neighbours.registry().versions(MODEL)
    assert (facts.tags["pvar.exam"], facts.tags["pvar.exam_conditions"]) == ("e1", "c1")


@pytest.mark.parametrize(
    ("figures", "failed"),
    [
        # A tie does not promote: the bound is one half, and the lower end must be above it.
        ({"win_rate_lower": 0.5}, "win_rate_lower"),
        ({"win_rate_lower": None}, "win_rate_lower"),
        ({"coverage": 0.94}, "coverage"),
        # It wins, but a loss of a quarter of the questions is not ruled out.
        ({**ABILITY, "ability_change_lower": -0.25}, "ability_change_lower"),
        # Questions, of which none was answered; a bound, but no questions.
        ({**ABILITY, "ability_change_lower": None}, "ability_change_lower"),
        ({"max_ability_loss": 0.2}, "ability_change_lower"),
    ],
)
def test_a_model_that_fails_the_gate_is_registered_and_not_promoted(
    bench: Bench, figures: dict[str, Any], failed: str
) -> None:
    record = bench.promote(bench.model(1), **figures)
    assert (record.passed, record.promoted, record.decision) == (False, False, None)
    assert [name for name, _, _, passed in record.checks if not passed] == [failed]
    (facts,) = bench.neighbours.registry().versions(MODEL)
    assert facts.tags["pvar.gate"] == "failed"
    assert bench.neighbours.alias("champion") is None
    assert bench.neighbours.moves() == []


def test_ability_is_in_the_decision_and_on_the_version_or_said_to_be_missing(
    bench: Bench,
) -> None:
    measured = bench.promote(bench.model(1), mode="never", **ABILITY)
    assert ("ability_change_lower", -0.15, -0.2, True) in measured.checks
    assert measured.note == ""
    (facts,) = bench.neighbours.registry().versions(MODEL)
    assert facts.tags["pvar.ability_change_lower"] == "-0.1500"
    assert (facts.tags["pvar.ability"], facts.tags["pvar.opponent_ability"]) == ("0.7000", "0.7500")

    # Results of earlier versions do not say what a loss of all would be: at least the ability.
    floor = {**ABILITY, "ability": 0.0, "opponent_ability": 0.0, "ability_change": 0.0}
    at_floor = bench.promote(bench.model(3), mode="never", max_ability_loss=0.2, **floor)
    assert [name for name, _, _, passed in at_floor.checks if not passed] == [
        "ability_change_lower"
    ]
    assert at_floor.note.startswith("ability not measurable against the opponent")

    unmeasured = bench.promote(bench.model(2), mode="never")
    assert unmeasured.passed
    assert unmeasured.note == "ability not measured: no ability questions"


def test_a_loss_since_the_first_model_stops_a_model_that_beats_the_champion(bench: Bench) -> None:
    since_first = {**GOOD, **ABILITY, "win_rate": 0.7, "ability_change_lower": -0.25}
    gate = {"mode": "never", "max_total_ability_loss": 0.2}
    record = bench.promote(bench.model(1), **gate, **ABILITY, first=since_first)
    assert [check[0] for check in record.checks if not check[3]] == ["total_ability_change_lower"]
    (facts,) = bench.neighbours.registry().versions(MODEL)
    assert facts.tags["pvar.ability_change_lower"] == "-0.1500"
    assert facts.tags["pvar.first.ability_change_lower"] == "-0.2500"
    assert facts.tags["pvar.first.win_rate"] == "0.7000"
    assert facts.tags["pvar.first.model"] == "bundled:start-1"

    lost_less = {**since_first, "ability_change_lower": -0.2}
    assert bench.promote(bench.model(2), **gate, **ABILITY, first=lost_less).passed


def test_a_model_that_went_too_far_from_the_first_is_not_promoted(bench: Bench) -> None:
    gate = {"mode": "never", "max_total_divergence": 8.0}
    far = {"kl": 7.5, "kl_lower": 6.9, "kl_upper": 8.1, "kl_per_token": 0.1}
    record = bench.promote(bench.model(1), **gate, divergence=far)
    assert [check[0] for check in record.checks if not check[3]] == ["total_divergence_upper"]
    (facts,) = bench.neighbours.registry().versions(MODEL)
    tags = {name: text for name, text in facts.tags.items() if name.startswith("pvar.first.")}
    assert tags == {
        "pvar.first.kl": "7.5000",
        "pvar.first.kl_lower": "6.9000",
        "pvar.first.kl_upper": "8.1000",
    }
    # One answer gives no interval.
    for unknown in ({**far, "kl_upper": None}, {}):
        assert not bench.promote(bench.model(2), **gate, divergence=unknown).passed
    assert bench.promote(bench.model(3), **gate, divergence={**far, "kl_upper": 8.0}).passed


def test_a_divergence_without_its_worst_answers_is_no_evidence(bench: Bench) -> None:
    """An infinite one is above every bound, and missing ones may be."""
    gate = {"mode": "never", "max_total_divergence": 8.0}
    near = {"kl": 1.0, "kl_lower": 0.9, "kl_upper": 1.1}
    for rejected, passes in (({"not_finite": 1}, False), ({"no_answer": 6}, False), ({}, True)):
        num_left_out = sum(rejected.values())
        counts = RowCounts(rows_in=100, rows_out=100 - num_left_out, rejected=rejected)
        record = bench.promote(bench.model(1), **gate, divergence=near, counts=counts)
        assert record.passed == passes, rejected
        (value,) = [check[1] for check in record.checks if check[0] == "total_divergence_upper"]
        assert value == (1.1 if passes else None)


def won(num: int, of: int) -> list[Verdict]:
    return [Verdict(f"p{number}", float(number < num)) for number in range(of)]


def test_the_same_win_rate_passes_at_the_first_look_and_not_at_the_fourth(bench: Bench) -> None:
    """60 wins of 100: z is 2.03, and 2.5 % needs 1.98, but 0.3 % (the fourth of 10 %) 2.69."""
    budget = {"alpha_budget": 0.1, "verdicts": won(60, 100), "exam": "e1"}
    first = bench.promote(bench.model(1), **budget)
    assert (first.passed, first.promoted) == (True, True)
    assert first.look is not None
    assert first.look.sentence == "look 1 at this exam, level 0.061 of 0.1"
    champion = as_opponent(bench.model(1))
    bench.promote(bench.model(2), champion, exam="e1", win_rate_lower=0.4)
    bench.promote(bench.model(3), champion, exam="e1", mode="never")  # cannot promote: no look
    bench.promote(bench.model(4), champion, exam="e1", win_rate_lower=0.4)

    fourth = bench.promote(bench.model(5), champion, **budget)
    assert fourth.look is not None
    assert fourth.look.sentence == "look 4 at this exam, level 0.0038 of 0.1"
    assert [check[0] for check in fourth.checks if not check[3]] == ["win_rate_lower_at_look"]
    # The same results are the same look, and another exam begins anew.
    assert bench.promote(bench.model(5), champion, **budget) == fourth
    assert bench.promote(bench.model(5), champion, **{**budget, "exam": "e2"}).passed
    tags = bench.neighbours.registry().versions(MODEL)[-1].tags
    assert tags["pvar.look"] == "look 1 at this exam, level 0.061 of 0.1"


def test_a_look_is_counted_before_there_is_a_budget(bench: Bench) -> None:
    record = bench.promote(bench.model(1), exam="e1")
    assert record.look is not None
    assert record.look.sentence == "look 1 at this exam"
    assert bench.promote(bench.model(2), as_opponent(bench.model(1))).look is None  # no exam named


def test_the_tags_of_a_rebuilt_version_are_those_that_it_had(bench: Bench) -> None:
    job = bench.job(
        bench.model(1), alpha_budget=0.1, verdicts=won(60, 100), exam="e1", first=dict(GOOD)
    )
    promote(job)
    (facts,) = bench.neighbours.registry().versions(MODEL)
    assert {"pvar.artifact": job.inputs["model"].keys.root, **version_tags(job)} == facts.tags


def test_results_of_an_earlier_version_get_the_exam_of_their_prompts(bench: Bench) -> None:
    verdicts = won(60, 100)
    record = bench.promote(bench.model(1), alpha_budget=0.05, verdicts=verdicts)
    assert record.look is not None
    assert record.look.exam == exam_digest(
        Prompt(row.prompt_id, (), "eval", "x") for row in verdicts
    )


def test_mode_never_registers_only(bench: Bench) -> None:
    record = bench.promote(bench.model(1), mode="never")
    assert (record.passed, record.promoted, record.decision) == (True, False, None)
    assert bench.neighbours.alias("champion") is None


def test_a_version_of_mode_never_is_not_approved_because_no_look_was_counted(bench: Bench) -> None:
    model = bench.model(1)
    assert bench.promote(model, mode="never", exam="e1").passed
    wiring = bench.job(model).ports
    assert isinstance(wiring, Wiring)
    with pytest.raises(PromotionError, match=f"pvar rollback {MODEL} --to 1 --reason TEXT"):
        decide(wiring, MODEL, 1, approved=True, note="looks good", by="Bo")
    assert bench.neighbours.alias("champion") is None
    # The way out that counts a look: the same with another mode.
    with pytest.raises(Waiting):
        bench.promote(model, mode="approval", exam="e1")
    decide(wiring, MODEL, 1, approved=True, note="looks good", by="Bo")
    assert bench.neighbours.alias("champion") == 1


def test_mode_approval_registers_and_waits_for_a_person(bench: Bench) -> None:
    with pytest.raises(Waiting) as signal:
        bench.promote(bench.model(1), mode="approval")
    assert signal.value.what == f"approval of {MODEL} version 1"
    assert f"pvar approve {MODEL} 1 --note TEXT" in signal.value.how_to_go_on
    assert bench.neighbours.alias("champion") is None
    (facts,) = bench.neighbours.registry().versions(MODEL)
    assert facts.tags["pvar.gate"] == "passed"


def test_a_gate_that_failed_waits_for_nobody(bench: Bench) -> None:
    record = bench.promote(bench.model(1), mode="approval", coverage=0.1)
    assert (record.passed, record.promoted, record.decision) == (False, False, None)


def asked(bench: Bench, model: ArtifactKeys, opponent: str = POLICY) -> Wiring:
    """The ports of a person, after the stage has asked."""
    with pytest.raises(Waiting):
        bench.promote(model, opponent, mode="approval")
    wiring = bench.job(model).ports
    assert isinstance(wiring, Wiring)
    return wiring


def test_an_approved_version_is_promoted_with_name_and_note(bench: Bench) -> None:
    first, second = bench.model(1), bench.model(2)
    bench.promote(first)
    wiring = asked(bench, second, as_opponent(first))
    decide(wiring, MODEL, 2, approved=True, note="read fifty answers", by="Bo")
    assert bench.neighbours.alias("champion") == 2  # at once
    record = bench.promote(second, as_opponent(first), mode="approval")
    assert (record.promoted, record.version, record.previous_version) == (True, 2, 1)
    assert record.decision is not None
    assert record.decision.sentence == "approved by Bo: read fifty answers"
    assert len(bench.neighbours.moves()) == 2


def test_a_declined_version_stays_registered_with_name_and_note(bench: Bench) -> None:
    model = bench.model(1)
    decide(asked(bench, model), MODEL, 1, approved=False, note="too long", by="Bo")
    record = bench.promote(model, mode="approval")
    assert (record.passed, record.promoted, record.version) == (True, False, 1)
    assert record.decision is not None
    assert record.decision.sentence == "declined by Bo: too long"
    assert bench.neighbours.alias("champion") is None
    assert bench.neighbours.moves() == []


@pytest.mark.parametrize("first", [True, False])
def test_the_first_decision_counts(bench: Bench, first: bool) -> None:
    model = bench.model(1)
    wiring = asked(bench, model)
    assert decide(wiring, MODEL, 1, approved=first, note="quick", by="Bo").is_new
    kept = decide(wiring, MODEL, 1, approved=not first, note="slow", by="Cy")
    assert (kept.is_new, kept.decision.by) == (False, "Bo")
    assert bench.promote(model, mode="approval").promoted is first
    assert bench.neighbours.alias("champion") == (1 if first else None)


def test_an_approval_whose_process_was_killed_before_the_move_is_carried_out(bench: Bench) -> None:
    model = bench.model(1)
    wiring = asked(bench, model)
    results = bench.job(model, mode="approval").inputs["results"].keys.root
    decision = PersonDecision(approved=True, by="Bo", note="fine", at=datetime.now(UTC))
    keep_decision(wiring.store, RegisteredVersion(MODEL, 1, model.root), results, decision)
    assert bench.promote(model, mode="approval").promoted
    (move,) = bench.neighbours.registry().history(MODEL)
    assert (move.by, move.reason) == ("Bo", f"approved: fine ({results})")


def test_a_rollback_after_an_approval_stands(bench: Bench) -> None:
    first, second = bench.model(1), bench.model(2)
    bench.promote(first)
    wiring = asked(bench, second, as_opponent(first))
    decide(wiring, MODEL, 2, approved=True, note="fine", by="Bo")
    bench.neighbours.registry().roll_back(MODEL, reason="rude answers")
    assert bench.promote(second, as_opponent(first), mode="approval").promoted  # it was
    assert bench.neighbours.alias("champion") == 1


def test_an_approval_after_new_results_counts_also_with_the_same_note(bench: Bench) -> None:
    first, second = bench.model(1), bench.model(2)
    bench.promote(first)
    decide(asked(bench, second, as_opponent(first)), MODEL, 2, approved=True, note="fine", by="Bo")
    bench.neighbours.registry().roll_back(MODEL, reason="rude answers")
    with pytest.raises(Waiting):
        bench.promote(second, f"elsewhere#{first.root}", mode="approval")  # judged again
    wiring = bench.job(second).ports
    assert isinstance(wiring, Wiring)
    assert decide(wiring, MODEL, 2, approved=True, note="fine", by="Bo").is_new
    assert bench.neighbours.alias("champion") == 2


def test_a_version_that_is_compared_anew_is_asked_about_anew(bench: Bench) -> None:
    first, second = bench.model(1), bench.model(2)
    decide(asked(bench, second), MODEL, 1, approved=False, note="too long", by="Bo")
    bench.promote(first)
    asked(bench, second, as_opponent(first))  # raises if the earlier decision counted


def test_the_next_model_replaces_the_champion_that_it_was_compared_with(bench: Bench) -> None:
    first, second = bench.model(1), bench.model(2)
    bench.promote(first)
    record = bench.promote(second, as_opponent(first))
    assert (record.promoted, record.version, record.previous_version) == (True, 2, 1)
    assert bench.neighbours.alias("champion") == 2
    assert bench.neighbours.alias("previous") == 1


def test_of_two_runs_that_beat_the_same_champion_the_second_fails(bench: Bench) -> None:
    first, quick, slow = bench.model(1), bench.model(2), bench.model(3)
    bench.promote(first)
    bench.promote(quick, as_opponent(first))
    with pytest.raises(PromotionError, match=r"compared with train/.*champion is version 2"):
        bench.promote(slow, as_opponent(first))
    assert bench.neighbours.alias("champion") == 2
    # Run again, it is compared with the new champion, under the version that it has already.
    record = bench.promote(slow, as_opponent(quick))
    assert (record.promoted, record.version, record.previous_version) == (True, 3, 2)


def test_a_first_run_loses_to_another_first_run(bench: Bench) -> None:
    bench.promote(bench.model(1))
    with pytest.raises(PromotionError, match="compared with bundled:start-1"):
        bench.promote(bench.model(2))
    assert bench.neighbours.alias("champion") == 1


def test_a_model_that_fails_the_gate_does_not_care_who_is_champion(bench: Bench) -> None:
    bench.promote(bench.model(1))
    assert not bench.promote(bench.model(2), win_rate_lower=0.4).promoted


def test_a_run_that_was_killed_after_the_promotion_says_the_same_again(bench: Bench) -> None:
    model = bench.model(1)
    first, again = bench.promote(model), bench.promote(model)
    assert again == first
    assert len(bench.neighbours.moves()) == 1


def test_a_champion_from_elsewhere_is_known_by_its_version() -> None:
    champion = RegisteredVersion(MODEL, 3, artifact=None)
    challenger = RegisteredVersion(
        MODEL, 4, "train/aa", opponent=f"models:/{MODEL}/3#models:/{MODEL}/3"
    )
    refuse_stale(challenger, champion)
    with pytest.raises(PromotionError, match="version 4 was compared with nothing"):
        refuse_stale(challenger._replace(opponent=None), champion)


def test_the_stage_keeps_its_decision(bench: Bench, tmp_path: Path) -> None:
    job = bench.job(bench.model(1))
    with PROMOTE.open_worker(job) as work:
        (tmp_path / "shard").mkdir()
        row_counts = work(PROMOTE.plan(job)[0], tmp_path / "shard")
    assert (row_counts.rows_in, row_counts.rows_out) == (1, 1)
    kept = PromotionRecord.model_validate_json((tmp_path / "shard/decision.json").read_text())
    assert kept == promote(job)
    assert kept.opponent == POLICY  # with its location, for a rebuild of the registry
