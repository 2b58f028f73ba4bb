"""One stage by three runs at once, on a real Prefect server and worker; one is killed half-way."""

import contextvars
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowFilter,
    FlowFilterName,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun

from flows.deployment_specs import packaged_folder
from flows.deployments import deploy
from flows.placed_checks import problems_elsewhere
from flows.placed_stages import run_placed
from pvar.records import Prompt
from pvar.retrain_decision import RetrainConfig
from tasks.engine.lease import LeaseRecord, try_acquire
from tasks.graph import plan_nodes
from tests.services.prefect_server import PrefectServer
from tests.services.processes import wait_until
from tests.services.registry import empty_database
from tests.workflow import TOPICS, Workflow, start_workflow, write_prompts

pytestmark = [
    pytest.mark.slow,
    # Raised inside Prefect and MLflow.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

WORKERS = 3


@pytest.fixture
def workflow(tmp_path: Path, server: PrefectServer) -> Iterator[Workflow]:
    """A stage of some hundred shards, placed on a pool with a worker."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(empty_database(), home / "mlflow.db")
    texts = [f"{topic}, take {take}" for take in range(12) for topic in TOPICS]
    source = write_prompts(tmp_path / "many.jsonl", texts)
    started = start_workflow(
        home,
        ingest={"source": str(source), "eval_fraction": 0.01, "near_duplicate_similarity": None},
        runtime={
            "sampled_responses_per_shard": 1,
            "lease_seconds": 60,
            "placement": {"sample": {"pool": "process", "workers": WORKERS}},
        },
    )
    started.make("ingest")
    deploy(packaged_folder(), ("process",), config=RetrainConfig())
    tracking = f"sqlite:///{home}/mlflow.db"  # MLflow put this process's own into the environment
    with server.worker("pvar-process", PVAR_HOME=str(home), PVAR_MLFLOW_TRACKING_URI=tracking):
        yield started


def runs() -> list[FlowRun]:
    """The runs of `sample/sample-process`."""
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["sample"])),
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=["sample-process"])),
        )


def makers(flow: Workflow) -> dict[int, int]:
    """Shard → process that claimed it first, after this one had let it go."""
    root = flow.nodes["sample"].keys.root
    claims = {}
    for info in flow.store.list(f"{root}/leases/"):
        _, _, _, shard, epoch = info.key.split("/")
        if epoch == "000002.json":
            record = LeaseRecord.model_validate_json(flow.store.read(info.key))
            claims[int(shard)] = record.holder.pid
    return claims


def shards_made(run: UUID) -> Counter[int]:
    """What a run logged of the shards that it recorded."""
    by_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    messages: list[str] = []
    with get_client(sync_client=True) as client:
        while page := client.read_logs(by_run, limit=200, offset=len(messages)):
            messages += [log.message for log in page]
    found = (re.search(r": shard (\d+) of rows", message) for message in messages)
    return Counter(int(match[1]) for match in found if match)


def test_three_workers_share_a_stage_and_survive_the_loss_of_one(
    workflow: Workflow, caplog: pytest.LogCaptureFixture
) -> None:
    node, store = workflow.nodes["sample"], workflow.store
    prompts = workflow.artifact("ingest").rows("prompts.parquet", Prompt)
    num_shards = sum(prompt.split == "train" for prompt in prompts)
    # Nobody can begin before all three are there.
    held = [
        try_acquire(store, node.keys.lease(shard), ttl_seconds=3600) for shard in range(num_shards)
    ]

    def number_of_workers() -> int:
        tracking = workflow.wiring.tracking
        return len(tracking.client.search_runs([tracking.experiment]))

    def loads() -> Counter[int]:
        return Counter(makers(workflow).values())

    with ThreadPoolExecutor(1) as pool:
        parent = pool.submit(
            contextvars.copy_context().run,
            lambda: run_placed(node, workflow.config, workflow.wiring, parent_run=None),
        )
        wait_until(lambda: number_of_workers() == WORKERS, "three workers", pause_seconds=1)
        *first, last = [lease for lease in held if lease is not None]
        for lease in first:
            lease.release()
        wait_until(lambda: len(loads()) == WORKERS and min(loads().values()) >= 3, "work of each")
        at_work = makers(workflow)
        killed = at_work[max(at_work)]
        os.kill(killed, signal.SIGKILL)
        last.release()  # without which no worker could end before the kill
        parent.result()

    manifest = workflow.artifact("sample").manifest
    assert [shard.index for shard in manifest.shards] == list(range(num_shards))
    claims = makers(workflow)
    # The parent gives the survivors a minute to tidy up, which may be too short on a slow machine.
    wait_until(lambda: all(run.state and run.state.is_final() for run in runs()), "their ends")
    states = {run.id: run.state.name if run.state else None for run in runs()}
    assert sorted(str(state) for state in states.values()) == ["Completed", "Completed", "Crashed"]
    made: Counter[int] = Counter()

    def all_is_told() -> bool:
        """A run's last logs may come after its end."""
        made.clear()
        for run, state in states.items():
            made.update(shards_made(run) if state == "Completed" else ())
        return all(claims[shard] == killed for shard in claims.keys() - made.keys())

    wait_until(all_is_told, "the survivors' logs of every shard that they claimed")
    assert set(made.values()) == {1}
    made_again = [shard for shard in made if claims[shard] == killed]
    assert len(made_again) <= 1
    assert "sample was completed without some workers" in caplog.text
    a_check_of_the_worker_says_what_it_lacks(workflow)  # here, because a worker is slow to start


def a_check_of_the_worker_says_what_it_lacks(workflow: Workflow) -> None:
    """The same worker, asked before a run begins. It has no address of a policy's server."""
    with_server = workflow.config.sample.model_copy(update={"engine": "openai"})
    config = workflow.config.model_copy(update={"sample": with_server})
    (problem,) = problems_elsewhere(config, [plan_nodes(config)["sample"]], workflow.wiring)
    assert problem.key == "pool process (sample)"
    assert str(problem.error).startswith(
        "MissingError: sample.engine: OpenAI's server needs a key;"
    )
    assert not list(workflow.store.list("checks/"))
