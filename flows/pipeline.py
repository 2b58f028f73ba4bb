"""The pipeline: from prompts to a registered model that passed or failed the gate.

Before the first node, everything that any of them needs is checked (`flows/preflight.py`). Nodes
run one after the other. Each runs as the flow of its stage, in this process or on the pool
where the stage is placed. Complete artifacts are reused. The run record in the store and MLflow's
parent run are updated during the work, so that a failed run can be inspected and reported. The same
command resumes it.

A node that waits ends the run, which has then neither succeeded nor failed. Record, report, MLflow
and Prefect show what it waits for, and the same command resumes the work. If Prefect can suspend
the run (`flows/approval.py`), it does, and the same run continues later.
"""

import logging
import secrets
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, tags
from prefect.exceptions import Pause

from flows.announcement import announce_stage
from flows.approval import ask_for_approval, suspendable_run
from flows.execution import flatten
from flows.placed_stages import is_complete, run_placed
from flows.preflight import check_before_start, pin_or_report
from flows.run_names import describe_run, run_label, tags_of
from flows.run_page import publish_run
from flows.run_progress import ProgressBar
from flows.run_record import INTERRUPTED, NodeRecord, RunRecord, save_run, suspended_run
from flows.run_report import write_report
from flows.stages import stage_flow
from flows.waiting_state import shown_as_waiting
from flows.wiring import Wiring, connect
from infra.tracking import DataInput
from pvar.artifacts import WaitingRecord
from pvar.config import PipelineConfig
from pvar.errors import ConfigError
from pvar.evaluation.ability import fits
from pvar.placement import INLINE
from pvar.references import Pinned, file_name_of, find_references
from pvar.stand_ins import stand_ins
from tasks.engine.artifact import Artifact, open_artifact
from tasks.engine.node import Node
from tasks.engine.progress_log import ProgressLog
from tasks.engine.stage_outcome import StageState
from tasks.exam_nodes import DIVERGENCE_FIRST_NODE, FIRST_NODE, exam_node
from tasks.graph import plan_nodes
from tasks.stages.adopt import ADOPT
from tasks.stages.audit import AUDIT
from tasks.stages.benchmark import BENCHMARK
from tasks.stages.divergence import DIVERGENCE
from tasks.stages.evaluate import EVALUATE, held_out
from tasks.stages.promote import PROMOTE

logger = logging.getLogger(__name__)

_HEADLINES = (
    AUDIT.name, DIVERGENCE.name, EVALUATE.name, BENCHMARK.name, ADOPT.name, PROMOTE.name,
)  # fmt: skip
"""Stages whose figures are also metrics of the parent run."""

FIRST, OF_FIRST = "first", (FIRST_NODE, DIVERGENCE_FIRST_NODE)
"""Prefix of the figures of the comparison with the first model, as of the tags of the version."""


@flow(
    name="pipeline",
    description="Retrain a language model on the prompts with the highest preference variance.",
    persist_result=False,
)
def pipeline(config: PipelineConfig, preset: str | None = None) -> str:
    """Run every stage and return the run's id. The report is in the store and in MLflow.

    Args:
        config: The configuration of the run.
        preset: Name of the preset, shown in the report and in MLflow.
    """
    with ProgressLog("pipeline", "resolving models and data, connecting to MLflow"):
        wiring = connect()
        record = _suspended(wiring)
        if record is None:
            pinned = pin_or_report(config, wiring)
            check_before_start(pinned, wiring)
            record = _begin(pinned, preset, wiring)
    with tags(*tags_of(record.config, record.preset)):
        return _run_nodes(record, wiring)


def _run_nodes(record: RunRecord, wiring: Wiring) -> str:
    """Run every node and close the run; its id."""
    pinned, bar = record.config, ProgressBar()
    nodes = plan_nodes(pinned)
    for number, node in enumerate(nodes.values(), start=1):
        heading = f"stage {number} of {len(nodes)}: {node.name}"
        announce_stage(heading)
        bar.show(number - 1, len(nodes), heading)
        try:
            entry = _make(node, record, wiring)
            if node.name == exam_node(nodes):
                _refuse_gate_without_questions(node, pinned, wiring)
        except Pause:  # the run is suspended
            raise
        except BaseException as error:  # stopped from outside, too
            _end_failed(record.with_node(_failed(node, error)), wiring)
            raise
        record = record.with_node(entry)
        if entry.waiting is not None:
            _end(record, wiring, failed=False)
            return shown_as_waiting(record.run, entry.waiting)
        save_run(wiring.store, record)
    bar.show(len(nodes), len(nodes), f"{len(nodes)} stages are complete")
    _end(record, wiring, failed=False)
    return record.run


def _suspended(wiring: Wiring) -> RunRecord | None:
    """The record of this run, if it was suspended and is now restarted."""
    run = suspendable_run()
    if run is None:
        return None
    since = run.created or datetime.now(UTC)
    return suspended_run(wiring.store, str(run.id), since)


def _make(node: Node, record: RunRecord, wiring: Wiring) -> NodeRecord:
    """Complete a node's artifact. Asks for a person's decision if the run can be suspended."""
    waits = record.waiting_node
    if waits is None or waits.name != node.name:  # else the run was suspended at this node
        entry = run_node(node, record.config, wiring, record.mlflow_run)
        if entry.waiting is None or node.stage.name != PROMOTE.name or suspendable_run() is None:
            return entry
        _end(record.with_node(entry), wiring, failed=False)
    ask_for_approval(record.config, wiring)
    wiring.tracking.reopen_run(record.mlflow_run)
    return run_node(node, record.config, wiring, record.mlflow_run)


def _begin(config: PipelineConfig, preset: str | None, wiring: Wiring) -> RunRecord:
    nodes, suspendable = plan_nodes(config), suspendable_run()
    started_at = datetime.now(UTC)
    run = f"{started_at:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    tracking = wiring.tracking
    mlflow_run = tracking.start_run(run, {"pvar.run": run, "pvar.preset": preset or ""})
    tracking.log_parameters(mlflow_run, flatten(config.model_dump(mode="json")))
    tracking.log_datasets(mlflow_run, _data_of(config))
    record = RunRecord(
        run=run,
        started_at=started_at,
        preset=preset,
        config=config,
        mlflow_run=mlflow_run,
        mlflow_experiment=tracking.experiment,
        flow_run=None if suspendable is None else str(suspendable.id),
        nodes=tuple(NodeRecord(name=node.name, artifact=node.keys.root) for node in nodes.values()),
    )
    save_run(wiring.store, record)
    for clause in stand_ins(config):
        logger.warning("%s", clause)
    describe_run(f"{run_label(config, preset)} {run}", tags_of(config, preset))
    logger.info("run %s: %d nodes, store %s", run, len(nodes), wiring.store.uri)
    return record


def _data_of(config: PipelineConfig) -> list[DataInput]:
    """The data that a pinned configuration names."""
    found = [each for each in find_references(config) if each.kind == "data"]
    return [
        DataInput(
            file_name_of(each.text),
            Pinned.parse(each.text).digest.rpartition("@")[2],  # of a Hub's data set: the commit
            Pinned.parse(each.text).location,
            each.path,
        )
        for each in found
    ]


def _refuse_gate_without_questions(exam: Node, config: PipelineConfig, wiring: Wiring) -> None:
    """Raise ConfigError if the gate checks ability but the exam has no ability questions.

    Otherwise the run would fail only in its last stage.
    """
    key, bound = "promote.max_ability_loss", config.promote.max_ability_loss
    if bound is None:
        key, bound = "promote.max_total_ability_loss", config.promote.max_total_ability_loss
    if bound is None or config.promote.mode == "never":
        return
    artifact = open_artifact(wiring.store, exam.keys.stage, exam.keys.digest, wiring.settings.home)
    source = ", ".join(config.evaluate.prompts) or config.ingest.source
    if not artifact.manifest.summary["num_ability_questions"]:
        rejected = ", ".join(
            f"{count} {rule}"
            for rule, count in artifact.manifest.row_counts.rejected.items()
            if rule.startswith("accepted_answer_")
        )
        unusable = f" that can be used (rejected: {rejected})" if rejected else ""
        raise ConfigError(
            f"{key} is {bound:g}, but {source} has no rows with an `answer`{unusable} to measure "
            f"ability; add rows with the final answer alone in `answer`, or set {key}=null"
        )
    if unanswerable := _unanswerable(artifact, config, source):
        raise ConfigError(f"{key} is {bound:g}, but {unanswerable}, or set {key}=null")


def _unanswerable(exam: Artifact, config: PipelineConfig, source: str) -> str:
    """Why no ability question can be answered correctly; empty if one can. If some cannot, the log
    says so."""
    questions = [each for each in held_out(exam) if each.is_question]
    max_tokens = config.evaluate.answers.max_new_tokens
    num_too_long = sum(not fits(each.accepted_answers, max_tokens) for each in questions)
    if not num_too_long:
        return ""
    says = (
        f"{num_too_long} of {len(questions)} ability questions of {source} cannot be answered "
        "correctly: each accepted answer has more words than evaluate.answers.max_new_tokens "
        f"({max_tokens}) allows; give the final answer alone in `answer`, or raise it"
    )
    if num_too_long == len(questions):
        return says
    logger.warning("%s", says)
    return ""


def run_node(node: Node, config: PipelineConfig, wiring: Wiring, mlflow_run: str) -> NodeRecord:
    """Complete a node's artifact on the pool of its stage, or reuse it if it is complete.

    The stage can also end in the state `waiting`.
    """
    if config.runtime.placement.of(node.stage.name).pool != INLINE:
        began = time.monotonic()
        if not is_complete(node, wiring):
            waiting = run_placed(node, config, wiring, parent_run=mlflow_run)
            return _entry(node, "waiting" if waiting else "made", time.monotonic() - began, waiting)
    (result,) = stage_flow(node.stage.name)(config=config, node=node.name, parent_run=mlflow_run)
    return _entry(node, result.state, result.seconds, result.waiting)


def _entry(
    node: Node, state: StageState, seconds: float, waiting: WaitingRecord | None
) -> NodeRecord:
    return NodeRecord(
        name=node.name, artifact=node.keys.root, state=state, seconds=seconds, waiting=waiting
    )


def _failed(node: Node, error: BaseException) -> NodeRecord:
    is_interrupt = isinstance(error, KeyboardInterrupt)
    return NodeRecord(
        name=node.name,
        artifact=node.keys.root,
        state="failed",
        error=INTERRUPTED if is_interrupt else str(error) or type(error).__name__,
    )


def _end_failed(record: RunRecord, wiring: Wiring) -> None:
    """Close a failed run as far as possible: the cause of its failure may prevent that, too."""
    try:
        _end(record, wiring, failed=True)
    except Exception as error:  # noqa: BLE001  the first error is shown
        logger.warning("run %s: could not record its end completely: %s", record.run, error)


def _end(record: RunRecord, wiring: Wiring, *, failed: bool) -> None:
    """Close the run, with a report of its complete artifacts."""
    waits = record.waiting_node
    finished_at = None if waits else datetime.now(UTC)
    record = record.model_copy(update={"finished_at": finished_at})
    save_run(wiring.store, record)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.html"
        shown = write_report(record, wiring, report)
        wiring.store.upload(report, f"runs/{record.run}.html")
        wiring.tracking.log_file(record.mlflow_run, report)
    for node in record.nodes:
        stage, _, digest = node.artifact.partition("/")
        if stage in _HEADLINES and node.state in ("made", "reused"):
            _log_headline(record.mlflow_run, node.name, stage, digest, wiring)
    waiting = waits.waiting if waits else None
    wiring.tracking.end_run(
        record.mlflow_run, failed=failed, waiting=waiting.sentence if waiting else None
    )
    publish_run(record, shown, wiring)


def _log_headline(run: str, node: str, stage: str, digest: str, wiring: Wiring) -> None:
    """Log a node's summary to the parent run, too, so that runs can be compared."""
    artifact = open_artifact(wiring.store, stage, digest, wiring.settings.home)
    summary = artifact.manifest.summary
    apart = (ADOPT.name, AUDIT.name, BENCHMARK.name, DIVERGENCE.name)  # from evaluate's figures
    if stage in apart or node == FIRST_NODE:
        name = FIRST if node in OF_FIRST else node.removeprefix(f"{BENCHMARK.name}-")
        summary = {f"{name}.{figure}": value for figure, value in summary.items()}
    wiring.tracking.log_summary(run, summary)
