"""An exam of its own: what is asked, what is not trained on, and what does not depend on it."""

import json
from pathlib import Path

import pytest

from pvar.errors import InputError
from pvar.exclusion import Exclusion
from pvar.records import Prompt, Response
from tasks.engine.tables import PromptVariance
from tasks.stages.exclude import EXCLUDED
from tasks.stages.ingest import PROMPTS
from tasks.stages.sample import RESPONSES
from tasks.stages.select import VARIANCE
from tests.workflow import TOPICS, Workflow, start_workflow

NEW = ["Name a river.", "Name a lake."]
QUESTION = "What is the capital of France?"


def write_exam(folder: Path, *rows: dict[str, str]) -> str:
    path = folder / "exam.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def examined(tmp_path: Path) -> Workflow:
    """Two prompts of its own, one that is also in the source, and a question."""
    rows = [{"prompt": text} for text in (*NEW, f"describe {TOPICS[0]}!")]
    exam = write_exam(tmp_path, *rows, {"prompt": QUESTION, "answer": "Paris"})
    workflow = start_workflow(tmp_path / "home", **{"evaluate.prompts": [exam]})
    workflow.make("ingest", "exam", "exclude", "sample", "score-vader", "select")
    return workflow


def test_nothing_of_the_source_is_held_out_and_none_of_the_exam_is_selected(
    examined: Workflow,
) -> None:
    prompts = examined.artifact("ingest").rows(PROMPTS, Prompt)
    assert {prompt.split for prompt in prompts} == {"train"}
    assert len(prompts) == len(TOPICS)
    (excluded,) = examined.artifact("exclude").rows(EXCLUDED, Exclusion)
    assert (excluded.exam, excluded.rule) == ("evaluate.prompts", "same_text")
    candidates = {
        row.prompt_id for row in examined.artifact("select").rows(VARIANCE, PromptVariance)
    }
    assert candidates == {prompt.prompt_id for prompt in prompts} - {excluded.prompt_id}


def test_both_models_answer_the_exam_and_its_digest_is_a_figure(examined: Workflow) -> None:
    examined.make("answers-opponent")
    exam = examined.artifact("exam")
    asked = {prompt.prompt_id for prompt in exam.rows(PROMPTS, Prompt)}
    answers = examined.artifact("answers-opponent").rows(RESPONSES, Response)
    assert {answer.prompt_id for answer in answers} == asked
    assert len(asked) == 4
    summary = exam.manifest.summary
    assert (summary["num_eval_prompts"], summary["num_ability_questions"]) == (3, 1)
    assert examined.nodes["evaluate"].inputs["prompts"] == examined.nodes["exam"].keys


def test_another_exam_samples_and_scores_nothing_again(examined: Workflow, tmp_path: Path) -> None:
    other = write_exam(tmp_path, {"prompt": "Name a sea."})
    changed = start_workflow(tmp_path / "home", **{"evaluate.prompts": [other]})
    same = {name for name, node in changed.nodes.items() if node.keys == examined.nodes[name].keys}
    assert same == {"ingest", "sample", "score-vader"}


def test_an_exam_without_a_prompt_to_judge_is_refused(tmp_path: Path) -> None:
    exam = write_exam(tmp_path, {"prompt": QUESTION, "answer": "Paris"}, {"text": "?"})
    workflow = start_workflow(tmp_path / "home", **{"evaluate.prompts": [exam]})
    with pytest.raises(InputError, match=r"no row is a prompt to judge \(1 ability questions"):
        workflow.make("exam")
