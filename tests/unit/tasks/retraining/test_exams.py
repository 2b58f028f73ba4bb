"""The exam of retraining: frozen by the first batch, the same for all later ones."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.pinning import pin
from flows.retrain_exam import with_exam
from flows.retraining import with_source
from infra.row_files import read_rows, write_rows
from pvar.config import PipelineConfig
from pvar.exam import exam_digest
from pvar.exclusion import Exclusion
from pvar.ports import Store
from pvar.records import Prompt
from pvar.retrain_decision import Batch
from tasks.engine.node import Node
from tasks.retraining.batches import RowFiles, add_batch, read_batches
from tasks.retraining.exams import exam_of, freeze_exam
from tasks.retraining.incoming_files import look
from tasks.stages.exclude import EXCLUDED
from tasks.stages.ingest import PROMPTS
from tests.workflow import TOPICS, Workflow, fake_settings, open_wiring

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
QUESTION = {"prompt": "What is the capital of France?", "answer": ["Paris"]}
ROWS = [{"prompt": f"Describe {topic}."} for topic in TOPICS[:20]]


@pytest.fixture
def wiring(tmp_path: Path) -> Any:
    return open_wiring(tmp_path)


def make_batch(store: Store, scratch: Path, *rows: dict[str, Any]) -> Batch:
    number = len(read_batches(store)) + 1
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    store.write(f"incoming/{number}.jsonl", lines.encode())
    scratch.mkdir(exist_ok=True)
    earlier = read_batches(store)
    known = {file.version for batch in earlier for file in batch.files}
    batch = add_batch(
        store,
        look(store, "incoming", read_rows, known=known, scratch=scratch).good,
        earlier,
        reasons=(),
        now=NOW,
        row_files=RowFiles(read_rows, write_rows),
        scratch=scratch,
    )
    assert batch is not None
    return batch


def config_of(batch: Batch, store: Store, **changes: Any) -> PipelineConfig:
    settings = fake_settings(Path("replaced"), **changes)
    return with_source(PipelineConfig.model_validate(settings), f"{store.uri}/{batch.data}")


def examined(batch: Batch, wiring: Any, number: int = 1) -> Workflow:
    store = wiring.store
    return Workflow(pin(with_exam(config_of(batch, store), batch, number, store), wiring), wiring)


def exam_node(workflow: Workflow) -> Node:
    return workflow.nodes["exam"]


def test_the_first_batch_freezes_what_it_holds_out_and_later_ones_use_it(
    wiring: Any, tmp_path: Path
) -> None:
    store = wiring.store
    first = make_batch(store, tmp_path / "scratch", *ROWS, QUESTION, ROWS[0])
    plain = Workflow(pin(config_of(first, store), wiring), wiring)
    plain.make("ingest")
    held_out = [p for p in plain.artifact("ingest").rows(PROMPTS, Prompt) if p.split == "eval"]

    asked = examined(first, wiring)
    asked.make("exam")
    frozen = exam_of(store, 1)
    assert frozen is not None
    # By contents: what ingest alone would have held out is the same exam.
    assert frozen.exam == exam_digest(held_out)
    assert asked.artifact("exam").manifest.summary["exam"] == frozen.exam
    assert (frozen.num_prompts, frozen.num_questions) == (len(held_out) - 1, 1)

    second = make_batch(store, tmp_path / "scratch", {"prompt": "Name a river."})
    later = examined(second, wiring)
    assert exam_node(later).keys == exam_node(asked).keys
    assert exam_of(store, 1) == frozen
    # Nothing of it is held out.
    assert later.nodes["ingest"].spec.eval_fraction == 0  # type: ignore[attr-defined]


def test_no_version_is_trained_on_what_it_is_asked(wiring: Any, tmp_path: Path) -> None:
    first = make_batch(wiring.store, tmp_path / "scratch", *ROWS)
    workflow = examined(first, wiring)
    workflow.make("ingest", "exam", "exclude")
    exam = {prompt.prompt_id for prompt in workflow.artifact("exam").rows(PROMPTS, Prompt)}
    excluded = {row.prompt_id for row in workflow.artifact("exclude").rows(EXCLUDED, Exclusion)}
    assert exam
    assert excluded == exam


def test_a_new_number_is_another_exam_and_that_is_said(
    wiring: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = make_batch(wiring.store, tmp_path / "scratch", *ROWS[:10])
    second = make_batch(wiring.store, tmp_path / "scratch", *ROWS[10:])
    with caplog.at_level("INFO"):
        before = examined(first, wiring)
        assert "not comparable" not in caplog.text
        after = examined(second, wiring, number=2)
    assert "exam 2 replaces exam 1: results before and after are not comparable" in caplog.text
    assert exam_node(before).keys != exam_node(after).keys
    assert exam_node(examined(second, wiring)).keys == exam_node(before).keys


def test_an_exam_of_its_own_is_not_replaced(wiring: Any, tmp_path: Path) -> None:
    batch = make_batch(wiring.store, tmp_path / "scratch", *ROWS)
    own = config_of(batch, wiring.store, **{"evaluate.prompts": ["exam.jsonl"]})
    assert with_exam(own, batch, 1, wiring.store) == own
    assert exam_of(wiring.store, 1) is None


def test_a_batch_that_holds_out_nothing_freezes_nothing(wiring: Any, tmp_path: Path) -> None:
    batch = make_batch(wiring.store, tmp_path / "scratch", QUESTION)
    plain = config_of(batch, wiring.store)
    assert with_exam(plain, batch, 1, wiring.store) == plain
    assert exam_of(wiring.store, 1) is None


def test_of_two_that_freeze_at_once_the_first_counts(file_store: Store, tmp_path: Path) -> None:
    def freeze(text: str) -> Any:
        prompt = Prompt(text, (), "eval", "x")
        return freeze_exam(
            file_store, 1, [prompt], batch=1, now=NOW, write=write_rows, scratch=tmp_path
        )

    first = freeze("a")
    assert freeze("b") == first == exam_of(file_store, 1)
