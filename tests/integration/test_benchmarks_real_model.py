"""A small real end: SmolLM2 and its trained successor take four benchmarks, from preset to report.

The questions are this file's own, in the projects' forms; the judge is AFINN, and one task of
lm-evaluation-harness lies in a folder. Everything else is as users have it, on the CPU.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from flows.pipeline import pipeline
from flows.run_record import RunRecord, load_run
from flows.wiring import Wiring, connect
from infra.presets import load_config
from pvar.evaluation.benchmark_scores import BenchmarkDifference, BenchmarkScore
from pvar.records import Response
from tasks.engine.artifact import Artifact, open_artifact
from tasks.stages.benchmark import DIFFERENCES, EXPORTED, RESULTS
from tests.benchmark_files import arena_answer, write
from tests.services.packages import NEEDS_SMOLLM2
from tests.services.prefect_server import PrefectServer
from tests.unit.infra.harness_tasks import write_tasks

pytestmark = [
    pytest.mark.slow,
    NEEDS_SMOLLM2,
    # Raised inside libraries.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

QUESTIONS = (
    "What do people like about the sea?",
    "Describe a happy dog.",
    "Why do leaves fall in autumn?",
    "Write a line about rain.",
    "What is a good breakfast?",
    "How does one say thank you?",
)
TOPICS = (
    "a hotel by the sea", "the last train", "a kitchen", "a broken phone", "the opera", "a dentist",
    "a camping trip", "a film about chess", "a bakery", "a marathon in the rain",
    "a museum of clocks", "a late flight",
)  # fmt: skip
NAMES = ("alpaca", "arena", "ability", "labels")


def preset(folder: Path, policy: Path) -> str:
    """Prompts with labelled answers, two training steps, and the four kinds of benchmarks."""
    pairs = [
        {
            "prompt": f"Say something about {topic}.",
            "chosen": f"It was a lovely day with {topic}, and everybody was happy.",
            "rejected": f"I hate {topic}.",
        }
        for topic in TOPICS
    ]
    answers = {"engine": "transformers", "max_new_tokens": 16, "max_prompt_tokens": 256}
    categories = ["hard_prompt"] * 3 + ["creative_writing"] * 3
    arena = [
        {"uid": f"q{number}", "category": category, "prompt": question}
        for number, (category, question) in enumerate(zip(categories, QUESTIONS, strict=True))
    ]
    tree: dict[str, Any] = {
        "policy": str(policy),
        "ingest": {"source": write(folder / "pairs.jsonl", pairs), "eval_fraction": 0.4},
        # Answers of 16 tokens are truncated, and truncated ones give no PVar.
        "sample": {"engine": "fake", "num_responses": 4, "max_new_tokens": 16},
        "score": {"reward_models": [{"kind": "vader"}]},
        "select": {"budget": {"count": 4}},
        "pair": {"rule": "original"},
        "train": {
            "pairs_per_step": 2,
            "learning_rate": 1e-3,
            "max_length_tokens": 128,
            "precision": "float32",
            "lora": {"rank": 4},
        },
        "evaluate": {"judge": {"kind": "afinn"}, "opponent": str(policy), "answers": answers},
        "promote": {
            "model_name": "small",
            "min_win_rate": 0.0,
            "benchmarks": [
                {"name": "alpaca", "min_difference_lower": -100},
                {"name": "ability", "max_loss": 100},
            ],
        },
        "benchmarks": [
            {
                "kind": "alpaca_eval",
                "name": "alpaca",
                "questions": write(folder / "eval.jsonl", [{"instruction": q} for q in QUESTIONS]),
                "baseline_outputs": write(
                    folder / "baseline.jsonl",
                    [
                        {"instruction": q, "output": "A table.", "generator": "gpt4"}
                        for q in QUESTIONS
                    ],
                ),
                "judge": {"kind": "afinn"},
                "answers": answers,
            },
            {
                "kind": "arena_hard",
                "name": "arena",
                "questions": write(folder / "question.jsonl", arena),
                "baseline_answers": [
                    write(
                        folder / "hard.jsonl",
                        [arena_answer(f"q{n}", "o3-mini", "A table.") for n in range(3)],
                    )
                ],
                "judge": {"kind": "afinn"},
                "answers": answers,
            },
            {
                "kind": "lm_eval",
                "name": "ability",
                "tasks": ["toy_choice"],
                "include_path": str(write_tasks(folder / "tasks")),
                "dtype": "float32",
            },
            {"kind": "label_agreement", "name": "labels", "dtype": "float32"},
        ],
        "runtime": {"pairs_per_device": 2},
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)


class Finished(NamedTuple):
    record: RunRecord
    wiring: Wiring

    def artifact(self, node: str) -> Artifact:
        (entry,) = (each for each in self.record.nodes if each.name == node)
        stage, _, digest = entry.artifact.partition("/")
        return open_artifact(self.wiring.store, stage, digest, self.wiring.settings.home / "read")

    def scores(self, benchmark: str) -> dict[tuple[str, str | None], BenchmarkScore]:
        rows = self.artifact(f"benchmark-{benchmark}").rows(RESULTS, BenchmarkScore)
        return {(row.role, row.category): row for row in rows}


@pytest.fixture(scope="module")
def finished(
    running_server: PrefectServer, smollm2: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Finished]:
    home = tmp_path_factory.mktemp("home")
    with running_server.is_ours(), pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "PVAR_HOME": str(home),
            "PVAR_STORE_URI": str(home / "store"),
            "PVAR_MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
        }.items():
            environment.setenv(name, value)
        path = preset(home, smollm2)
        run = pipeline(load_config(path, []), preset=path)
        wiring = connect()
        yield Finished(load_run(wiring.store, run), wiring)


def test_every_node_is_made_and_each_benchmark_is_over_its_questions(finished: Finished) -> None:
    states = {node.name: node.state for node in finished.record.nodes}
    # The opponent is the model that training started from.
    assert [name for name, state in states.items() if state != "made"] == [
        "likelihood-labels-reference"
    ]
    assert states["likelihood-labels-reference"] == "reused"
    for name, num_questions in {"alpaca": 6, "arena": 3, "ability": 5}.items():
        for role in ("challenger", "opponent"):
            score = finished.scores(name)[role, None]
            assert score.num_questions == num_questions
            assert score.coverage == 1.0
            assert 0 <= (score.score or 0.0) <= 100
    questions = finished.artifact("questions-arena").manifest
    assert questions.summary["ungraded_categories"] == "creative_writing"
    steps = finished.artifact("train").manifest.summary["num_steps"]
    assert steps == 2


def test_scores_are_those_of_the_answers_by_the_lexicon(finished: Finished) -> None:
    """The baseline is neutral: a positive answer wins, a negative one loses."""
    from afinn import Afinn  # compiled without warnings by the judge before

    lexicon = Afinn(language="en")
    for role in ("challenger", "opponent"):
        answers = finished.artifact(f"answers-alpaca-{role}").rows("responses.parquet", Response)
        valences = [lexicon.score(answer.text) for answer in answers]
        wins = [(valence > 0) + (valence == 0) / 2 for valence in valences]
        assert finished.scores("alpaca")[role, None].score == pytest.approx(100 * sum(wins) / 6)


def test_the_two_models_differ_and_their_difference_is_that_of_their_scores(
    finished: Finished,
) -> None:
    for name in NAMES:
        found = finished.artifact(f"benchmark-{name}").rows(DIFFERENCES, BenchmarkDifference)
        overall = next(row for row in found if row.category is None)
        scores = finished.scores(name)
        ours, theirs = scores["challenger", None].score, scores["opponent", None].score
        assert ours is not None
        assert theirs is not None
        assert overall.difference == pytest.approx(ours - theirs)
        assert overall.ci_lower is not None
        assert overall.ci_upper is not None
        assert overall.ci_lower <= ours - theirs <= overall.ci_upper
    texts = [
        [row.text for row in finished.artifact(f"answers-alpaca-{role}").rows(
            "responses.parquet", Response
        )]
        for role in ("challenger", "opponent")
    ]  # fmt: skip
    assert texts[0] != texts[1]


def test_figures_are_metrics_of_the_run_and_tags_of_the_version(finished: Finished) -> None:
    client = finished.wiring.tracking.client
    metrics = client.get_run(finished.record.mlflow_run).data.metrics
    tags = client.get_model_version("small", "1").tags
    for name in NAMES:
        summary = finished.artifact(f"benchmark-{name}").manifest.summary
        numbers = {
            figure: value for figure, value in summary.items() if isinstance(value, int | float)
        }
        assert {"difference", "difference_lower", "challenger_score", "opponent_score"} <= set(
            numbers
        )
        for figure, value in numbers.items():
            assert math.isfinite(value)
            assert metrics[f"{name}.{figure}"] == pytest.approx(value)
            assert float(tags[f"pvar.{name}.{figure}"]) == pytest.approx(value, abs=1e-4)
    decision = json.loads(next(finished.artifact("promote").paths("decision.json")).read_text())
    checks = {name: passed for name, _, _, passed in decision["checks"]}
    assert checks["benchmark-alpaca"]
    assert checks["benchmark-ability"]


def test_the_report_shows_every_benchmark(finished: Finished) -> None:
    page = finished.wiring.store.read(f"runs/{finished.record.run}.html").decode()
    section = page.partition('id="benchmarks"')[2].partition('id="trust"')[0]
    for name in NAMES:
        assert f"<h3>{name} " in section
    assert "creative_writing" in section
    assert "Not measured" not in section
    assert "lower end of the difference on alpaca, at least" in page


def test_the_projects_files_are_beside_the_scores(finished: Finished) -> None:
    for role in ("challenger", "opponent"):
        folder = finished.artifact("benchmark-alpaca").folder(EXPORTED) / role
        annotations = json.loads((folder / "annotations.json").read_text())
        assert [row["instruction"] for row in annotations] == list(QUESTIONS)
        judged = finished.artifact("benchmark-arena").folder(EXPORTED) / role / "model_judgment"
        (path,) = judged.rglob("*.jsonl")
        assert len(path.read_text().splitlines()) == 3
