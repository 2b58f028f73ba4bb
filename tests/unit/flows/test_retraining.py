"""What a retraining changes in the configuration of its pipeline, and which run counts."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import retrain_batch, retraining
from flows.retrain_batch import with_own_labels
from flows.retrain_exam import WithExam
from flows.run_record import NodeRecord, RunRecord, load_run, save_run
from flows.wiring import utc_now
from infra.row_files import read_rows
from pvar.artifacts import WaitingRecord
from pvar.benchmark_config import LabelAgreementBenchmark
from pvar.config import PipelineConfig
from pvar.digest import prompt_id
from pvar.errors import DamagedError, PromotionError, StageCancelledError
from pvar.ports import Store
from pvar.records import Message, Row
from pvar.references import replace_references
from pvar.replay import ReplayConfig
from pvar.retrain_decision import Batch, RetrainConfig
from tasks.graph import plan_nodes
from tasks.retraining.batch_states import RetrainingBatch, read_records, retry_batch
from tasks.retraining.batches import begin_attempt, folder_of, record_waiting_run, to_json
from tasks.retraining.exams import Exam, exam_of
from tasks.retraining.withdrawals import withdraw
from tests.workflow import TOPICS

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
OLD, NEW = PipelineConfig(policy="org/old"), PipelineConfig(policy="org/new")
CONFIG = RetrainConfig(max_attempts=2, pipeline=NEW)
ASKED = "annotate/0123456789abcdef"


def test_labels_that_arrive_change_the_pairs_and_nothing_before_them() -> None:
    implicit = {"kind": "implicit", "policy": "org/p", "reference": "org/r"}
    settings = {
        "score": {"reward_models": [{"kind": "vader"}, implicit]},
        "select": {"strategy": "implicit_gap_small"},  # measured on the pairs of sampled answers
    }
    config = replace_references(
        PipelineConfig.model_validate(settings), lambda each: f"{each.text}#sha256-{each.text}"
    )
    before, after = plan_nodes(config), plan_nodes(with_own_labels(config))
    changed = {name for name, node in before.items() if node.keys != after[name].keys}
    assert "pair" in changed
    assert changed.isdisjoint({"ingest", "sample", "score-vader", "score-implicit", "select"})


@pytest.fixture
def policies(file_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Policies of the runs; every one succeeds, and a run that waited is decided."""
    used: list[str] = []

    def succeed(config: PipelineConfig) -> str:
        used.append(config.policy)
        return save(file_store, f"20260311-{len(used)}", config)

    wiring = SimpleNamespace(
        store=file_store,
        settings=SimpleNamespace(home=tmp_path),
        clock=utc_now,
        source_rows=lambda _: iter([Row(1, {"prompt": "Name a river."})]),
    )
    monkeypatch.setattr(retraining, "connect", lambda: wiring)
    monkeypatch.setattr(retrain_batch, "with_exam", lambda config, *_: WithExam(config))
    monkeypatch.setattr(retrain_batch, "is_approval_decided", lambda *_: True)
    monkeypatch.setattr(retrain_batch, "pipeline", succeed)
    return used


def save(store: Store, run: str, config: PipelineConfig, nodes: tuple[NodeRecord, ...] = ()) -> str:
    record = RunRecord(
        run=run,
        started_at=NOW,
        preset=None,
        config=config,
        mlflow_run="",
        mlflow_experiment="",
        nodes=nodes,
    )
    save_run(store, record)
    return run


def make_batch(store: Store, number: int = 1) -> Batch:
    batch = Batch(
        number=number, created_at=NOW, data="retrain/data/x", files=(), duplicates=(), reasons=()
    )
    store.write(f"{folder_of(number)}/batch.json", to_json(batch))
    return batch


def make_waiting(store: Store, run: str) -> Batch:
    batch = make_batch(store)
    record_waiting_run(store, batch, begin_attempt(store, batch, NOW), run, NOW)
    return batch


def the_record(store: Store) -> RetrainingBatch:
    return read_records(store)[0]


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


def test_a_run_that_waited_is_resumed_with_its_own_configuration(
    file_store: Store, policies: list[str]
) -> None:
    make_waiting(file_store, save(file_store, "20260310-1", OLD))
    assert len(retraining.retrain.fn(CONFIG).runs) == 1
    assert policies == ["org/old"]


def asking(store: Store, run: str, config: PipelineConfig) -> str:
    """A run that waits for people's answers."""
    waits = WaitingRecord(what="people's answers", how_to_go_on="ask", since=NOW)
    node = NodeRecord(name="annotate", artifact=ASKED, state="waiting", waiting=waits)
    return save(store, run, config, (node,))


def test_after_peoples_answers_a_run_is_compared_with_the_champion_of_now(
    file_store: Store, policies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another batch was promoted while this one waited; what people were asked about stays."""
    settings = {
        "annotate": {},
        "score": {"reward_models": [{"kind": "classifier", "name": "r", "model": "org/r#r"}]},
        "reward_training": {"model": "org/r#r", "opponent": "org/r#r"},
        "evaluate": {"opponent": "models:/pvar/1#train/1"},
        "policy": "org/old#old",
        "ingest": {"source": "rows.jsonl#sha256-rows"},
    }
    asked = PipelineConfig.model_validate(settings)
    make_waiting(file_store, asking(file_store, "20260310-1", asked))
    assert retraining.retrain.fn(CONFIG).runs == ()  # nobody has answered yet
    file_store.write("annotations/0123456789abcdef/answers.jsonl", b"{}\n")
    run: list[PipelineConfig] = []

    def succeed(config: PipelineConfig) -> str:
        run.append(config)
        return save(file_store, "20260311-1", config)

    monkeypatch.setattr(retrain_batch, "pipeline", succeed)
    rules = PipelineConfig.model_validate(
        {"reward_training": {"model": "org/r"}, "policy": "org/n"}
    )
    assert len(retraining.retrain.fn(RetrainConfig(pipeline=rules)).runs) == 1
    (resumed,) = run
    assert resumed.reward_training is not None
    assert resumed.evaluate.opponent == resumed.reward_training.opponent == "champion"
    assert (resumed.policy, resumed.score) == (asked.policy, asked.score)
    before, after = plan_nodes(asked), plan_nodes(pinned_anew(resumed))
    for name in ("annotate", "pair", "train"):
        assert before[name].keys == after[name].keys
    assert before["promote"].keys != after["promote"].keys


def pinned_anew(config: PipelineConfig) -> PipelineConfig:
    """The configuration with another champion of the policy, and another of the reward model."""
    evaluate, training = config.evaluate, config.reward_training
    assert training is not None
    update = {
        "evaluate": evaluate.model_copy(update={"opponent": "models:/pvar/2#train/2"}),
        "reward_training": training.model_copy(update={"opponent": "models:/r/2#reward/2"}),
    }
    return config.model_copy(update=update)


def test_an_exam_is_frozen_when_a_run_is_measured_and_not_when_it_asks_people(
    file_store: Store, policies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    exam = Exam(
        number=1, frozen_at=NOW, exam="e", data="retrain/exams/e", batch=1,
        num_prompts=50, num_questions=0,
    )  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(retrain_batch, "with_exam", lambda config, *_: WithExam(config, exam))
        patched.setattr(
            retrain_batch, "pipeline", lambda each: asking(file_store, "20260310-1", each)
        )
        make_batch(file_store)
        assert retraining.retrain.fn(CONFIG).runs == ()
    assert exam_of(file_store, 1) is None
    file_store.write("annotations/0123456789abcdef/answers.jsonl", b"{}\n")
    assert len(retraining.retrain.fn(CONFIG).runs) == 1
    frozen = exam_of(file_store, 1)
    assert frozen is not None
    assert frozen.model_copy(update={"frozen_at": NOW}) == exam


def test_a_run_that_waits_is_given_up_if_its_prompts_are_withdrawn(
    file_store: Store, policies: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    make_waiting(file_store, save(file_store, "20260310-1", OLD))
    withdraw(file_store, ["f" * 16], reason=None, now=NOW)  # its data do not have this one
    assert len(retraining.retrain.fn(CONFIG).runs) == 1
    waiting = make_batch(file_store, 2)
    attempt = begin_attempt(file_store, waiting, NOW)
    record_waiting_run(file_store, waiting, attempt, "20260310-1", NOW)
    river = prompt_id([Message("user", "Name a river.")])
    withdraw(file_store, [river], reason=None, now=NOW)
    assert len(retraining.retrain.fn(CONFIG).runs) == 1
    assert policies == ["org/old", "org/new"]
    assert "batch 2: its waiting run 20260310-1 used prompts that were withdrawn" in caplog.text


@pytest.mark.parametrize("content", [None, b'{"run": "20260310-1", "of": "another release"}'])
def test_a_waiting_run_that_cannot_be_read_holds_nothing_back(
    file_store: Store, policies: list[str], content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    make_waiting(file_store, "20260310-1")
    if content is not None:
        file_store.write("runs/20260310-1.json", content)
    make_batch(file_store, 2)
    assert len(retraining.retrain.fn(CONFIG).runs) == 2
    assert policies == ["org/new", "org/new"]
    assert "batch 1: its waiting run 20260310-1 cannot be read" in caplog.text


def test_an_approval_after_another_promotion_is_set_aside_and_then_run_anew(
    file_store: Store, policies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_waiting(file_store, save(file_store, "20260310-1", OLD))
    stale = PromotionError("version 2 was compared with start-1, but the champion is version 3")
    with monkeypatch.context() as patched:
        patched.setattr(retrain_batch, "pipeline", raising(stale))
        for _ in range(2):
            with pytest.raises(PromotionError):
                retraining.retrain.fn(CONFIG)
        assert retraining.retrain.fn(CONFIG).runs == ()
    assert the_record(file_store).state(is_retraining=False) == "set_aside"
    retry_batch(file_store, 1, NOW)
    assert len(retraining.retrain.fn(CONFIG).runs) == 1
    assert policies == ["org/new"]


def test_an_error_before_a_waiting_run_is_resumed_counts_as_well(
    file_store: Store, policies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_waiting(file_store, save(file_store, "20260310-1", OLD))
    make_batch(file_store, 2)
    damaged = DamagedError("the decision is not valid")
    with monkeypatch.context() as patched:
        patched.setattr(retrain_batch, "is_approval_decided", raising(damaged))
        for _ in range(2):
            with pytest.raises(DamagedError):
                retraining.retrain.fn(CONFIG)
        assert len(retraining.retrain.fn(CONFIG).runs) == 1  # of the second batch
    assert the_record(file_store).state(is_retraining=False) == "set_aside"
    assert policies == ["org/new"]


def test_a_placed_stage_that_a_person_cancelled_leaves_the_batch_as_it_was(
    file_store: Store, policies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch(file_store)
    stopped = StageCancelledError(
        "sample on sample/sample-process: run sample is Cancelled: no message"
    )
    monkeypatch.setattr(retrain_batch, "pipeline", raising(stopped))
    with pytest.raises(StageCancelledError):
        retraining.retrain.fn(CONFIG)
    assert the_record(file_store) == RetrainingBatch(batch)


def test_a_fixed_opponent_of_an_earlier_deployment_is_named_in_the_log(
    policies: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    fixed = PipelineConfig.model_validate({"evaluate": {"opponent": "org/old"}})
    with caplog.at_level(logging.WARNING):
        retraining.retrain.fn(RetrainConfig(pipeline=fixed))
    assert "evaluate.opponent is org/old" in caplog.text


def labelled(*prompts: str) -> list[dict[str, str]]:
    return [{"prompt": prompt, "chosen": "yes", "rejected": "no"} for prompt in prompts]


def retrained(store: Store, config: RetrainConfig, rows: list[dict[str, str]]) -> PipelineConfig:
    """Put a file with these rows; the configuration of the run of the batch that it makes."""
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    store.write(f"incoming/{len(read_records(store))}.jsonl", lines.encode())
    (run,) = retraining.retrain.fn(config).runs
    return load_run(store, run).config


def labelled_texts(store: Store, address: str | None, scratch: Path) -> set[str]:
    """The prompts of an object of the store, all of which have a label."""
    assert address is not None
    path = scratch / "data.jsonl.gz"
    store.download(address.removeprefix(f"{store.uri}/"), path)
    rows: list[Any] = [row.fields for row in read_rows(path) if isinstance(row, Row)]
    assert {fields["chosen"] for fields in rows} == {"yes"}
    return {fields["prompt"][0]["content"] for fields in rows}


def test_a_fixed_policy_and_everything_replayed_is_a_start_from_the_base_on_all_data(
    file_store: Store, policies: list[str], tmp_path: Path
) -> None:
    always = RetrainConfig(
        min_new_pairs=1, replay=ReplayConfig(), pipeline=PipelineConfig(policy="org/base")
    )
    trained_on: list[set[str]] = []
    for name in ("a", "b", "c"):
        used = retrained(file_store, always, labelled(name))
        trained_on.append(labelled_texts(file_store, used.ingest.source, tmp_path))
    assert policies == ["org/base", "org/base", "org/base"]
    assert trained_on == [{"a"}, {"a", "b"}, {"a", "b", "c"}]


def fresh_texts(store: Store, used: PipelineConfig, scratch: Path) -> set[str]:
    (benchmark,) = used.benchmarks
    assert isinstance(benchmark, LabelAgreementBenchmark)
    assert (benchmark.name, benchmark.against_first) == ("fresh", True)
    return labelled_texts(store, benchmark.pairs, scratch)


def test_fresh_pairs_are_asked_and_no_batch_trains_on_them(
    file_store: Store, policies: list[str], tmp_path: Path
) -> None:
    config = RetrainConfig(
        min_new_pairs=1, fresh_share=0.4, replay=ReplayConfig(), pipeline=PipelineConfig()
    )
    texts = [f"Describe {topic}." for topic in TOPICS]
    trained: list[set[str]] = []
    asked: list[set[str]] = []
    for batch in (texts[:16], texts[8:24], texts[16:]):
        used = retrained(file_store, config, labelled(*batch))
        trained.append(labelled_texts(file_store, used.ingest.source, tmp_path))
        asked.append(fresh_texts(file_store, used, tmp_path))
    assert set().union(*asked) & set().union(*trained) == set()
    assert set().union(*asked) | set().union(*trained) == set(texts)
    assert all(asked)
    assert asked[0] & set(texts[8:]) <= asked[1]  # asked again when they come again
    # They come without a label: not trained on either, for there is no sampling for them.
    plain = retrained(file_store, config, [{"prompt": text} for text in [*texts, "New."]])
    assert plain.benchmarks == ()
    counts = read_records(file_store)[-1].batch.row_counts
    assert counts is not None
    left_out = counts.rejected["fresh_unlabelled"]
    assert len(set().union(*asked)) <= left_out <= len(set().union(*asked)) + 1  # "New." may be
    assert len(policies) == 4


LONG = "Describe the old harbour town of Thorp in winter, when the boats lie still and dark"


@pytest.mark.usefixtures("policies")
def test_what_resembles_earlier_data_is_no_fresh_pair(file_store: Store, tmp_path: Path) -> None:
    before = RetrainConfig(min_new_pairs=1, pipeline=PipelineConfig())
    retrained(file_store, before, labelled(f"{LONG}."))
    near = [f"{LONG} {number}" for number in range(20)]
    after = before.model_copy(update={"fresh_share": 0.5})
    used = retrained(file_store, after, labelled(*near, *TOPICS))
    asked = fresh_texts(file_store, used, tmp_path)
    assert asked
    assert asked < set(TOPICS)
    trained = labelled_texts(file_store, used.ingest.source, tmp_path)
    assert set(near) & trained  # stage `exclude` has its own rules
    counts = read_records(file_store)[-1].batch.row_counts
    assert counts is not None
    assert counts.rejected == {
        "fresh_exam": len(asked),
        "fresh_like_earlier": len(set(near) - trained),
    }


def test_the_name_of_the_fresh_exam_is_taken() -> None:
    own = PipelineConfig.model_validate(
        {"benchmarks": [{"kind": "label_agreement", "name": "fresh"}]}
    )
    RetrainConfig(pipeline=own)
    with pytest.raises(ValueError, match="give it another `name`"):
        RetrainConfig(pipeline=own, fresh_share=0.1)


def test_an_audit_that_fails_counts_against_no_batch(
    file_store: Store, policies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_batch(file_store)
    with monkeypatch.context() as patched:
        patched.setattr(retraining, "audit_due", raising(OSError("the disk is full")))
        with pytest.raises(OSError, match="disk is full"):
            retraining.retrain.fn(CONFIG)
    record = the_record(file_store)
    assert record.state(is_retraining=False) == "done"
    assert [attempt.error for attempt in record.attempts] == [None]
    assert retraining.retrain.fn(CONFIG).audited is None
    assert policies == ["org/new"]


def test_only_what_runs_a_flow_needs_a_server(
    file_store: Store, policies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> int:
        asked: list[None] = []
        retraining.retrain_once(CONFIG, retraining.connect(), lambda: asked.append(None))
        return len(asked)

    assert look() == 0
    make_batch(file_store)
    assert (look(), policies) == (1, ["org/new"])
    assert look() == 0
    monkeypatch.setattr(retraining, "audit_due", lambda *_: NEW)
    monkeypatch.setattr(retraining, "audit", lambda _: None)
    assert look() == 1
