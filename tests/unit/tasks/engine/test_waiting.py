"""A stage that waits: no lease is held, others may come at once, and it goes on when it can."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest

from pvar.artifacts import Recipe, WaitingRecord
from pvar.errors import IncompleteError
from pvar.ports import Ports, Store
from tasks.engine.lease import LeaseRecord, try_acquire
from tasks.engine.progress import progress_of
from tasks.engine.stage import Job, run_stage
from tasks.engine.stage_outcome import StageOutcome, Waiting, waiting_of
from tests.differential.faults import DeadlyStore, Killed
from tests.workflow import Workflow, start_workflow


@pytest.fixture
def flow(tmp_path: Path) -> Workflow:
    """Sampling takes 6 shards of 4 prompts."""
    workflow = start_workflow(tmp_path)
    workflow.make("ingest")
    return workflow


def wait_for_labels() -> NoReturn:
    raise Waiting("labels of 4 prompts", "pvar label")


@dataclass(frozen=True)
class Interrupted:
    """Ports whose sampler asks first whether it may begin on a shard."""

    ports: Ports
    ask: Callable[[], object]
    other_store: Store | None = None

    @property
    def store(self) -> Store:
        return self.other_store or self.ports.store

    def sampler(self, *arguments: Any) -> Any:
        sampler, ask = self.ports.sampler(*arguments), self.ask

        class _Asking:
            def sample(self, requests: Any, **options: Any) -> Any:
                ask()
                return sampler.sample(requests, **options)

            def close(self) -> None:
                sampler.close()

        return _Asking()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ports, name)


def job_that(flow: Workflow, ask: Callable[[], object], store: Store | None = None) -> Job[Any]:
    return replace(flow.job("sample"), ports=cast(Ports, Interrupted(flow.wiring, ask, store)))


def run(flow: Workflow, ask: Callable[[], object], store: Store | None = None) -> StageOutcome:
    node = flow.nodes["sample"]
    return run_stage(node.stage, node.recipe, job_that(flow, ask, store))


def leases(flow: Workflow) -> list[LeaseRecord]:
    keys = [info.key for info in flow.store.list(f"{flow.nodes['sample'].keys.root}/leases/")]
    return [LeaseRecord.model_validate_json(flow.store.read(key)) for key in keys]


def test_a_stage_that_waits_says_for_what_and_has_no_artifact(flow: Workflow) -> None:
    outcome = run(flow, wait_for_labels)
    assert (outcome.state, outcome.reused, outcome.shards_made) == ("waiting", False, 0)
    assert outcome.waiting is not None
    assert outcome.waiting.what == "labels of 4 prompts"
    with pytest.raises(IncompleteError, match=r"waits for labels of 4 prompts .*go on: pvar label"):
        assert outcome.artifact
    with pytest.raises(IncompleteError, match="no manifest"):
        flow.artifact("sample")
    keys = flow.nodes["sample"].keys
    assert waiting_of(flow.store, keys) == outcome.waiting
    assert progress_of(flow.store, keys).state == "waits for labels of 4 prompts"


def test_no_lease_is_held_while_it_waits_and_another_worker_may_come_at_once(
    flow: Workflow,
) -> None:
    run(flow, wait_for_labels)
    assert len(leases(flow)) == 6  # each shard was tried
    assert all(lease.is_released for lease in leases(flow))
    lease = try_acquire(flow.store, flow.nodes["sample"].keys.lease(0))
    assert lease is not None
    lease.release()
    assert run(flow, wait_for_labels).state == "waiting"


def test_it_goes_on_when_it_may_and_the_record_of_its_waiting_is_gone(flow: Workflow) -> None:
    run(flow, wait_for_labels)
    outcome = flow.make("sample")
    assert (outcome.state, outcome.shards_made) == ("made", 6)
    assert outcome.artifact.manifest.row_counts.rows_out == 84
    assert "waiting.json" not in flow.objects("sample")
    assert flow.make("sample").state == "reused"


def test_shards_that_need_not_wait_are_made_and_kept(flow: Workflow) -> None:
    asked: list[int] = []

    def wait_in_the_second() -> None:
        asked.append(1)
        if len(asked) == 2:
            wait_for_labels()

    assert run(flow, wait_in_the_second).shards_made == 5
    assert flow.make("sample").shards_made == 1


def test_the_time_is_that_of_the_first_run_that_waited_for_this(flow: Workflow) -> None:
    first = run(flow, wait_for_labels).waiting
    assert run(flow, wait_for_labels).waiting == first

    def wait_for_a_person() -> None:
        raise Waiting("a person", "ask one")

    later = run(flow, wait_for_a_person).waiting
    assert first is not None
    assert later is not None
    assert later.what == "a person"
    assert later.since > first.since


@pytest.mark.parametrize("key", ["waiting.json", "manifest.json"])
def test_a_run_that_is_killed_around_its_wait_leaves_nothing_wrong(
    flow: Workflow, key: str
) -> None:
    keys = flow.nodes["sample"].keys
    if key == "manifest.json":
        run(flow, wait_for_labels)
    deadly = cast(Store, DeadlyStore(flow.store, f"{keys.root}/{key}"))
    with pytest.raises(Killed):
        run(flow, wait_for_labels if key == "waiting.json" else lambda: None, deadly)
    assert all(lease.is_released for lease in leases(flow))
    assert flow.make("sample").artifact.manifest.row_counts.rows_out == 84
    assert waiting_of(flow.store, keys) is None


def test_a_record_left_beside_a_complete_artifact_means_nothing(flow: Workflow) -> None:
    waiting = run(flow, wait_for_labels).waiting
    flow.make("sample")
    keys = flow.nodes["sample"].keys
    assert isinstance(waiting, WaitingRecord)
    flow.store.write(keys.waiting, waiting.to_json())  # by a worker that was slow to write it
    assert waiting_of(flow.store, keys) is None
    assert flow.make("sample").state == "reused"
    assert progress_of(flow.store, keys).state == "complete"


def test_inputs_made_again_take_the_record_with_them(flow: Workflow) -> None:
    run(flow, wait_for_labels)
    keys = flow.nodes["sample"].keys
    recipe = Recipe.model_validate_json(flow.store.read(keys.recipe))
    earlier = recipe.model_copy(update={"made_from": {"prompts": "other content"}})
    flow.store.write(keys.recipe, earlier.to_json())
    flow.make("sample")
    assert waiting_of(flow.store, keys) is None
