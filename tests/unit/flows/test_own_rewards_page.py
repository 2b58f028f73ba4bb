"""The example of docs/own-rewards.md, as it stands there."""

import re
from pathlib import Path

import pytest

from flows.pinning import pin
from infra.pinned_folder import pin_folder
from infra.preconditions import refuse_missing
from infra.presets import load_config
from infra.rewards.function_scorer import open_function
from pvar.ports import ScoreRequest
from pvar.records import Message, Score
from pvar.reward_config import PythonReward
from tasks.stages.score import SCORES
from tests.workflow import Workflow, open_wiring

PAGE = Path(__file__).parents[3] / "docs" / "own-rewards.md"
_FILE = re.compile(r"^<!-- create: (\S+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of the page, in which commands are called."""
    files = dict(_FILE.findall(PAGE.read_text(encoding="utf-8")))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert {"my.yaml", "prompts.jsonl", "rewards/exact.py"} < files.keys()
    return tmp_path


def test_the_example_scores_in_its_stage_and_again_only_if_its_folder_changes(
    example: Path,
) -> None:
    no_registry = "evaluate.opponent=bundled:smollm2-135m-instruct"
    changes = ("sample.engine=fake", "ingest.eval_fraction=0.1", no_registry)
    written = load_config("my.yaml", changes)
    refuse_missing(written, ["score"])
    wiring = open_wiring(example / "home")
    workflow = Workflow(pin(written, wiring), wiring)
    workflow.make("ingest", "sample", "score-exact")
    scores = workflow.artifact("score-exact").rows(SCORES, Score)
    # The fake answers are words without numbers; one prompt has no known answer.
    assert {(each.reward, each.reason) for each in scores} <= {(0.0, None), (None, "no_reward")}
    assert {each.reward for each in scores} >= {0.0}

    with (example / "rewards" / "answers.jsonl").open("a") as file:
        file.write('{"prompt": "x", "answer": "1"}\n')
    changed = Workflow(pin(written, workflow.wiring), workflow.wiring)
    before, after = workflow.nodes, changed.nodes
    assert before["sample"].keys == after["sample"].keys
    assert before["score-exact"].keys != after["score-exact"].keys


def test_the_examples_function_knows_right_wrong_and_unknown(example: Path) -> None:
    (model,) = load_config("my.yaml").score.reward_models
    assert isinstance(model, PythonReward)
    model = model.model_copy(update={"folder": pin_folder(model.folder)})
    asked = [("What is 6 times 7?", "6 · 7 = 42."), ("What is 6 times 7?", "42 or 43"), ("?", "42")]
    scorer = open_function(model)
    try:
        scores = scorer.score(
            [
                ScoreRequest("p", str(row), (Message("user", prompt),), text)
                for row, (prompt, text) in enumerate(asked)
            ]
        )
    finally:
        scorer.close()
    assert [each.reward for each in scores] == [1.0, 0.0, None]
