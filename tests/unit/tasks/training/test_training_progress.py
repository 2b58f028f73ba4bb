"""Training reports its steps, and the reference its answers, at the speed of this process alone."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.engine.stage import run_stage
from tasks.training.reference import counting_answers
from tests.progress import Watched, watched
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import start_workflow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture
def watch() -> Iterator[Watched]:
    with watched() as here:
        yield here


def test_steps_are_counted_from_the_first_one_of_this_process(
    watch: Watched, tmp_path: Path
) -> None:
    flow = start_workflow(
        tmp_path,
        policy=str(save_language_model(tmp_path / "policy", seed=1)),
        train={"pairs_per_step": 2, "precision": "float32", "num_epochs": 1},
        runtime={"pairs_per_device": 2, "lease_seconds": 60},
    )
    flow.make("ingest", "sample", "score-vader", "select", "pair")
    num_pairs = flow.artifact("pair").manifest.row_counts.rows_out
    num_steps = -(-num_pairs // 2)
    node = flow.nodes["train"]

    def after_step(step: int, figures: Mapping[str, float]) -> None:
        assert "num_tokens" not in figures  # tracking has the total by this name
        if step == 1:
            percent = 100 // num_steps
            watch.after(30, f"1 of {num_steps} steps ({percent} %) after 30 s")()
        if step == 2:  # one step in 30 s since the first
            watch.lines.wait_for(f"2.0 steps/min, about {left(num_steps - 2)} left")

    run_stage(
        node.stage,
        node.recipe,
        replace(flow.job("train"), progress=watch.progress(), log_step=after_step),
    )
    (reference,) = {
        line.partition(":")[0] for line in watch.lines.lines if line.startswith("reference/")
    }
    assert f"{reference}: started" in watch.lines.lines


def left(num_steps: int) -> str:
    minutes, seconds = divmod(30 * num_steps, 60)
    return f"{minutes} min {seconds} s"


def test_the_reference_counts_the_answers_of_each_batch(watch: Watched) -> None:
    import torch

    class Model(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return input_ids

    model, progress = Model(), watch.progress()
    progress.begin(total=5, unit="answers")
    with counting_answers(model, progress):
        model(input_ids=torch.zeros(3, 7))
        assert progress.snapshot().done == 3
        model(input_ids=torch.zeros(2, 4))
    model(input_ids=torch.zeros(9, 4))
    assert progress.snapshot().done == 5
