"""The exam of retraining: frozen by the first successful run, the same for all later ones."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.pinning import pin
from flows.retrain_batch import with_source
from flows.retrain_exam import WithExam, freeze, with_exam
from infra.row_files import read_rows, write_rows
from pvar.config import PipelineConfig
from pvar.errors import ConfigError
from pvar.exam import exam_digest
from pvar.exclusion import Exclusion
from pvar.ports import Store
from pvar.records import Prompt
from pvar.retrain_decision import Batch, RetrainConfig
from tasks.engine.node import Node
from tasks.retraining.batches import RowFiles, add_batch, read_batches
from tasks.retraining.exams import (
    ExamParts,
    exam_of,
    freeze_exam,
    newest_exam,
    propose_exam,
)
from tasks.retraining.incoming_files import look
from tasks.retraining.withdrawals import withdraw
from tasks.stages.exclude import EXCLUDED
from tasks.stages.ingest import PROMPTS
from tests.workflow import TOPICS, Workflow, fake_settings, open_wiring

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
QUESTION = {"prompt": "What is the capital of France?", "answer": ["Paris"]}
ROWS = [{"prompt": f"Describe {topic}."} for topic in TOPICS[:20]]
RULES = RetrainConfig(min_exam_prompts=1)


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
        source_field="dataset",
    )
    assert batch is not None
    return batch


def config_of(batch: Batch, store: Store, **changes: Any) -> PipelineConfig:
    settings = fake_settings(Path("replaced"), **changes)
    return with_source(PipelineConfig.model_validate(settings), f"{store.uri}/{batch.data}")


def examined(batch: Batch, wiring: Any, number: int = 1) -> Workflow:
    """The run of a batch that succeeds with its exam."""
    store = wiring.store
    rules = RULES.model_copy(update={"exam": number})
    config, proposed = with_exam(config_of(batch, store), batch, rules, store, NOW)
    if proposed is not None:
        freeze(proposed, store, NOW)
    return Workflow(pin(config, wiring), wiring)


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
    assert with_exam(own, batch, RULES, wiring.store, NOW) == WithExam(own)
    assert exam_of(wiring.store, 1) is None


def test_a_batch_that_holds_out_nothing_freezes_nothing(wiring: Any, tmp_path: Path) -> None:
    batch = make_batch(wiring.store, tmp_path / "scratch", QUESTION)
    plain = config_of(batch, wiring.store)
    assert with_exam(plain, batch, RULES, wiring.store, NOW) == WithExam(plain)


def test_a_run_that_fails_leaves_no_exam_and_its_repetition_the_same(
    wiring: Any, tmp_path: Path
) -> None:
    store = wiring.store
    bad = make_batch(store, tmp_path / "scratch", *ROWS[:10])
    first = with_exam(config_of(bad, store), bad, RULES, store, NOW)
    assert first.proposed is not None
    assert exam_of(store, 1) is None
    assert with_exam(config_of(bad, store), bad, RULES, store, NOW) == first
    # It is set aside: the exam is the next batch's.
    good = make_batch(store, tmp_path / "scratch", *ROWS[10:])
    examined(good, wiring)
    frozen = exam_of(store, 1)
    assert frozen is not None
    assert frozen.batch == 2
    again = with_exam(config_of(bad, store), bad, RULES, store, NOW)
    assert again.proposed is None
    assert again.config.evaluate.prompts == (f"{store.uri}/{frozen.data}",)


def test_an_exam_is_not_frozen_from_too_few_prompts(
    wiring: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = wiring.store
    batch = make_batch(store, tmp_path / "scratch", *ROWS, QUESTION)
    plain, rules = config_of(batch, store), RULES
    proposed = with_exam(plain, batch, rules, store, NOW).proposed
    assert proposed is not None
    enough = proposed.num_prompts
    at_bound = rules.model_copy(update={"min_exam_prompts": enough})
    assert with_exam(plain, batch, at_bound, store, NOW).proposed is not None
    assert "no exam is frozen" not in caplog.text
    above = rules.model_copy(update={"min_exam_prompts": enough + 1})
    assert with_exam(plain, batch, above, store, NOW) == WithExam(plain)
    assert f"holds out {enough} prompts to judge" in caplog.text
    assert f"min_exam_prompts is {enough + 1}" in caplog.text
    assert RetrainConfig().min_exam_prompts == 50


LONG = "Describe the old harbour town of Thorp in winter, when the boats lie still and dark"


def test_a_new_exam_leaves_out_what_earlier_batches_may_have_trained_on(
    wiring: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = wiring.store
    first = make_batch(store, tmp_path / "scratch", *ROWS, {"prompt": f"{LONG}."}, QUESTION)
    examined(first, wiring)
    # Recurring prompts, one in other letters, one with another last word, and as many new ones.
    recurring = [{"prompt": row["prompt"].upper()} for row in ROWS[:10]] + ROWS[10:]
    news = [{"prompt": f"Name a thing like {topic}."} for topic in TOPICS]
    near = [{"prompt": f"{LONG} {number}"} for number in range(20)]
    second = make_batch(store, tmp_path / "scratch", *recurring, *news, *near, QUESTION)
    with caplog.at_level("INFO"):
        workflow = examined(second, wiring, number=2)
    workflow.make("exam")
    asked = workflow.artifact("exam").rows(PROMPTS, Prompt)
    texts = {prompt.messages[0].content for prompt in asked if not prompt.is_question}
    assert texts
    assert texts <= {row["prompt"] for row in news}
    # A question is held out by every run, so it was never trained on.
    assert sum(prompt.is_question for prompt in asked) == 1
    plain = Workflow(pin(config_of(second, store), wiring), wiring)
    plain.make("ingest")
    split = [p for p in plain.artifact("ingest").rows(PROMPTS, Prompt) if p.split == "eval"]
    assert len(split) > len(asked)
    assert f"without {len(split) - len(asked)} that are in the data of other batches" in caplog.text


def test_a_reserve_is_kept_apart_from_the_exam_and_from_training(
    wiring: Any, tmp_path: Path
) -> None:
    store = wiring.store
    batch = make_batch(store, tmp_path / "scratch", *ROWS, QUESTION)
    rules = RULES.model_copy(update={"reserve_share": 0.5})
    config, proposed = with_exam(config_of(batch, store), batch, rules, store, NOW)
    assert proposed is not None
    assert proposed.reserve is not None
    workflow = Workflow(pin(config, wiring), wiring)
    workflow.make("ingest", "exam", "reserve", "exclude")
    asked, reserve = (
        {prompt.prompt_id for prompt in workflow.artifact(name).rows(PROMPTS, Prompt)}
        for name in ("exam", "reserve")
    )
    whole = with_exam(config_of(batch, store), batch, RULES, store, NOW).proposed
    assert whole is not None
    assert whole.reserve is None
    assert len(asked) + len(reserve) == whole.num_prompts + whole.num_questions
    assert asked.isdisjoint(reserve)
    excluded = {row.prompt_id for row in workflow.artifact("exclude").rows(EXCLUDED, Exclusion)}
    questions = whole.num_questions  # ingest holds them out
    assert excluded <= asked | reserve
    assert len(excluded) == len(asked | reserve) - questions
    summary = workflow.artifact("reserve").manifest.summary
    assert (summary["exam"], summary["num_eval_prompts"]) == (
        proposed.reserve.exam,
        proposed.reserve.num_prompts,
    )

    freeze(proposed, store, NOW)
    assert newest_exam(store) == exam_of(store, 1)
    later = make_batch(store, tmp_path / "scratch", {"prompt": "Name a river."})
    again, _ = with_exam(config_of(later, store), later, RULES, store, NOW)
    assert again.evaluate.reserve_prompts == config.evaluate.reserve_prompts
    # Audits go on looking at it, also when the exam is another file.
    own = config_of(batch, store, **{"evaluate.prompts": ["exam.jsonl"]})
    own = with_exam(own, batch, rules, store, NOW).config
    assert own.evaluate.prompts == ("exam.jsonl",)
    assert own.evaluate.reserve_prompts == config.evaluate.reserve_prompts


def test_an_exam_is_frozen_if_both_its_parts_are_large_enough(wiring: Any, tmp_path: Path) -> None:
    store = wiring.store
    batch = make_batch(store, tmp_path / "scratch", *ROWS)
    plain = config_of(batch, store)
    rules = RULES.model_copy(update={"reserve_share": 0.5})
    proposed = with_exam(plain, batch, rules, store, NOW).proposed
    assert proposed is not None
    assert proposed.reserve is not None
    fewest = min(proposed.num_prompts, proposed.reserve.num_prompts)
    for least, is_frozen in ((fewest, True), (fewest + 1, False)):
        bounded = rules.model_copy(update={"min_exam_prompts": least})
        assert (with_exam(plain, batch, bounded, store, NOW).proposed is not None) == is_frozen


def test_a_reserve_exam_of_its_own_takes_nothing_from_the_frozen_one(
    wiring: Any, tmp_path: Path
) -> None:
    store = wiring.store
    batch = make_batch(store, tmp_path / "scratch", *ROWS)
    own = config_of(batch, store, **{"evaluate.reserve_prompts": ["reserve.jsonl"]})
    rules = RULES.model_copy(update={"reserve_share": 0.5})
    config, proposed = with_exam(own, batch, rules, store, NOW)
    assert proposed is not None
    assert proposed.reserve is None
    assert config.evaluate.reserve_prompts == ("reserve.jsonl",)


def test_a_gate_of_ability_needs_questions_in_the_exam_and_says_what_to_do(
    wiring: Any, tmp_path: Path
) -> None:
    store = wiring.store

    def gated(batch: Batch, **changes: Any) -> PipelineConfig:
        gate = {"model_name": "m", "max_ability_loss": 0.2, **changes}
        return config_of(batch, store, promote=gate)

    bare = make_batch(store, tmp_path / "scratch", *ROWS)
    few = RetrainConfig()
    for rules in (RULES, few):
        with pytest.raises(ConfigError, match=r"batch 1 has none .* no attempt counts; set eval"):
            with_exam(gated(bare), bare, rules, store, NOW)
    assert with_exam(gated(bare, mode="never"), bare, RULES, store, NOW).proposed is not None
    examined(bare, wiring)
    asking = make_batch(store, tmp_path / "scratch", QUESTION, {"prompt": "Name a river."})
    with pytest.raises(ConfigError, match=r"exam 1 has none .* exam=2 if batch 2 has such rows"):
        with_exam(gated(asking), asking, RULES, store, NOW)
    another = few.model_copy(update={"exam": 2})
    assert with_exam(gated(asking), asking, another, store, NOW).proposed is None


def test_a_batch_and_its_exam_keep_the_sources_of_the_rows(wiring: Any, tmp_path: Path) -> None:
    store = wiring.store
    rows = [{**row, "dataset": "web" if number % 2 else " "} for number, row in enumerate(ROWS)]
    batch = make_batch(store, tmp_path / "scratch", *rows)
    config = config_of(batch, store, **{"ingest.source_field": "dataset"})
    workflow = Workflow(pin(with_exam(config, batch, RULES, store, NOW).config, wiring), wiring)
    workflow.make("ingest", "exam")
    for node in ("ingest", "exam"):
        sources = {prompt.source for prompt in workflow.artifact(node).rows(PROMPTS, Prompt)}
        assert sources == {"web", "incoming/1.jsonl"}  # the file, where the row does not say


def test_of_two_that_freeze_at_once_the_first_counts(file_store: Store, tmp_path: Path) -> None:
    def proposed(text: str) -> Any:
        prompt = Prompt(text, (), "eval", "x")
        return propose_exam(
            file_store,
            1,
            ExamParts([prompt], []),
            batch=1,
            now=NOW,
            source_field=None,
            write=write_rows,
            scratch=tmp_path,
        )

    of_both = [proposed("a"), proposed("b")]
    first, second = (freeze_exam(file_store, each, NOW) for each in of_both)
    assert second == first == exam_of(file_store, 1)


def test_an_exam_goes_on_without_withdrawn_prompts_and_says_that_its_curve_breaks(
    wiring: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = wiring.store
    first = make_batch(store, tmp_path / "scratch", *ROWS, QUESTION)
    before = examined(first, wiring)
    before.make("exam")
    prompts = before.artifact("exam").rows(PROMPTS, Prompt)
    gone = next(prompt.prompt_id for prompt in prompts if not prompt.is_question)
    withdraw(store, [gone], reason=None, now=NOW)
    second = make_batch(store, tmp_path / "scratch", {"prompt": "Name a river."})
    after = examined(second, wiring)
    after.make("exam")
    left = after.artifact("exam").rows(PROMPTS, Prompt)
    assert {prompt.prompt_id for prompt in left} == {prompt.prompt_id for prompt in prompts} - {
        gone
    }
    assert after.artifact("exam").manifest.summary["exam"] == exam_digest(left)
    said = f"exam 1: 1 of its {len(prompts)} prompts are withdrawn and are not asked any more"
    assert said in caplog.text
    assert exam_digest(left) in caplog.text
    withdraw(store, [prompt.prompt_id for prompt in prompts], reason=None, now=NOW)
    with pytest.raises(ConfigError, match=r"exam 1 has no prompt to judge .* set exam=2"):
        examined(second, wiring)
    # Nor is a withdrawn prompt frozen anew: all that this batch holds out are withdrawn.
    proposed = with_exam(
        config_of(first, store), first, RULES.model_copy(update={"exam": 2}), store, NOW
    ).proposed
    assert proposed is None
