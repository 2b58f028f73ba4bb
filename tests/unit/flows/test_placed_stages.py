"""Whose fault it is that no run of a placed stage completes."""

from contextlib import nullcontext
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import State, StateType

from flows import placed_stages
from pvar.config import PipelineConfig
from pvar.errors import PvarError, StageCancelledError, StageError, UnavailableError
from pvar.references import replace_references
from tasks.graph import plan_nodes


class Run:
    """The used parts of Prefect's flow run."""

    def __init__(self, state: State[Any], number: int) -> None:
        self.id, self.name, self.state = uuid4(), f"sample {number}", state


CANCELLED = State[Any](type=StateType.CANCELLED)
DELETED = None
FAILED = State[Any](type=StateType.FAILED, message="InputError: no prompts")
LATE = State[Any](type=StateType.SCHEDULED, name="Late")
PULLS_ITS_IMAGE = State[Any](type=StateType.PENDING)
RUNNING = State[Any](type=StateType.RUNNING)


@pytest.mark.parametrize(
    ("states", "error", "words"),
    [
        ([CANCELLED], StageCancelledError, "run sample 0 is"),
        ([CANCELLED, DELETED], StageCancelledError, "the run was deleted at the server"),
        ([CANCELLED, FAILED], StageError, "InputError: no prompts"),
        ([LATE, PULLS_ITS_IMAGE], UnavailableError, r"took longer than 0\.01 s"),
        ([LATE, RUNNING], StageError, r"took longer than 0\.01 s"),
        ([LATE, CANCELLED], StageError, r"took longer than 0\.01 s"),
    ],
)
def test_runs_that_a_person_stopped_or_that_no_worker_took_have_an_error_of_their_own(
    states: list[State[Any] | None],
    error: type[PvarError],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = [state and Run(state, number) for number, state in enumerate(states)]
    children = [placed_stages._child(uuid4(), run) for run in runs]  # type: ignore[arg-type]
    monkeypatch.setattr(placed_stages, "_children", lambda *_: nullcontext([]))
    monkeypatch.setattr(placed_stages, "look_at_runs", lambda *_: children)
    monkeypatch.setattr(placed_stages, "connected_client", nullcontext)
    monkeypatch.setattr(placed_stages, "POLL_SECONDS", 0.02)
    settings = {"runtime": {"placement": {"sample": {"pool": "far", "timeout_seconds": 0.01}}}}
    config = replace_references(
        PipelineConfig.model_validate(settings), lambda each: f"{each.text}#sha256-{each.text}"
    )
    nobody: Any = None
    with pytest.raises(error, match=words) as raised:
        placed_stages.run_placed(plan_nodes(config)["sample"], config, nobody, parent_run=None)
    assert type(raised.value) is error
