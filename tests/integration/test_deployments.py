"""`pvar deploy` on a real Prefect server: what is registered, and that it stays the same."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import PrefectHTTPStatusError

from flows.deployment_specs import packaged_folder, read_project
from flows.deployments import Deployed, deploy
from infra.presets import load_config
from pvar.errors import ConfigError, UnavailableError
from pvar.retrain_decision import RetrainConfig
from tasks.graph import STAGES
from tests.services.prefect_server import PVAR, ROOT, PrefectServer
from tests.services.processes import wait_until

pytestmark = [
    pytest.mark.slow,
    # Raised inside Prefect.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def deploy_demo() -> Deployed:
    config = RetrainConfig(pipeline=load_config("demo"), min_new_pairs=7)
    return deploy(packaged_folder(), ("process", "docker"), config=config, preset="demo")


@pytest.fixture(scope="module")
def once_deployed(running_server: PrefectServer) -> Deployed:
    with running_server.is_ours():
        return deploy_demo()


@pytest.fixture
def deployed(once_deployed: Deployed, server: PrefectServer) -> Deployed:
    return once_deployed


def registered() -> dict[str, Any]:
    """Everything on the server that a deployment may change, without its times."""
    passing = {"created", "updated", "last_polled", "status", "created_by", "updated_by", "version"}
    no_id = {"schedules": {"__all__": {"id"}}}  # they are made anew

    def settled(each: Any) -> Any:
        if isinstance(each, dict):  # an absent key, null and [] mean the same here
            settling = {key: settled(value) for key, value in each.items() if key not in passing}
            return {key: value for key, value in settling.items() if value not in (None, [])}
        return [settled(item) for item in each] if isinstance(each, list) else each

    with get_client(sync_client=True) as client:
        found = {
            "pools": client.read_work_pools(),
            "deployments": client.read_deployments(),
            "automations": [
                *client.read_automations_by_name("pvar-preference-data-arrived"),
                *client.read_automations_by_name("pvar-heartbeat-lost"),
                *client.read_automations_by_name("pvar-start-lost"),
            ],
        }
    return {
        kind: sorted(
            (settled(each.model_dump(mode="json", exclude=no_id)) for each in several), key=str
        )
        for kind, several in found.items()
    }


def read(name: str) -> DeploymentResponse:
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name(name)


def runs_of(deployment: DeploymentResponse) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
        )


def test_each_stage_is_on_each_pool_and_the_rest_on_the_first(deployed: Deployed) -> None:
    assert deployed.pools == ("pvar-process", "pvar-docker")
    assert set(deployed.deployments) == {
        *("pipeline/pipeline", "retrain/retrain", "rounds/rounds", "compare/compare"),
        "benchmark/benchmark",
        *(f"{stage}/{stage}-{pool}" for stage in STAGES for pool in ("process", "docker")),
    }
    assert read("pipeline/pipeline").work_pool_name == "pvar-process"
    benchmark = read("benchmark/benchmark")
    assert benchmark.work_pool_name == "pvar-process"
    assert set(benchmark.tags) == {"pvar", "preset:demo", "model:pvar-demo"}
    assert read("sample/sample-docker").tags == ["pvar"]
    assert benchmark.parameters == {"config": load_config("demo").model_dump(mode="json")}
    assert read("sample/sample-docker").work_pool_name == "pvar-docker"
    assert read("sample/sample-docker").job_variables == {"image": "pvar:sample"}


def test_registering_again_changes_nothing_not_even_what_a_person_paused(
    deployed: Deployed,
) -> None:
    with get_client(sync_client=True) as client:
        client.pause_deployment(read("pipeline/pipeline").id)
        (schedule,) = read("retrain/retrain").schedules
        client.update_deployment_schedule(read("retrain/retrain").id, schedule.id, active=False)
        by_hand = WorkPoolUpdate(is_paused=True, concurrency_limit=2, description="ours")
        client.update_work_pool("pvar-process", by_hand)
        (automation,) = client.read_automations_by_name("pvar-heartbeat-lost")
        client.pause_automation(automation.id)
        before = registered()
        assert deploy_demo() == deployed
        assert registered() == before
        assert read("pipeline/pipeline").paused
        (schedule,) = read("retrain/retrain").schedules
        assert not schedule.active
        pool = client.read_work_pool("pvar-process")
        assert (pool.is_paused, pool.concurrency_limit, pool.description) == (True, 2, "ours")
        (automation,) = client.read_automations_by_name("pvar-heartbeat-lost")
        assert not automation.enabled
        client.resume_automation(automation.id)
        client.update_work_pool(
            "pvar-process", WorkPoolUpdate(is_paused=False, concurrency_limit=None)
        )
        client.resume_deployment(read("pipeline/pipeline").id)
        client.update_deployment_schedule(read("retrain/retrain").id, schedule.id, active=True)


def test_a_stages_deployment_of_an_earlier_release_is_replaced(deployed: Deployed) -> None:
    """It had the name of its pool alone."""
    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("ingest")
        stage = "flows.stages.ingest"
        old = client.create_deployment(flow, "process", entrypoint=stage, paused=True)
        busy = client.create_deployment(flow, "docker", entrypoint=stage)
        mine = client.create_deployment(flow, "kubernetes", entrypoint="mine.ingest")
        run = client.create_flow_run_from_deployment(busy)
        client.delete_deployment(read("ingest/ingest-process").id)
        deploy_demo()
        left = {each.id: each.name for each in client.read_deployments() if each.flow_id == flow}
        assert old not in left
        assert {left[busy], left[mine]} == {"docker", "kubernetes"}  # a run waits, and not ours
        assert read("ingest/ingest-process").paused
        client.resume_deployment(read("ingest/ingest-process").id)
        client.delete_flow_run(run.id)
        client.delete_deployment(mine)
        deploy_demo()
        assert "docker" not in {each.name for each in client.read_deployments()}


def test_the_schedule_makes_runs(deployed: Deployed) -> None:
    retrain = read("retrain/retrain")
    assert retrain.global_concurrency_limit is not None
    assert retrain.global_concurrency_limit.limit == 1

    def scheduled() -> list[FlowRun]:
        """Not those that other files started by an event: they share the server."""
        return [run for run in runs_of(retrain) if run.auto_scheduled]

    wait_until(lambda: bool(scheduled()), "a scheduled retraining")
    times = [run.expected_start_time for run in scheduled()]
    assert {(time.hour, time.minute) for time in times if time} == {(3, 17)}


def test_the_form_has_descriptions_defaults_and_bounds(deployed: Deployed) -> None:
    pipeline = read("pipeline/pipeline")
    assert pipeline.enforce_parameter_schema
    assert pipeline.parameters["config"] == load_config("demo").model_dump(mode="json")
    schema = pipeline.parameter_openapi_schema
    responses = schema["definitions"]["SampleConfig"]["properties"]["num_responses"]
    assert responses == {
        "default": 4,  # the deployment's: with the other tab open, the group begins with it
        "description": "Responses per prompt (K).",
        "maximum": 256,
        "minimum": 2,
        "title": "Num Responses",
        "type": "integer",
    }
    definitions = schema["definitions"]
    bare = [
        f"{model}.{field}"
        for model, part in definitions.items()
        for field, details in part["properties"].items()
        if "const" not in details and "description" not in referred(details, definitions)
    ]
    assert bare == []


def referred(details: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A group of fields is described where it is defined."""
    return definitions[details["$ref"].rpartition("/")[2]] if "$ref" in details else details


def test_every_stage_has_a_form_of_its_own(deployed: Deployed) -> None:
    for stage in STAGES:
        properties = read(f"{stage}/{stage}-process").parameter_openapi_schema["properties"]
        assert set(properties) == {"config", "node", "parent_run"}
        assert all(details.get("description") for details in properties.values())


def test_a_run_out_of_bounds_is_refused_by_the_server(deployed: Deployed) -> None:
    changed = {"config": {"sample": {"num_responses": 1}}}
    with (
        get_client(sync_client=True) as client,
        pytest.raises(PrefectHTTPStatusError, match=r"num_responses.*1 is less than the minimum"),
    ):
        client.create_flow_run_from_deployment(read("pipeline/pipeline").id, parameters=changed)


def test_the_command_says_what_was_registered(server: PrefectServer) -> None:
    done = subprocess.run(
        [PVAR, "deploy", "--preset", "demo", "--rule", "min_new_pairs=9"],
        env={**os.environ, **server.environment()},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "pools: pvar-process\n" in done.stdout
    assert "promote/promote-process" in done.stdout
    assert "give --notify" in done.stdout
    assert read("retrain/retrain").parameters["config"]["min_new_pairs"] == 9


def test_a_server_that_does_not_answer_is_named() -> None:
    with (
        PrefectServer("http://127.0.0.1:9/api", Path()).is_ours(),
        pytest.raises(UnavailableError, match=r"http://127\.0\.0\.1:9/api does not answer"),
    ):
        deploy(packaged_folder(), ("process",), config=RetrainConfig())


def test_a_notification_block_that_does_not_exist_is_named(server: PrefectServer) -> None:
    with pytest.raises(ConfigError, match="there is no block 'slack-webhook/nobody'"):
        deploy(
            packaged_folder(), ("process",), config=RetrainConfig(), notify="slack-webhook/nobody"
        )


def test_a_project_file_that_is_wrong_names_file_and_key(tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").write_text("name: mine\nstages: []\ndeployments: [{name: x}]\n")
    with pytest.raises(ConfigError, match=r"prefect\.yaml: deployments\.0\.entrypoint"):
        read_project(tmp_path)
