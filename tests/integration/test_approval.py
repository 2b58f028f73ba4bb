"""A promotion that waits for a person: pipeline, retraining, and a run that Prefect suspends."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterStateName,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow

from flows.commands.approve import approve
from flows.commands.show import show
from flows.commands.stage import stage
from flows.console import console
from flows.outcome import describe
from flows.pipeline import pipeline
from flows.retraining import retrain
from flows.run_record import RunRecord, load_run
from flows.wiring import Wiring, connect
from infra.tracking import WAITING_TAG
from pvar.config import PipelineConfig
from pvar.retrain_decision import RetrainConfig
from tasks.engine.artifact import open_artifact
from tasks.retraining.batch_states import read_records
from tasks.retraining.batches import attempts_of, read_batches
from tasks.stages.promote import PromotionRecord, read_decision
from tests.integration.test_pipeline import tiny_settings
from tests.services.prefect_server import PrefectServer

pytestmark = [
    pytest.mark.slow,
    # Raised inside libraries.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

WAITS = ["reused"] * 9 + ["waiting"]


@pytest.fixture(scope="module")
def home(running_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("home")
    with running_server.is_ours(), pytest.MonkeyPatch.context() as environment:
        environment.setenv("PVAR_HOME", str(folder))
        environment.setenv("PVAR_STORE_URI", str(folder / "store"))
        environment.setenv("PVAR_MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        environment.setenv("PVAR_ACTOR", "ana")
        yield folder


@pytest.fixture(scope="module")
def trained(home: Path) -> PipelineConfig:
    """A configuration of which all but the promotion is complete."""
    config = tiny_settings(home, "automatic")
    pipeline(config)
    return config


def asking(config: PipelineConfig, model_name: str, **gate: Any) -> PipelineConfig:
    """The same with a promotion of its own, which a person decides."""
    changes = {"model_name": model_name, "mode": "approval", **gate}
    return config.model_copy(update={"promote": config.promote.model_copy(update=changes)})


def run(config: PipelineConfig) -> RunRecord:
    return load_run(connect().store, pipeline(config))


def states(record: RunRecord) -> list[str]:
    return [node.state for node in record.nodes]


def champion(model_name: str) -> int | None:
    found = connect().registry.champion(model_name)
    return None if found is None else found.version


def decision(record: RunRecord, wiring: Wiring, folder: Path) -> PromotionRecord:
    name, _, digest = record.nodes[-1].artifact.partition("/")
    return read_decision(open_artifact(wiring.store, name, digest, folder))


def newest(flow: str, state: str) -> FlowRun:
    """The newest run of a flow that ended in a state of that name."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
            flow_run_filter=FlowRunFilter(
                state={"name": FlowRunFilterStateName(any_=[state])}  # type: ignore[arg-type]
            ),
        )
    return max(runs, key=lambda each: str(each.created))


def test_a_run_waits_says_so_everywhere_and_goes_on_after_the_decision(
    trained: PipelineConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, wiring = asking(trained, "asked"), connect()
    record = run(config)
    assert states(record) == WAITS
    assert record.finished_at is None
    waiting = record.nodes[-1].waiting
    assert waiting is not None
    assert waiting.what == "approval of asked version 1"
    assert champion("asked") is None

    client = wiring.tracking.client
    parent = client.get_run(record.mlflow_run)
    assert parent.info.status == "FINISHED"
    assert "waits for approval of asked version 1" in parent.data.tags[WAITING_TAG]
    assert "win_rate" in parent.data.metrics
    for flow in ("pipeline", "promote"):
        state = newest(flow, "Waiting").state
        assert state is not None
        assert state.is_completed()
        assert (state.message or "").startswith("Waits for approval of asked version 1 since")

    page = wiring.store.read(f"runs/{record.run}.html").decode()
    assert "Waiting</em> for approval of asked version 1: the new model wins" in page
    assert "To go on: pvar approve asked 1 --note TEXT" in page
    assert "The gate: passed, waiting for approval" in page
    assert '<span class="chip">waiting</span> for approval of asked version 1' in page
    capsys.readouterr()
    describe(record, wiring, console())
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last[0] == "promote waits for approval of asked version 1"
    assert last[1].startswith("to go on: pvar approve asked 1 --note TEXT")

    approve("asked", 1, note="read fifty answers")
    again = run(config)
    assert states(again) == ["reused"] * 9 + ["made"]
    assert again.nodes[-1].artifact == record.nodes[-1].artifact
    kept = decision(again, wiring, tmp_path)
    assert (kept.promoted, kept.version) == (True, 1)
    assert kept.decision is not None
    assert (kept.decision.by, kept.decision.note) == ("ana", "read fifty answers")
    assert champion("asked") == 1
    assert WAITING_TAG not in client.get_run(again.mlflow_run).data.tags
    page = wiring.store.read(f"runs/{again.run}.html").decode()
    assert "Approved by ana: read fifty answers." in page


def test_a_declined_version_completes_the_run_without_a_champion(
    trained: PipelineConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = asking(trained, "declined")
    assert states(run(config)) == WAITS
    approve("declined", 1, note="too long", decline=True)
    record, wiring = run(config), connect()
    assert states(record) == ["reused"] * 9 + ["made"]
    assert not decision(record, wiring, tmp_path).promoted
    assert champion("declined") is None
    capsys.readouterr()
    describe(record, wiring, console())
    line = "declined version 1 is registered, not promoted, declined by ana: too long"
    assert line in capsys.readouterr().out


def test_a_stage_by_itself_and_the_plan_say_what_is_waited_for(
    trained: PipelineConfig, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = home / "preset.json"
    preset.write_text(asking(trained, "plan").model_dump_json())
    stage("promote", preset=str(preset))
    assert "waits for approval of plan version 1 since" in capsys.readouterr().out
    show(preset=str(preset))
    out = capsys.readouterr().out
    assert "promote waits for approval of plan version 1; to go on: pvar approve plan 1" in out


def test_a_gate_that_failed_asks_nobody(trained: PipelineConfig) -> None:
    assert states(run(asking(trained, "failed", min_win_rate=0.999))) == ["reused"] * 9 + ["made"]


def test_a_batch_that_waits_is_not_run_again_until_it_is_decided(trained: PipelineConfig) -> None:
    wiring = connect()
    store = wiring.store
    rows = [{"prompt": f"Describe {number} boats in a harbour."} for number in range(300, 324)]
    for row in rows[::2]:  # half of them come with labels
        row |= {"chosen": f"A lovely sight! {row['prompt']}", "rejected": "No."}
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    store.write("incoming/monday.jsonl", lines.encode())
    gate = asking(trained, "batches", max_ability_loss=None, min_win_rate=0.0)
    config = RetrainConfig(min_new_pairs=1, pipeline=gate)
    first = retrain(config)
    assert (first.runs, first.batch) == ((), 1)
    (sentence,) = first.waiting
    assert sentence.startswith("batch 1 waits for approval of batches version 1 since")
    (batch,) = read_batches(store)
    assert (batch.num_pairs, batch.num_labelled) == (24, 12)
    assert attempts_of(store, batch) == []
    num_runs = len(list(store.list("runs/")))

    second = retrain(config)  # the next look
    assert (second.runs, second.batch, second.waiting) == ((), None, first.waiting)
    assert len(list(store.list("runs/"))) == num_runs
    (record,) = read_records(store)
    assert record.state(is_retraining=False) == "waiting_for_approval"

    approve("batches", 1, note="fine")
    third = retrain(config)
    (finished,) = third.runs
    assert third.waiting == ()
    assert states(load_run(store, finished)) == ["reused"] * 9 + ["made"]
    (record,) = read_records(store)
    assert record.state(is_retraining=False) == "done"
    (root,) = (n.artifact for n in load_run(store, finished).nodes if n.name == "pair")
    pairs = open_artifact(store, *root.split("/"), wiring.settings.home).manifest.summary
    assert 0 < int(pairs["num_labelled"] or 0) < int(pairs["num_pairs"] or 0)
    assert retrain(config).runs == ()


def start(config: PipelineConfig) -> UUID:
    """A run of the pipeline's deployment, as the UI makes one."""
    with get_client(sync_client=True) as client:
        flow = client.create_flow(pipeline)
        deployment = client.create_deployment(flow_id=flow, name="pipeline")
        parameters = {"config": config.model_dump(mode="json"), "preset": None}
        return client.create_flow_run_from_deployment(deployment, parameters=parameters).id


def work_on(run: UUID) -> State[Any]:
    """What a worker's process does with a run that is due."""
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(run)
    with suppress(Pause):  # the process ends so
        run_flow(pipeline, flow_run=flow_run, parameters=flow_run.parameters)
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
    assert state is not None
    return state


def answer(run: UUID, **form: str) -> str:
    """What the UI sends when the form is submitted; what the server says."""
    with get_client(sync_client=True) as client:
        return str(client.resume_flow_run(run, run_input=form).status.name)


@pytest.mark.parametrize("choice", ["approve", "decline"])
def test_a_run_of_a_deployment_is_suspended_and_goes_on_with_the_answer(
    trained: PipelineConfig, choice: str, tmp_path: Path
) -> None:
    name, wiring = f"form-{choice}", connect()
    flow_run = start(asking(trained, name))
    assert work_on(flow_run).name == "Suspended"
    record = load_run(wiring.store, "latest")
    assert states(record) == WAITS
    assert record.flow_run == str(flow_run)
    assert champion(name) is None
    assert answer(flow_run, approver="Bo", decision=choice, note="read fifty answers") == "ACCEPT"
    assert work_on(flow_run).name == "Completed"
    after = load_run(wiring.store, "latest")
    assert (after.run, states(after)) == (record.run, ["reused"] * 9 + ["made"])
    assert after.finished_at is not None
    kept = decision(after, wiring, tmp_path)
    assert kept.promoted is (choice == "approve")
    assert kept.decision is not None
    assert (kept.decision.by, kept.decision.note) == ("Bo", "read fifty answers")
    assert champion(name) == (1 if choice == "approve" else None)
    parent = wiring.tracking.client.get_run(record.mlflow_run)
    assert parent.info.status == "FINISHED"
    assert WAITING_TAG not in parent.data.tags


def test_a_form_that_comes_after_a_decision_by_command_changes_nothing(
    trained: PipelineConfig, tmp_path: Path
) -> None:
    flow_run = start(asking(trained, "late"))
    assert work_on(flow_run).name == "Suspended"
    approve("late", 1, note="too long", decline=True)
    assert answer(flow_run, approver="Bo", decision="approve", note="I like it") == "ACCEPT"
    assert work_on(flow_run).name == "Completed"
    wiring = connect()
    kept = decision(load_run(wiring.store, "latest"), wiring, tmp_path).decision
    assert kept is not None
    assert kept.sentence == "declined by ana: too long"
    assert champion("late") is None


def test_a_form_that_is_not_filled_in_is_sent_back(trained: PipelineConfig) -> None:
    flow_run = start(asking(trained, "forms"))
    assert work_on(flow_run).is_paused()
    for form in (
        {"approver": "Bo", "decision": "approve"},
        {"approver": "", "decision": "approve", "note": "fine"},
        {"approver": "Bo", "decision": "perhaps", "note": "fine"},
    ):
        assert answer(flow_run, **form) == "REJECT"
    assert champion("forms") is None
    assert answer(flow_run, approver="Bo", decision="decline", note="too long") == "ACCEPT"
