"""Stage train names what was counted: no pairs, pairs that are too long, a first loss of NaN."""

import math
from pathlib import Path
from typing import Any

import pytest

from pvar.errors import InputError, StageError
from tasks.engine.tables import TrainStep
from tasks.training.job_watcher import _Report
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import start_workflow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def refusal(folder: Path, **changes: Any) -> str:
    """What stage train says of these settings."""
    flow = start_workflow(
        folder,
        policy=str(save_language_model(folder.parent / "policy", seed=1)),
        **changes,
    )
    flow.make("ingest", "sample", "score-vader", "select", "pair")
    with pytest.raises(InputError) as refused:
        flow.make("train")
    return str(refused.value)


def test_no_pair_is_blamed_on_what_stage_pair_counted(tmp_path: Path) -> None:
    said = refusal(tmp_path / "margin", **{"pair.min_margin": 1000.0})
    assert "has no pairs to train on: none was made of" in said
    assert "'margin': " in said
    assert said.endswith("; lower pair.min_margin")
    assert "max_length_tokens" not in said

    said = refusal(
        tmp_path / "nothing", **{"select.strategy": "threshold", "select.threshold": 0.25}
    )
    assert "none was made of 0" in said
    assert "no prompt was selected" in said

    said = refusal(tmp_path / "original", **{"pair.rule": "original"})
    assert "'no_annotation': " in said
    assert "set pair.rule" in said


def test_pairs_that_are_all_too_long_are_blamed_on_their_length(tmp_path: Path) -> None:
    settings = {"max_length_tokens": 12, "precision": "float32"}
    said = refusal(tmp_path / "long", **{"train": settings, "sample.num_responses": 3})
    assert "longer than train.max_length_tokens = 12: raise it" in said


@pytest.mark.parametrize(
    ("step", "cause"), [(1, "the learning rate is not the cause"), (2, "lower train.learning_rate")]
)
def test_a_loss_before_anything_was_learned_is_not_blamed_on_the_learning_rate(
    tmp_path: Path, step: int, cause: str
) -> None:
    flow = start_workflow(tmp_path)
    flow.make("ingest", "sample", "score-vader", "select", "pair")
    report = _Report(flow.job("train"), "train.learning_rate", 1e-6)
    lost = TrainStep(step, 0.1, math.nan, 0.0, None, 0.0, 0.0, math.nan, 1e-6)
    with pytest.raises(StageError, match=cause):
        report.on_step(lost, 10)
