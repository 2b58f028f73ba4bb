"""A model that is retrained for a month, on Prefect's, MLflow's and Ceph's servers.

One story on a simulated clock, told by the test: a kill, an outage, a batch whose model a person
approves, one with wrong labels, a withdrawn pair, a rollback, and a retraining after all of it.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flows.arrival import announce
from flows.commands.approve import approve
from flows.commands.batches import reject
from flows.commands.forget import forget
from flows.commands.history import history
from flows.commands.lineage import lineage
from flows.commands.rollback import rollback
from flows.deployment_specs import packaged_folder
from flows.deployments import deploy
from flows.retraining import RetrainResult, retrain_once
from flows.run_record import RunRecord, load_run
from flows.version_results import by_curve, version_results
from flows.wiring import Wiring, connect
from pvar.config import PipelineConfig
from pvar.digest import prompt_id
from pvar.errors import TrackingError
from pvar.records import Message, Pair
from pvar.replay import ReplayConfig
from pvar.retrain_decision import RetrainConfig
from tasks.engine.artifact import open_artifact
from tasks.retraining.batch_states import VANISHED, RetrainingBatch, read_records
from tasks.stages.pair import PAIRS
from tests.integration.test_pipeline import QUESTIONS, tiny_settings
from tests.services.mlflow_server import MlflowServer
from tests.services.prefect_server import PrefectServer
from tests.services.processes import wait_until
from tests.services.s3 import S3Server
from tests.workflow import TOPICS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.service,
    # Raised inside libraries.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

MODEL = "month"
NUM_DAYS = 30
GOOD, BAD = "A wonderful, lovely stay.", "A horrible, awful stay."
"""VADER prefers the first."""


class Month(NamedTuple):
    """A team's servers and files, and the days of one month, which ends today."""

    first_day: datetime
    config: RetrainConfig
    wiring: Wiring

    def retrain_on(self, day: float, **gate: Any) -> RetrainResult:
        """What the schedule does on that day; `gate` are changes to `promote`."""
        config = self.with_gate(**gate) if gate else self.config
        return retrain_once(config, replace(self.wiring, clock=lambda: self.at(day)))

    def at(self, day: float) -> datetime:
        return self.first_day + timedelta(days=day)

    def with_gate(self, **changes: Any) -> RetrainConfig:
        pipeline = self.config.pipeline
        promote = pipeline.promote.model_copy(update=changes)
        update = {"pipeline": pipeline.model_copy(update={"promote": promote})}
        return self.config.model_copy(update=update)

    def arrive(self, name: str, rows: Iterable[object]) -> str:
        """A file is put into the incoming folder; its key."""
        key = f"incoming/{name}.jsonl"
        self.wiring.store.write(key, "".join(json.dumps(row) + "\n" for row in rows).encode())
        return key

    def records(self) -> list[RetrainingBatch]:
        return read_records(self.wiring.store)

    def states(self) -> list[str]:
        return [record.state(is_retraining=False) for record in self.records()]

    def champion(self) -> int | None:
        found = self.wiring.registry.champion(MODEL)
        return None if found is None else found.version

    def run_of(self, batch: int) -> RunRecord:
        done = self.records()[batch - 1].done
        assert done is not None
        return load_run(self.wiring.store, done.run)

    def pairs_of(self, batch: int) -> set[str]:
        """Ids of the prompts on whose pairs the model of a batch was trained."""
        root = root_of(self.run_of(batch), "pair")
        stage, _, digest = root.partition("/")
        pairs = open_artifact(self.wiring.store, stage, digest, self.wiring.settings.home)
        return {pair.prompt_id for pair in pairs.rows(PAIRS, Pair)}


def root_of(run: RunRecord, name: str) -> str:
    """The artifact of a node."""
    (root,) = (node.artifact for node in run.nodes if node.name == name)
    return root


@pytest.fixture
def mlflow_server(tmp_path: Path) -> MlflowServer:
    folder = tmp_path / "mlflow"
    folder.mkdir()
    return MlflowServer(folder)


@pytest.fixture
def month(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: PrefectServer,
    ceph_s3: S3Server,
    mlflow_server: MlflowServer,
) -> Month:
    for name, value in {
        **ceph_s3.environment(),
        "PVAR_HOME": str(tmp_path / "home"),
        "PVAR_STORE_URI": f"s3://{ceph_s3.new_bucket()}/artifacts",
        "PVAR_MLFLOW_TRACKING_URI": mlflow_server.address,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "PVAR_ACTOR": "ana",
    }.items():
        monkeypatch.setenv(name, value)
    tiny = tiny_settings(tmp_path, MODEL).model_dump()
    tiny |= {"policy": "champion", "policy_if_none": tiny["policy"]}
    tiny |= {"label_audit": {"champion": False, "max_judged": 0}}
    tiny["ingest"] |= {"source_field": "source"}
    tiny["evaluate"] |= {"opponent": "champion", "against_first": True}
    config = RetrainConfig(
        min_new_pairs=10,
        min_exam_prompts=1,
        replay=ReplayConfig(),
        pipeline=PipelineConfig.model_validate(tiny),
    )
    return Month(datetime.now(UTC) - timedelta(days=NUM_DAYS), config, connect())


def labelled(source: str, topics: Iterable[str], *, preferred: str = GOOD) -> list[dict[str, str]]:
    other = BAD if preferred == GOOD else GOOD
    return [
        {"prompt": f"{source}: {topic}", "chosen": preferred, "rejected": other, "source": source}
        for topic in topics
    ]


def killed_in_training(month: Month, day: float, server: PrefectServer, log: Path) -> None:
    """The schedule's process dies when its training is almost over."""
    arguments = [month.config.model_dump_json(), month.at(day).isoformat(), "train/*/manifest.json"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.retrain_process", *arguments],
            env={**os.environ, **server.environment()},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def has_trained() -> bool:
        assert process.poll() is None, log.read_text()
        keys = (info.key for info in month.wiring.store.list("train/"))
        return any(key.endswith(".safetensors") for key in keys)

    try:
        wait_until(has_trained, "the training")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_model_is_kept_for_a_month(
    month: Month,
    server: PrefectServer,
    mlflow_server: MlflowServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def printed() -> Any:
        return json.loads(capsys.readouterr().out)

    with mlflow_server.running():
        # The first file. The process that trains on it is killed; the next day's goes on.
        month.arrive("first", [*({"prompt": f"Describe {topic}."} for topic in TOPICS), *QUESTIONS])
        killed_in_training(month, 0, server, tmp_path / "killed.txt")
        assert (month.states(), month.champion()) == (["waiting_for_run"], None)
        (run,) = month.retrain_on(1).runs
        (record,) = month.records()
        assert [attempt.error for attempt in record.attempts] == [VANISHED, None]
        states = {node.name: node.state for node in load_run(month.wiring.store, run).nodes}
        assert (states["sample"], states["promote"]) == ("reused", "made")
        assert month.champion() == 1
        # Two rows are not enough before a week is over.
        month.arrive("few", labelled("ana", ["a pond", "a hill"]))
        assert month.retrain_on(3).runs == ()

    # Labels, while MLflow is down. It counts against nobody.
    month.arrive("labels", labelled("ana", TOPICS[:16]))
    with pytest.raises(TrackingError, match="MLflow at"):
        month.retrain_on(6)
    assert month.records()[1].attempts == ()
    assert "batch 2 is not run before" in month.retrain_on(6.001).postponed[0]

    with mlflow_server.running():
        # It is there again. This model waits for a person.
        (sentence,) = month.retrain_on(7, mode="approval").waiting
        assert sentence.startswith("batch 2 waits for approval of month version 2")
        assert month.retrain_on(8, mode="approval").waiting == (sentence,)
        assert (month.states()[1], month.champion()) == ("waiting_for_approval", 1)
        approve(MODEL, 2, note="read twenty answers")
        assert len(month.retrain_on(9, mode="approval").runs) == 1
        assert (month.states(), month.champion()) == (["done", "done"], 2)

        # Labels that are the wrong way round are held, and a person refuses them.
        month.arrive("poisoned", labelled("bob", TOPICS, preferred=BAD))
        (sentence,) = month.retrain_on(15).waiting
        assert "batch 3 waits for a person, because models disagree with its labels" in sentence
        assert "bob" in sentence
        reject(3, reason="the form had the answers the wrong way round")
        assert month.states() == ["done", "done", "set_aside"]

        # A person withdraws a prompt of the second batch, and the model that was trained on it.
        pairs = month.pairs_of(2)
        trained = [row for row in labelled("ana", TOPICS[:16]) if id_of(row) in pairs]
        (tmp_path / "ids.txt").write_text(f"{id_of(trained[0])}\n")
        forget(ids=tmp_path / "ids.txt", reason="asked for by its author")
        capsys.readouterr()
        lineage(withdrawn=True, as_json=True)
        assert [(each["version"], each["prompt_ids"]) for each in printed()] == [
            (f"models:/{MODEL}/2", [id_of(trained[0])])
        ]
        rollback(MODEL, reason="its data were withdrawn")
        assert month.champion() == 1

        # Today an event starts a retraining on a worker, from the champion that is back.
        deploy(packaged_folder(), ("process",), config=month.config)
        with server.worker("pvar-process"):
            announce(month.wiring.store, [month.arrive("last", labelled("cleo", TOPICS[16:]))])
            wait_until(lambda: month.states()[3:] == ["done"], "the fourth batch")
        assert month.champion() == 3
        replayed = {each.batch for each in month.records()[3].batch.replayed}
        assert replayed == {1, 2}
        pairs = month.pairs_of(4)
        assert pairs & {id_of(row) for row in trained}  # those that are no near-duplicates
        assert id_of(trained[0]) not in pairs
        runs = [month.run_of(batch) for batch in (1, 2, 4)]
        first = root_of(runs[0], "train")
        assert runs[2].config.policy == runs[1].config.policy == f"artifact:{first}#{first}"

        # All versions are measured on one exam, and against the first model.
        assert len({root_of(run, "exam") for run in runs}) == 1
        (curve,) = by_curve(version_results(month.wiring.registry.versions(MODEL)))
        assert [each.version for each in curve] == [1, 2, 3]
        assert all(each.against_first.win_rate is not None for each in curve)
        capsys.readouterr()
        history(MODEL, as_json=True)
        assert [(move["kind"], move["to_version"]) for move in printed()] == [
            ("promotion", 1),
            ("promotion", 2),
            ("rollback", 1),
            ("promotion", 3),
        ]
        assert month.retrain_on(NUM_DAYS + 1).reasons == ("no new data",)


def id_of(row: dict[str, str]) -> str:
    return prompt_id([Message("user", row["prompt"])])
