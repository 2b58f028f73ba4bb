"""Stage annotate: it waits for people's answers, and stage pair uses their labels."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.commands.queue import answer, fetch
from flows.retraining import can_go_on
from flows.run_record import NodeRecord, RunRecord
from infra.row_files import write_rows
from pvar.annotation_answers import PairAnswer, Preferred
from pvar.annotation_queue import QueuedPair
from pvar.artifacts import WaitingRecord
from pvar.errors import IncompleteError, InputError
from pvar.records import Pair
from tasks.engine.tables import PromptVariance
from tasks.graph import plan_nodes
from tasks.stages.annotate import LABELS, keep_answers, queued_pairs
from tasks.stages.pair import PAIRS
from tasks.stages.select import VARIANCE
from tests.workflow import Workflow, start_workflow

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workflow:
    flow = start_workflow(tmp_path, annotate={"budget": 3, "measure": "pvar"})
    flow.make("ingest", "sample", "score-vader", "select")
    monkeypatch.setenv("PVAR_HOME", str(flow.wiring.settings.home))
    return flow


def digest_of(flow: Workflow) -> str:
    return flow.nodes["annotate"].keys.digest


def answered(pair: QueuedPair, preferred: Preferred) -> PairAnswer:
    return PairAnswer(pair.pair_id, preferred, "ann", NOON + timedelta(hours=1))


def test_it_waits_and_says_how_to_go_on(flow: Workflow) -> None:
    waiting = flow.make("annotate").waiting
    assert waiting is not None
    assert waiting.what == "people's answers about 3 pairs"
    assert f"pvar queue answer {digest_of(flow)} ANSWERS" in waiting.how_to_go_on
    with pytest.raises(IncompleteError):
        flow.artifact("annotate")


def test_the_selected_prompts_with_the_highest_measure_are_asked_about(flow: Workflow) -> None:
    flow.make("annotate")
    pairs = queued_pairs(flow.store, digest_of(flow))
    rows = flow.artifact("select").rows(VARIANCE, PromptVariance)
    selected = sorted(
        (row for row in rows if row.selected), key=lambda row: (-(row.pvar or 0), row.prompt_id)
    )
    assert len(selected) > 3
    assert [pair.prompt_id for pair in pairs] == [row.prompt_id for row in selected[:3]]


def test_people_label_what_they_answered_and_the_rule_the_rest(flow: Workflow) -> None:
    """The worse answer by reward is preferred, so a label cannot be the rule's pair by chance."""
    flow.make("annotate")
    pairs = queued_pairs(flow.store, digest_of(flow))
    worse: list[Preferred] = ["2" if pair.reward_1 > pair.reward_2 else "1" for pair in pairs]
    preferred: list[Preferred] = [worse[0], "tie", worse[2]]
    keep_answers(flow.store, digest_of(flow), map(answered, pairs, preferred))
    outcome = flow.make("annotate")
    assert outcome.waiting is None
    manifest = outcome.artifact.manifest
    assert manifest.summary == {"num_asked": 3, "num_labels": 2}
    assert manifest.row_counts.rejected["no_label"] == 1

    labels = {each.prompt_id: each for each in outcome.artifact.rows(LABELS, Pair)}
    for pair, choice in ((pairs[0], worse[0]), (pairs[2], worse[2])):
        label = labels[pair.prompt_id]
        assert label.chosen == (pair.answer_1 if choice == "1" else pair.answer_2)
        assert label.chosen_reward is None

    made = flow.make("pair").artifact
    found = {each.prompt_id: each for each in made.rows(PAIRS, Pair)}
    rows = flow.artifact("select").rows(VARIANCE, PromptVariance)
    assert found.keys() == {row.prompt_id for row in rows if row.selected}
    assert {each: found[each] for each in labels} == labels
    assert found[pairs[1].prompt_id].chosen_reward is not None  # a tie is left to the rule
    assert made.manifest.summary["num_labelled"] == 2


def test_without_it_nobody_is_asked_and_the_pairs_are_the_same_artifact(flow: Workflow) -> None:
    unasked = plan_nodes(flow.config.model_copy(update={"annotate": None}))
    assert "annotate" not in unasked
    assert unasked["select"].keys == flow.nodes["select"].keys
    assert unasked["pair"].keys != flow.nodes["pair"].keys


def test_a_measure_of_two_reward_models_is_refused_for_one(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="entropy, which compares 2 reward models, but 1"):
        start_workflow(tmp_path, annotate={"measure": "entropy"})


def test_answers_come_through_the_command_line_and_can_be_replaced(
    flow: Workflow, tmp_path: Path
) -> None:
    digest = digest_of(flow)
    with pytest.raises(InputError, match=f"annotate/{digest} has not asked yet"):
        fetch(digest, out=tmp_path / "q")
    flow.make("annotate")
    fetch(digest, out=tmp_path / "q")
    tasks = json.loads((tmp_path / "q" / "tasks.json").read_text())
    time = {"annotator": "ann", "time": NOON.isoformat()}
    ids = [task["data"]["pair_id"] for task in tasks]
    lines = tmp_path / "answers.jsonl"
    write_rows(lines, [{"id": ids[0], "preferred": "tie", **time}])
    with pytest.raises(InputError, match=r"no pair of annotate/.* has a label.*tie"):
        answer(digest, lines)
    assert flow.make("annotate").waiting is not None
    for number in (1, 3):
        write_rows(lines, [{"id": each, "preferred": 1, **time} for each in ids[:number]])
        answer(digest, lines)
    assert flow.make("annotate").artifact.manifest.summary["num_labels"] == 3


def test_a_retraining_starts_the_run_again_when_there_are_answers(flow: Workflow) -> None:
    waiting = flow.make("annotate").waiting
    assert isinstance(waiting, WaitingRecord)
    node = NodeRecord(
        name="annotate",
        artifact=flow.nodes["annotate"].keys.root,
        state="waiting",
        waiting=waiting,
    )
    run = RunRecord(
        run="r",
        started_at=NOON,
        preset=None,
        config=flow.config,
        mlflow_run="",
        mlflow_experiment="",
        nodes=(node,),
    )
    assert not can_go_on(run, flow.wiring)
    pairs = queued_pairs(flow.store, digest_of(flow))
    keep_answers(flow.store, digest_of(flow), [answered(pairs[0], "1")])
    assert can_go_on(run, flow.wiring)
