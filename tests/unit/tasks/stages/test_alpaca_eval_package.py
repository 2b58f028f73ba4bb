"""The alpaca_eval package analyses exported annotations to the same raw figures.

Its own code runs in a process of its own. It wants `pkg_resources`, which new versions of
setuptools lack, for versions alone: an empty module stands in for it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev

import pytest

from pvar.evaluation.benchmark_scores import BenchmarkScore
from tasks.benchmark_nodes import score_name
from tasks.stages.benchmark import EXPORTED, RESULTS
from tests.benchmark_files import DATA_SETS, MODEL, alpaca_eval_files, odds, outputs, served
from tests.services.packages import needs
from tests.unit.pvar.benchmark_data import (
    ALPACA_EVAL,
    ALPACA_EVAL_MODELS,
    needs_shared_data,
    read_jsonl,
)
from tests.workflow import Workflow, start_workflow

needs_alpaca_eval = needs("alpaca_eval", "setup")

ANALYSE = """
import json, sys, types
sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")
from alpaca_eval.metrics import get_winrate
for path in sys.argv[1:]:
    found = get_winrate(json.load(open(path)))
    print(json.dumps({name: float(value) for name, value in found.items()}))
"""


def by_the_package(*paths: Path) -> list[dict[str, float]]:
    done = subprocess.run(
        [sys.executable, "-c", ANALYSE, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def by_its_rule(path: Path) -> dict[str, float]:
    """The package's rule (0.6.6, metrics/helpers.py), written out: preferences from 1 to 2, 0 or
    1.5 is a draw, no number is no row; the discrete rate rounds them."""
    given = [row["preference"] for row in json.loads(path.read_text())]
    wins = [(1.5 if p == 0 else p) - 1 for p in given if p is not None]
    counts = [sum(test(win) for win in wins) for test in (_is_won, _is_lost, _is_drawn)]
    return {
        "win_rate": 100 * fmean(wins),
        "standard_error": 100 * stdev(wins) / len(wins) ** 0.5,
        "n_wins": counts[0],
        "n_wins_base": counts[1],
        "n_draws": counts[2],
        "n_total": len(wins),
        "discrete_win_rate": 100 * (counts[0] + counts[2] / 2) / len(wins),
    }


def _is_won(win: float) -> bool:
    return win > 0.5


def _is_lost(win: float) -> bool:
    return win < 0.5


def _is_drawn(win: float) -> bool:
    return win == 0.5


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workflow:
    """A win, a loss, a draw, a near draw and an answer without a verdict, judged and exported."""
    answers = dict(
        zip(DATA_SETS, ("[0.8]", "[0.1]", "baseline q3", "[0.5001]", "nothing"), strict=True)
    )
    flow = start_workflow(
        tmp_path,
        **{
            "benchmarks": [alpaca_eval_files(tmp_path)],
            "benchmark_models": [outputs(tmp_path, answers)],
            "promote.min_coverage": 0.8,
        },
    )
    with served(odds, monkeypatch):
        flow.make(
            "questions-alpaca_eval", "answers-alpaca_eval-model", "judge-alpaca_eval-model",
            score_name("alpaca_eval", MODEL),
        )  # fmt: skip
    return flow


def exported(flow: Workflow) -> Path:
    return (
        flow.artifact(score_name("alpaca_eval", MODEL)).folder(EXPORTED)
        / MODEL
        / ("annotations.json")
    )


def check(score: BenchmarkScore, expected: Mapping[str, float]) -> None:
    for name, value in {
        "win_rate": score.score,
        "standard_error": score.standard_error,
        "discrete_win_rate": score.discrete_win_rate,
        "n_total": score.num_judged,
    }.items():
        assert value == pytest.approx(expected[name], abs=1e-9)


def test_exported_annotations_give_the_stages_figures_by_the_packages_rule(flow: Workflow) -> None:
    score, *_ = flow.artifact(score_name("alpaca_eval", MODEL)).rows(RESULTS, BenchmarkScore)
    expected = by_its_rule(exported(flow))
    check(score, expected)
    assert (expected["n_wins"], expected["n_wins_base"], expected["n_draws"]) == (2, 1, 1)


@needs_alpaca_eval
@pytest.mark.slow
def test_the_package_itself_gives_the_stages_figures(flow: Workflow) -> None:
    score, *_ = flow.artifact(score_name("alpaca_eval", MODEL)).rows(RESULTS, BenchmarkScore)
    (expected,) = by_the_package(exported(flow))
    check(score, expected)
    assert expected == pytest.approx(by_its_rule(exported(flow)), abs=1e-9)


@needs_alpaca_eval
@needs_shared_data
@pytest.mark.slow
def test_the_rule_is_the_packages_on_published_annotations(tmp_path: Path) -> None:
    paths = []
    for model in ALPACA_EVAL_MODELS:
        rows = read_jsonl(ALPACA_EVAL / "annotations" / f"{model}.jsonl.gz")
        path = tmp_path / f"{model}.json"
        path.write_text(json.dumps([{"preference": row["preference"]} for row in rows]))
        paths.append(path)
    for path, expected in zip(paths, by_the_package(*paths), strict=True):
        assert by_its_rule(path) == pytest.approx(expected, abs=1e-9)
