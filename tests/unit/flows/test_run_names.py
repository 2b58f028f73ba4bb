"""What runs are named in Prefect, and what their progress artifacts show."""

import logging
from typing import Any
from uuid import UUID, uuid4

import pytest

from flows import run_progress
from flows.run_names import kept_or, run_label, tags_of
from flows.run_page import artifact_key
from flows.run_progress import ProgressBar, progress_shown
from pvar.config import PipelineConfig
from tasks.engine.progress_log import ProgressLog


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("dangerous-wyvern", "sample"),
        ("theta3-celebdil-fringe", "sample"),  # by the form of the older UI
        ("Sleek-Deer", "sample"),  # by that of the newer one
        ("answers-challenger 2", "answers-challenger 2"),
        ("with the new judge", "with the new judge"),
        ("Monday", "Monday"),
        ("", "sample"),
        (None, "sample"),
    ],
)
def test_a_run_keeps_the_name_that_it_was_given(given: str | None, shown: str) -> None:
    assert kept_or("sample", given) == shown


def test_a_run_is_about_its_preset_or_its_model() -> None:
    config = PipelineConfig.model_validate({"promote": {"model_name": "mine"}})
    assert run_label(config, "presets/my.yaml") == "my"
    assert run_label(config, None) == "mine"
    assert tags_of(config, "presets/my.yaml") == ("model:mine", "preset:my")
    assert tags_of(config, None) == ("model:mine",)


def test_the_key_of_an_artifact_has_the_letters_that_prefect_allows() -> None:
    assert artifact_key("run-My model_2") == "run-my-model-2"


def test_a_stage_that_counts_has_one_progress_artifact(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[Any, float, str]] = []

    def create(progress: float, description: str) -> UUID:
        shown.append((None, progress, description))
        return identity

    def update(artifact: UUID, progress: float, description: str) -> None:
        shown.append((artifact, progress, description))

    identity, now = uuid4(), [0.0]
    monkeypatch.setattr(run_progress, "create_progress_artifact", create)
    monkeypatch.setattr(run_progress, "update_progress_artifact", update)
    logging.getLogger("tasks.engine.progress_log").setLevel(logging.INFO)
    with progress_shown(), ProgressLog("sample/ab12", clock=lambda: now[0]) as progress:
        progress.report()  # loading a model: nothing to count
        progress.begin(total=100, unit="prompts")
        for _ in range(2):
            now[0] += 30
            progress.advance(25)
            progress.report()
    progress.report()  # nobody listens any more
    assert shown == [
        (
            None,
            25,
            "sample/ab12: 25 of 100 prompts (25 %), 50 prompts/min, about 1 min 30 s left",
        ),
        (
            identity,
            50,
            "sample/ab12: 50 of 100 prompts (50 %), 50 prompts/min, about 1 min 0 s left",
        ),
    ]


def test_a_server_that_is_away_does_not_end_the_work_that_it_would_show(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The pipeline's bar, too, which is shown before each stage."""

    def create(**_: Any) -> UUID:
        raise ConnectionError("all attempts failed")

    monkeypatch.setattr(run_progress, "create_progress_artifact", create)
    ProgressBar().show(1, 4, "stage 2 of 4: score")
    (said,) = caplog.messages
    assert said == "Prefect does not show 'stage 2 of 4: score': all attempts failed"
