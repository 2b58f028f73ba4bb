"""Stage annotate: it waits for people's answers, and stage pair uses their labels."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.commands.queue import answer, fetch
from flows.commands.queue_candidates import candidates_of_run
from flows.pinning import pin
from flows.retrain_batch import can_go_on
from flows.run_record import NodeRecord, RunRecord, save_run
from infra.row_files import write_rows
from pvar.annotation_answers import PairAnswer, Preferred
from pvar.annotation_queue import QueuedPair, to_pair_row
from pvar.artifacts import WaitingRecord
from pvar.config import PipelineConfig
from pvar.errors import IncompleteError, InputError
from pvar.records import Pair, Prompt
from tasks.engine.tables import PromptVariance
from tasks.graph import plan_nodes
from tasks.stages.annotate import LABELS, keep_answers, queued_pairs
from tasks.stages.ingest import PROMPTS
from tasks.stages.pair import PAIRS
from tasks.stages.select import VARIANCE
from tests.workflow import TOPICS, Workflow, fake_settings, open_wiring, start_workflow

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


def record_of(flow: Workflow, node: NodeRecord) -> RunRecord:
    return RunRecord(
        run="r",
        started_at=NOON,
        preset=None,
        config=flow.config,
        mlflow_run="",
        mlflow_experiment="",
        nodes=(node,),
    )


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


def waiting_run(flow: Workflow) -> RunRecord:
    return RunRecord(
        run="20260101-120000-aaaa",
        started_at=NOON,
        preset=None,
        config=flow.config,
        mlflow_run="m",
        mlflow_experiment="1",
        nodes=(NodeRecord(name="annotate", artifact=flow.nodes["annotate"].keys.root),),
    )


def test_answers_come_through_the_command_line_and_can_be_replaced(
    flow: Workflow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = digest_of(flow)
    with pytest.raises(InputError, match=f"annotate/{digest} has not asked yet"):
        fetch(digest, out=tmp_path / "q")
    flow.make("annotate")
    fetch(f"annotate/{digest[:6]}", out=tmp_path / "by its first characters")
    save_run(flow.store, waiting_run(flow))
    capsys.readouterr()
    fetch("latest", out=tmp_path / "q", as_json=True)
    said = json.loads(capsys.readouterr().out)
    tasks = json.loads((tmp_path / "q" / "tasks.json").read_text())
    assert said == {"pairs": len(tasks), "folder": str(tmp_path / "q")}
    time = {"annotator": "ann", "time": NOON.isoformat()}
    ids = [task["data"]["pair_id"] for task in tasks]
    lines = tmp_path / "answers.jsonl"
    write_rows(lines, [{"id": "of another queue", "preferred": 1, **time}])
    with pytest.raises(InputError, match=r"nobody has answered a pair of annotate/.*not_in_queue"):
        answer(digest, lines)
    assert flow.make("annotate").waiting is not None
    for number in (1, 3):
        write_rows(lines, [{"id": each, "preferred": 1, **time} for each in ids[:number]])
        answer(digest, lines)
    assert flow.make("annotate").artifact.manifest.summary["num_labels"] == 3
    with pytest.raises(InputError, match="went on with the answers that were there"):
        answer(digest[:6], lines)
    save_run(flow.store, waiting_run(flow).model_copy(update={"nodes": ()}))
    with pytest.raises(InputError, match=r"run 20260101-120000-aaaa asks people nothing"):
        fetch("2026", out=tmp_path / "q")


def test_answers_without_a_label_leave_all_prompts_to_the_rewards(
    flow: Workflow, tmp_path: Path
) -> None:
    flow.make("annotate")
    pairs = queued_pairs(flow.store, digest_of(flow))
    lines = tmp_path / "answers.jsonl"
    tie = {"preferred": "tie", "annotator": "ann", "time": NOON.isoformat()}
    write_rows(lines, [{"id": pair.pair_id, **tie} for pair in pairs])
    answer(digest_of(flow), lines)
    outcome = flow.make("annotate")
    assert outcome.waiting is None
    assert outcome.artifact.manifest.summary == {"num_asked": 3, "num_labels": 0}
    assert flow.make("pair").artifact.manifest.summary["num_labelled"] == 0


def test_the_first_queue_stays_though_its_inputs_are_made_again(
    flow: Workflow, caplog: pytest.LogCaptureFixture
) -> None:
    """People answered about other responses than those that are there now."""
    flow.make("annotate")
    key = f"annotations/{digest_of(flow)}/queue.jsonl"
    pairs = queued_pairs(flow.store, digest_of(flow))
    other = pairs[0]._replace(pair_id="another", answer_1="deleted since", answer_2="and this")
    queue = "".join(json.dumps(to_pair_row(pair)) + "\n" for pair in (other, *pairs[1:]))
    flow.store.write(key, queue.encode())
    assert flow.make("annotate").waiting is not None
    assert flow.store.read(key).decode() == queue
    assert "2 of its 3 pairs are the same" in caplog.text
    keep_answers(flow.store, digest_of(flow), [answered(other, "1")])
    labels = flow.make("annotate").artifact.rows(LABELS, Pair)
    assert [(each.chosen, each.rejected) for each in labels] == [("deleted since", "and this")]


def test_answers_about_other_pairs_alone_are_an_error(flow: Workflow) -> None:
    flow.make("annotate")
    (pair, *_) = queued_pairs(flow.store, digest_of(flow))
    keep_answers(flow.store, digest_of(flow), [answered(pair._replace(pair_id="x"), "1")])
    with pytest.raises(InputError, match=r"no answer of 1 is about one of the 3 pairs"):
        flow.make("annotate")


def of_rows(home: Path, rows: list[dict[str, Any]], **changes: Any) -> Workflow:
    """The workflow over these rows, of which a tenth is held out; all others are selected."""
    write_rows(home / "rows.jsonl", rows)
    settings = fake_settings(
        home / "rows.jsonl",
        **{"ingest.eval_fraction": 0.1, "select.budget": {"fraction": 1.0}, **changes},
    )
    wiring = open_wiring(home)
    flow = Workflow(pin(PipelineConfig.model_validate(settings), wiring), wiring)
    flow.make("ingest", "sample", "score-vader", "select")
    return flow


def test_nobody_is_asked_about_a_prompt_that_the_data_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {"chosen": "A good one.", "rejected": "A bad one."}
    rows = [{"prompt": f"Describe {text}."} for text in TOPICS[:12]]
    changes = {"annotate": {"budget": 20, "measure": "pvar"}, "pair.own_labels": True}
    rows = [row | (labels if number < 8 else {}) for number, row in enumerate(rows)]
    flow = of_rows(tmp_path, rows, **changes)
    table = flow.artifact("select").rows(VARIANCE, PromptVariance)
    selected = {row.prompt_id for row in table if row.selected}
    prompts = flow.artifact("ingest").rows(PROMPTS, Prompt)
    unlabelled = {each.prompt_id for each in prompts if each.chosen is None} & selected
    assert 0 < len(unlabelled) < len(selected)

    flow.make("annotate")
    pairs = queued_pairs(flow.store, digest_of(flow))
    assert {pair.prompt_id for pair in pairs} == unlabelled
    keep_answers(flow.store, digest_of(flow), [answered(pairs[0], "1")])
    counts = flow.make("annotate").artifact.manifest.row_counts
    assert counts.rejected["labelled"] == len(selected) - len(unlabelled)

    save_run(flow.store, record_of(flow, NodeRecord(name="select", artifact="x", state="made")))
    monkeypatch.setenv("PVAR_HOME", str(flow.wiring.settings.home))
    exported = candidates_of_run("r")
    assert all(each.prompt.chosen is None for each in exported.prompts)
    labelled = [each for each in prompts if each.split == "train" and each.chosen is not None]
    assert exported.row_counts.rejected == {"labelled": len(labelled)}


def test_a_queue_without_any_pair_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"pvar_lower, which needs 3 responses .* is 2"):
        start_workflow(tmp_path, annotate={}, **{"sample.num_responses": 2})
    rows = [
        {"prompt": f"Describe {text}.", "responses": [f"{text}: a joy.", f"{text}: a sad loss."]}
        for text in TOPICS[:12]
    ]
    flow = of_rows(tmp_path, rows, annotate={}, **{"sample.engine": "dataset"})
    with pytest.raises(
        InputError, match=r"none of \d+ selected prompts .*pvar_lower needs 3 usable"
    ):
        flow.make("annotate")


def test_a_retraining_starts_the_run_again_when_there_are_answers(flow: Workflow) -> None:
    waiting = flow.make("annotate").waiting
    assert isinstance(waiting, WaitingRecord)
    node = NodeRecord(
        name="annotate",
        artifact=flow.nodes["annotate"].keys.root,
        state="waiting",
        waiting=waiting,
    )
    run = record_of(flow, node)
    assert not can_go_on(run, flow.wiring)
    pairs = queued_pairs(flow.store, digest_of(flow))
    keep_answers(flow.store, digest_of(flow), [answered(pairs[0], "1")])
    assert can_go_on(run, flow.wiring)
