"""A pipeline in a container, and its every stage in one of its own, as a platform team runs it.

Nobody says where stages run: `deploy` places them where the pipeline itself is. Prefect's server
and MLflow keep their data in a real PostgreSQL, artifacts are in S3. Responses are made by the fake
engine, but a model is trained, and a reward model judges, inside containers.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun

from flows.deployment_specs import packaged_folder
from flows.deployments import deploy
from flows.run_record import load_run
from flows.wiring import connect
from pvar.config import PipelineConfig
from pvar.retrain_decision import RetrainConfig
from tests.services import postgres, prefect_server
from tests.services.docker import Engine
from tests.services.postgres import Postgres
from tests.services.prefect_events import repeat_last_event
from tests.services.prefect_server import PrefectServer
from tests.services.processes import require, wait_until
from tests.services.s3 import S3Server
from tests.unit.infra.tiny_models import save_classifier, save_language_model
from tests.workflow import fake_settings, write_prompts

PIPELINE_STAGES = {"ingest", "sample", "score", "select", "pair", "train", "evaluate", "promote"}
"""Those of a pipeline without benchmarks."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.service,
    # Raised inside libraries, on ways that this project does not choose.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Platform(NamedTuple):
    """Everything that runs, and where a pipeline finds its input."""

    server: PrefectServer
    engine: Engine
    bucket: str
    s3: S3Server
    infra: Path
    """What is deployed, with the tests' changes."""

    def deploy(self) -> None:
        """Register everything, as it is in `infra` now."""
        deploy(self.infra, ("docker",), config=RetrainConfig(pipeline=self.config()))

    def config(self) -> PipelineConfig:
        """A small pipeline; where its stages run is left open."""
        judge = {"kind": "classifier", "name": "tiny", "model": f"s3://{self.bucket}/judge"}
        tree = fake_settings(
            Path("unused"),
            **{
                "ingest.source": f"s3://{self.bucket}/prompts.jsonl",
                "policy": f"s3://{self.bucket}/policy",
                "train": {"pairs_per_step": 4, "precision": "float32"},
                "evaluate.judge": {"kind": "reward_model", "reward_model": judge},
                "evaluate.opponent": "champion",
                "promote": {"model_name": "contained", "min_win_rate": 0.0},
            },
        )
        return PipelineConfig.model_validate(tree)

    def start(self, *, eval_fraction: float = 0.4) -> FlowRun:
        """Start the deployed pipeline with the values that its form shows, but for this one."""
        with self.server.is_ours(), get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name("pipeline/pipeline")
            config = deployment.parameters["config"]
            config["ingest"]["eval_fraction"] = eval_fraction
            parameters = {"config": config}
            return client.create_flow_run_from_deployment(deployment.id, parameters=parameters)

    def ended(self, run: FlowRun) -> FlowRun:
        """The run, once it is over."""
        with self.server.is_ours(), get_client(sync_client=True) as client:

            def is_over() -> bool:
                state = client.read_flow_run(run.id).state
                return state is not None and state.is_final()

            wait_until(is_over, "the end of the pipeline")
            return client.read_flow_run(run.id)

    def newest_run(self, name: str) -> UUID:
        """The run of that name that was made last."""
        with self.server.is_ours(), get_client(sync_client=True) as client:
            runs = [run for run in client.read_flow_runs() if run.name == name]
        return max(runs, key=lambda run: str(run.created)).id

    def containers(self) -> dict[str, str]:
        """Run → container, of all that was started so far."""
        with self.server.is_ours(), get_client(sync_client=True) as client:
            runs = [run for run in client.read_flow_runs() if run.infrastructure_pid]
        assert len({run.name for run in runs}) == len(runs)
        return {run.name: (run.infrastructure_pid or "").rpartition(":")[2] for run in runs}


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    require("postgresql", postgres.PROGRAMS)
    with postgres.running() as server:
        yield server


@pytest.fixture(scope="module")
def platform(
    docker_images: Engine,
    database: Postgres,
    moto_s3: S3Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    bucket = moto_s3.new_bucket()
    _upload(moto_s3, bucket, "policy", save_language_model(folder / "policy", seed=1))
    _upload(moto_s3, bucket, "judge", save_classifier(folder / "judge", seed=2))
    _upload(moto_s3, bucket, "prompts.jsonl", write_prompts(folder / "prompts.jsonl"))
    settings = {
        **moto_s3.environment(),
        **docker_images.environment(),
        "PVAR_HOME": str(folder / "home"),
        "PVAR_STORE_URI": f"s3://{bucket}/artifacts",
        "PVAR_MLFLOW_TRACKING_URI": database.new_database("mlflow"),
    }
    with pytest.MonkeyPatch.context() as environment:
        for name, value in settings.items():
            environment.setenv(name, value)
        environment.setenv(
            "PREFECT_SERVER_DATABASE_CONNECTION_URL",
            database.new_database("prefect").replace("postgresql:", "postgresql+asyncpg:"),
        )
        with prefect_server.running(folder / "prefect") as server:
            infra = _adapted(folder / "infra")
            platform = Platform(server, docker_images, bucket, moto_s3, infra)
            with server.is_ours():
                platform.deploy()
            with server.worker("pvar-docker"):
                yield platform


def _adapted(folder: Path) -> Path:
    """The deployments, with sampling (by the fake engine here) in the smaller image, and containers
    that reach the services of this machine."""
    shutil.copytree(packaged_folder(), folder)
    project = folder / "prefect.yaml"
    own = (
        "  - {name: docker, entrypoint: flows.stages.sample, tags: [pvar],\n"
        '     work_pool: {name: pvar-docker, job_variables: {image: "pvar:cpu"}}}\n'
    )
    project.write_text(project.read_text() + own)
    template = folder / "work_pools" / "docker.json"
    pool = json.loads(template.read_text())
    pool["variables"]["properties"]["network_mode"]["default"] = "host"
    template.write_text(json.dumps(pool))
    return folder


def _upload(server: S3Server, bucket: str, key: str, path: Path) -> None:
    client = server.client()
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        name = key if path.is_file() else f"{key}/{file.relative_to(path)}"
        if file.is_file():
            client.upload_file(str(file), bucket, name)


def test_pipeline_and_stages_run_in_containers_of_their_own(
    platform: Platform, tmp_path: Path
) -> None:
    with _recorded_containers(platform.engine, tmp_path / "events.jsonl") as created:
        run = platform.ended(platform.start())
    assert run.state_name == "Completed", run.state and run.state.message
    record = _newest_record(platform)
    assert [node.state for node in record.nodes] == ["made"] * len(record.nodes)
    assert {node.artifact.partition("/")[0] for node in record.nodes} == PIPELINE_STAGES
    containers = platform.containers()
    checks = {name for name in containers if name.startswith("check ")}  # before the first stage
    assert containers.keys() - checks == {run.name, *(node.name for node in record.nodes)}
    assert len(set(containers.values())) == len(containers)
    images = {name: created[container] for name, container in containers.items()}
    assert images["train"] == images["score-vader"] == images["evaluate"] == "pvar:train"
    assert images["ingest"] == images["promote"] == images[run.name] == "pvar:cpu"
    assert {images[name] for name in checks} == {"pvar:cpu", "pvar:train"}


def test_no_credential_reached_prefect(platform: Platform) -> None:
    """The docker worker takes them from its own environment."""
    with platform.server.is_ours(), get_client(sync_client=True) as client:
        pool = client.read_work_pool("pvar-docker")
        told = [pool, *client.read_flow_runs(), *client.read_deployments()]
    text = " ".join(each.model_dump_json() for each in told)
    assert platform.s3.secret_key not in text


def test_a_killed_container_is_an_error_of_the_pipeline(platform: Platform) -> None:
    """Other prompts than before, so that there is something to do.

    Killed as it starts, but not before the worker could look: of that it says nothing, and the
    automation `start-lost` does. Its half an hour is shortened only now: nothing else may be lost.
    """
    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(_kill_next_ingest, platform.engine)
        started = platform.start(eval_fraction=0.25)
        killed.result()
    start_lost = platform.infra / "automations" / "start-lost.yaml"
    assert "within: 1800" in start_lost.read_text()
    start_lost.write_text(start_lost.read_text().replace("within: 1800", "within: 10"))
    with platform.server.is_ours():
        platform.deploy()
        repeat_last_event(platform.newest_run("ingest"))
    run = platform.ended(started)
    assert run.state is not None
    assert run.state.name == "Failed"
    assert "ingest on ingest/ingest-docker: run ingest is Crashed" in (run.state.message or "")


def _newest_record(platform: Platform) -> Any:
    wiring = connect()
    runs = [info.key for info in wiring.store.list("runs/") if info.key.endswith(".json")]
    return load_run(wiring.store, Path(max(runs)).stem)


@contextmanager
def _recorded_containers(engine: Engine, path: Path) -> Iterator[dict[str, str]]:
    """Container → image, of all that the engine makes meanwhile; filled when the body ends.

    Asked afterwards, the engine tells its last 256 events only, health checks among them.
    """
    command = ["docker", "--host", engine.host, "events", "--format", "{{json .}}"]
    only = ["--filter", "type=container", "--filter", "event=create"]
    created: dict[str, str] = {}
    with path.open("w") as file, subprocess.Popen([*command, *only], stdout=file) as events:
        try:
            yield created
        finally:
            events.terminate()
    for line in path.read_text().splitlines():
        actor = json.loads(line)["Actor"]
        created[actor["ID"]] = actor["Attributes"]["image"]


def _kill_next_ingest(engine: Engine) -> None:
    """As the kernel would, when memory runs out."""
    command = ["docker", "--host", engine.host, "events", "--format", "{{.ID}}"]
    only = ["--filter", "event=start", "--filter", "label=io.prefect.flow-run-name=ingest"]
    with subprocess.Popen([*command, *only], stdout=subprocess.PIPE, text=True) as events:
        assert events.stdout is not None
        container = events.stdout.readline().strip()
        events.kill()
    time.sleep(1)  # it imports for several
    engine.run("kill", container)
