"""The shared real data of both benchmarks, for tests that compare with published numbers."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from pvar.evaluation.alpaca_eval import model_preferences
from pvar.evaluation.arena_hard import JudgedQuestion
from pvar.evaluation.calibration import parse_calibration
from pvar.evaluation.length_control import Calibration

SHARED = Path(__file__).parents[4] / "shared" / "data"
ALPACA_EVAL = SHARED / "alpaca_eval_2"
ARENA_HARD = SHARED / "arena_hard"

needs_shared_data = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the benchmarks' real data (../shared/data) is not here"
)

ALPACA_EVAL_MODELS = (
    "alpaca-7b",
    "FuseChat-Llama-3.1-8B-Instruct",
    "FuseChat-Llama-3.2-1B-Instruct",
    "gpt-3.5-turbo-1106_concise",
    "NullModel",
    "OpenHermes-2.5-Mistral-7B",
)


class AlpacaEvalRun(NamedTuple):
    annotations: list[dict[str, Any]]
    preferences: np.ndarray  # 0 to 1
    delta_lengths: np.ndarray
    indices: np.ndarray
    published: dict[str, str]


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def alpaca_eval_run(model: str) -> AlpacaEvalRun:
    annotations = read_jsonl(ALPACA_EVAL / "annotations" / f"{model}.jsonl.gz")
    outputs = read_jsonl(ALPACA_EVAL / "model_outputs" / f"{model}.jsonl.gz")
    baseline = read_jsonl(ALPACA_EVAL / "baseline_gpt4_1106_preview.jsonl.gz")
    lengths = {row["instruction"]: len(row["output"]) for row in outputs}
    by_instruction = {row["instruction"]: row for row in baseline}
    return AlpacaEvalRun(
        annotations=annotations,
        preferences=model_preferences([row["preference"] for row in annotations]),
        delta_lengths=np.array(
            [
                float(
                    len(by_instruction[row["instruction"]]["output"]) - lengths[row["instruction"]]
                )
                for row in annotations
            ]
        ),
        indices=np.array([by_instruction[row["instruction"]]["index"] for row in annotations]),
        published=next(
            row for row in read_csv(ALPACA_EVAL / "expected.csv") if row["model"] == model
        ),
    )


def calibration() -> Calibration:
    folder = ALPACA_EVAL / "calibration"
    return parse_calibration(
        (folder / "instruction_difficulty.csv").read_text(), (folder / "df_gamed.csv").read_text()
    )


def arena_hard_games(name: str) -> list[JudgedQuestion]:
    return [
        JudgedQuestion(
            question_id=row["question_id"],
            model=row["model"],
            baseline=row["baseline"],
            category=None,
            first=row["games"][0]["score"],
            second=row["games"][1]["score"],
        )
        for row in read_jsonl(ARENA_HARD / "v0.1" / "games" / f"{name}.jsonl.gz")
    ]
