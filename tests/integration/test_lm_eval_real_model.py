"""Stage lm_eval with the real SmolLM2 and lm-evaluation-harness, offline, on local tasks."""

from pathlib import Path
from typing import Any

import pytest

from infra.pinned_folder import pin_folder
from pvar.benchmark_config import LmEvalSettings
from pvar.evaluation.lm_eval_change import lm_eval_scores
from pvar.lm_eval_records import LmEvalAggregate, LmEvalSample
from tasks.stages.benchmark_lm_eval import lm_eval_results
from tasks.stages.harness import AGGREGATES, HARNESS, SAMPLES, HarnessSpec
from tests.artifacts import StageBench
from tests.services.packages import NEEDS_SMOLLM2
from tests.unit.infra.harness_tasks import EXACT, write_tasks
from tests.workflow import open_wiring

pytestmark = [pytest.mark.slow, NEEDS_SMOLLM2]

CHOICES = (
    {"question": "The capital of France is", "choices": ["Paris", "Rome", "Oslo"], "answer": 0},
    {"question": "The opposite of hot is", "choices": ["green", "cold"], "answer": 1},
    {"question": "A cat has four", "choices": ["wheels", "wings", "legs"], "answer": 2},
    {"question": "The capital of Italy is", "choices": ["Paris", "Rome", "Oslo"], "answer": 0},
)
"""The last answer is wrong on purpose."""

ASKED = {False: "The capital of {} is", True: "What is the capital of {}?"}
"""Without and with the chat template."""

FINDS = """
filter_list:
  - name: first-city
    filter:
      - {function: regex, regex_pattern: "(Paris|Rome|Oslo)"}
      - {function: take_first}
"""


def simply_evaluated(model: Path, tasks: Path, name: str, *, chat: bool) -> dict[str, Any]:
    """The harness's own entry point on the same task."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    results = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model), "dtype": "float32"},
        tasks=[name],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        device="cpu",
        batch_size=8,
        apply_chat_template=chat,
    )
    figures: dict[str, Any] = results["results"][name]
    return figures


@pytest.mark.parametrize("chat", [False, True])
def test_a_real_model_is_scored_as_the_harness_itself_scores_it(
    smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chat: bool
) -> None:
    exact = EXACT.replace("max_gen_toks: 6", "max_gen_toks: 24") + FINDS
    answers = [
        {"question": ASKED[chat].format("France"), "answer": "Paris"},
        {"question": ASKED[chat].format("Italy"), "answer": "Oslo"},
    ]
    tasks = write_tasks(tmp_path / "tasks", choices=CHOICES, answers=answers, exact=exact)
    spec = HarnessSpec(
        policy="bundled#smollm2",
        settings=LmEvalSettings(
            tasks=("toy_choice", "toy_exact"),
            include_path=pin_folder(str(tasks)),
            apply_chat_template=chat,
            dtype="float32",
        ),
        allow_code_execution=False,
    )
    bench = StageBench(open_wiring(tmp_path), tmp_path)
    artifact = bench.run(HARNESS, spec, {}, model_folder=lambda _: smollm2)

    rows = artifact.rows(SAMPLES, LmEvalSample)
    exact_match = [row.value for row in rows if row.metric == "exact_match"]
    assert exact_match == [1.0, 0.0]
    if not chat:
        assert [row.value for row in rows if row.metric == "acc"] == [1.0, 1.0, 1.0, 0.0]
    monkeypatch.chdir(tasks)  # where the harness itself looks for data
    for name in ("toy_choice", "toy_exact"):
        theirs = simply_evaluated(smollm2, tasks, name, chat=chat)
        for row in artifact.rows(AGGREGATES, LmEvalAggregate):
            if row.task == name:
                assert row.value == theirs[f"{row.metric},{row.filter}"]
                assert row.stderr == pytest.approx(theirs[f"{row.metric}_stderr,{row.filter}"])

    results = lm_eval_results(artifact)
    scores = {
        row.name: (row.metric, row.score)
        for row in lm_eval_scores(results, confidence=0.95, seed=0)
    }
    assert scores["toy_exact"] == ("exact_match,first-city", 50.0)
