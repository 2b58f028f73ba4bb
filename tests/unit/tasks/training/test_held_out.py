"""Margins of held-out pairs: by hand, from a checkpoint, and without a trace in the training."""

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.engine.tables import HeldOutMargin, TokenPair, read_table
from tasks.training.held_out import NUM_POINTS, measured_steps
from tasks.training.training_run import HELD_OUT_MARGINS
from tests.unit.infra.tiny_models import save_language_model
from tests.unit.tasks.training.trainings import (
    PAIRS,
    logps_of_pairs,
    token_pairs,
    train,
    trained,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Run(NamedTuple):
    """A training of five steps with a checkpoint after the third."""

    policy: Path
    held_out: list[TokenPair]
    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "scratch" / "checkpoint-3"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("held-out")
    policy = save_language_model(folder / "policy", seed=1)
    pairs = token_pairs(policy)
    run = Run(policy, pairs[:2], folder / "whole")
    train(run.folder, policy, pairs[2:], held_out=run.held_out, **FIVE_STEPS)
    return run


FIVE_STEPS = {"num_epochs": 1, "num_steps": 5, "checkpoint_steps": 3}
MEASURED = [0, 1, 2, 3, 5]


def margins(folder: Path) -> dict[int, list[float]]:
    """By step, in the order of the pairs."""
    found: dict[int, list[float]] = {}
    for row in read_table(folder / HELD_OUT_MARGINS, HeldOutMargin):
        found.setdefault(row.step, []).append(row.margin)
    return found


@given(st.integers(1, 10_000))
def test_the_start_and_the_end_are_measured_and_steps_between(num_steps: int) -> None:
    steps = measured_steps(num_steps)
    assert (steps[0], steps[-1]) == (0, num_steps)
    assert len(steps) == min(NUM_POINTS, num_steps + 1)
    gaps = [after - before for before, after in pairwise(steps)]
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.slow
def test_a_margin_is_that_of_the_model_at_its_step(run: Run) -> None:
    """The checkpoint has the float32 weights of step 3; the reference is the starting policy."""
    rows = read_table(run.folder / HELD_OUT_MARGINS, HeldOutMargin)
    assert [row.step for row in rows] == [step for step in MEASURED for _ in run.held_out]
    assert [row.prompt_id for row in rows[:2]] == [pair.prompt_id for pair in PAIRS[:2]]
    assert [row.pair_id for row in rows[:2]] == [pair.pair_id for pair in run.held_out]

    now, before = (logps_of_pairs(folder, run.held_out) for folder in (run.checkpoint, run.policy))
    by_hand = [
        0.1 * ((chosen - chosen_before) - (rejected - rejected_before))  # DPO's default beta
        for (chosen, rejected), (chosen_before, rejected_before) in zip(now, before, strict=True)
    ]
    found = margins(run.folder)
    assert found[0] == [0, 0]
    assert found[3] == pytest.approx(by_hand, abs=1e-4)
    assert min(map(abs, by_hand)) > 0.01  # else the comparison would show nothing


@pytest.mark.slow
def test_without_a_reference_a_margin_is_of_means_over_tokens(tmp_path: Path, run: Run) -> None:
    settings = {"method": "simpo", "beta": 2.0, "simpo_gamma": 0.5, "num_epochs": 1}
    pairs = token_pairs(run.policy)[2:]
    train(tmp_path / "run", run.policy, pairs, held_out=run.held_out, **settings)
    by_hand = [
        2 * (chosen / len(pair.chosen_ids) - rejected / len(pair.rejected_ids))
        for pair, (chosen, rejected) in zip(
            run.held_out, logps_of_pairs(run.policy, run.held_out), strict=True
        )
    ]
    assert margins(tmp_path / "run")[0] == pytest.approx(by_hand, abs=1e-4)


@pytest.mark.slow
def test_measuring_changes_nothing_in_the_training(tmp_path: Path, run: Run) -> None:
    """To the last bit, with adapters whose dropout draws random numbers in every step."""
    settings = {"lora": {"rank": 4, "dropout": 0.3}, **FIVE_STEPS}
    pairs = token_pairs(run.policy)[2:]
    plain = train(tmp_path / "plain", run.policy, pairs, **settings)
    steps = train(tmp_path / "measured", run.policy, pairs, held_out=run.held_out, **settings)
    assert [step.loss for step in steps] == [step.loss for step in plain]
    weights, measured = (
        (trained(tmp_path / name) / "model.safetensors").read_bytes()
        for name in ("plain", "measured")
    )
    assert measured == weights
    assert margins(tmp_path / "measured")[0] == [0, 0]
    assert not (tmp_path / "plain" / HELD_OUT_MARGINS).exists()


@pytest.mark.slow
def test_a_training_that_resumes_has_all_margins(tmp_path: Path, run: Run) -> None:
    train(
        tmp_path / "resumed",
        run.policy,
        token_pairs(run.policy)[2:],
        held_out=run.held_out,
        resume=run.checkpoint,
        **FIVE_STEPS,
    )
    found, wanted = margins(tmp_path / "resumed"), margins(run.folder)
    assert list(found) == MEASURED
    for step in (0, 1, 2):  # of the checkpoint
        assert found[step] == wanted[step]
    for step in (3, 5):
        assert found[step] == pytest.approx(wanted[step], abs=1e-4)
