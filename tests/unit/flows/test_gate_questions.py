"""A gate on ability is refused as soon as its questions are read, if no answer could be right."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from flows.outcome import _lines
from flows.pipeline import _refuse_gate_without_questions
from flows.run_record import RunRecord
from flows.run_report import _gate_note
from pvar.errors import ConfigError
from pvar.gate import ABILITY_NOT_MEASURED
from tests.workflow import TOPICS, Workflow, start_workflow

WORKED = "There are 3 and 4, so 3+4 = <<3+4=7>>7.\n#### 7"
LONG = "seven and " * 10  # 20 words; the answers of fakes have 12 tokens


def ingested(home: Path, *answers: str, **promote: Any) -> Workflow:
    """A run of which the source was read: it asks a question for each of these answers."""
    rows = [{"prompt": f"Describe {text}."} for text in TOPICS]
    rows += [{"prompt": f"Which is number {n}?", "answer": text} for n, text in enumerate(answers)]
    path = home / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flow = start_workflow(home, **{"ingest.source": str(path), "promote": promote})
    flow.make("ingest")
    return flow


def refusal(flow: Workflow) -> str:
    with pytest.raises(ConfigError) as refused:
        _refuse_gate_without_questions(flow.nodes["ingest"], flow.config, flow.wiring)
    return str(refused.value)


def test_worked_solutions_are_named_where_the_gate_needs_questions(tmp_path: Path) -> None:
    said = refusal(ingested(tmp_path, WORKED, WORKED, max_ability_loss=0.1))
    assert said.startswith("promote.max_ability_loss is 0.1, but ")
    assert "can be used (rejected: 2 accepted_answer_is_worked_solution)" in said
    assert "the final answer alone in `answer`" in said


def test_answers_that_are_longer_than_any_sampled_one_are_refused(tmp_path: Path) -> None:
    said = refusal(ingested(tmp_path, LONG, max_ability_loss=0.1))
    assert "1 of 1 ability questions" in said
    assert "evaluate.answers.max_new_tokens (12)" in said


def test_some_answers_that_are_too_long_are_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flow = ingested(tmp_path, LONG, "seven", max_ability_loss=0.1)
    with caplog.at_level(logging.WARNING):
        _refuse_gate_without_questions(flow.nodes["ingest"], flow.config, flow.wiring)
    assert "1 of 2 ability questions" in caplog.text


@pytest.mark.parametrize("promote", [{}, {"max_ability_loss": 0.1, "mode": "never"}])
def test_what_no_gate_requires_refuses_no_run(tmp_path: Path, promote: dict[str, Any]) -> None:
    flow = ingested(tmp_path, WORKED, **promote)
    _refuse_gate_without_questions(flow.nodes["ingest"], flow.config, flow.wiring)


def test_what_is_not_measurable_is_said_on_the_terminal_and_in_the_report(tmp_path: Path) -> None:
    flow = start_workflow(tmp_path)
    record = RunRecord.model_construct(run="r", config=flow.config, nodes=())
    note = "ability not measurable against the opponent: give other questions"
    fate = {"gate_passed": False, "version": 1, "promoted": False, "decision": None}
    assert note in list(_lines(record, {"promote": {**fate, "gate_note": note}}, [], "file:///s"))
    assert _gate_note(record, note, None, None) == f"{note.capitalize()}."
    # That there are no questions is said in a line, or a remark, of its own.
    lines = list(_lines(record, {"promote": {**fate, "gate_note": ABILITY_NOT_MEASURED}}, [], ""))
    assert ABILITY_NOT_MEASURED not in lines
    assert _gate_note(record, ABILITY_NOT_MEASURED, None, None) == ""
