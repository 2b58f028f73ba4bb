"""Run one node of a pinned configuration: open its inputs, make its artifact, log it to MLflow."""

import errno
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from flows.wiring import Wiring
from infra.machine_facts import this_machine
from infra.step_log import StepLog
from infra.store.disk import cause
from infra.system_metrics import system_metrics
from pvar.artifacts import Summary
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, StoreError
from tasks.engine.artifact import open_artifact
from tasks.engine.node import Node
from tasks.engine.stage import Job, run_stage
from tasks.engine.stage_outcome import StageOutcome
from tasks.engine.work_folders import work_folder
from tasks.graph import plan_nodes

DISK_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR,
)  # fmt: skip
"""Errors that the user can fix. Other operating system errors keep their traceback."""


def find_node(config: PipelineConfig, name: str) -> Node:
    """The node of that name. Raises ConfigError with the known names if there is none."""
    nodes = plan_nodes(config)
    if name not in nodes:
        raise ConfigError(f"there is no node {name!r}; this configuration has {', '.join(nodes)}")
    return nodes[name]


def execute(
    config: PipelineConfig, name: str, wiring: Wiring, *, parent_run: str | None = None
) -> StageOutcome:
    """Complete a node's artifact in its own MLflow run.

    If the stage waits, its MLflow run is finished, with a tag that says what it waits for.
    """
    node = find_node(config, name)
    tracking = wiring.tracking
    run = tracking.start_run(
        name, {"pvar.stage": node.stage.name, "pvar.artifact": node.keys.root}, parent=parent_run
    )
    try:
        tracking.log_parameters(run, flatten(node.recipe.config))
        inputs = {input_name: keys.root for input_name, keys in node.inputs.items()}
        tracking.log_inputs(run, inputs, wiring.store.uri)
        with system_metrics(tracking, run) if node.stage.wants_gpu else nullcontext():
            outcome = _run(node, config, wiring, run)
        if outcome.shards_made:
            machine = this_machine()
            key = f"{node.keys.root}/{machine.key}"
            wiring.store.write(key, machine.model_dump_json(indent=1).encode())
        tracking.log_summary(run, _figures(outcome))
    except BaseException:  # stopped from outside, too
        tracking.end_failed_run(run)
        raise
    tracking.end_run(
        run, failed=False, waiting=outcome.waiting.sentence if outcome.waiting else None
    )
    return outcome


def _figures(outcome: StageOutcome) -> Summary:
    """The metrics of a stage in MLflow."""
    work: Summary = {"seconds": outcome.seconds, "shards_made": outcome.shards_made}
    if outcome.waiting is not None:
        return work
    manifest = outcome.artifact.manifest
    return {
        **manifest.summary,
        "rows_in": manifest.row_counts.rows_in,
        "rows_out": manifest.row_counts.rows_out,
        **{f"rejected_{rule}": n for rule, n in manifest.row_counts.rejected.items()},
        **work,
    }


def _run(node: Node, config: PipelineConfig, wiring: Wiring, run: str) -> StageOutcome:
    home = wiring.settings.home
    try:
        with work_folder(home, node.name) as scratch:
            return _run_in(scratch, node, config, wiring, run)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        why = cause(error, home, "move the folder with PVAR_HOME")
        raise StoreError(f"cannot use the work folder {home}: {why}") from error


def _run_in(
    scratch: Path, node: Node, config: PipelineConfig, wiring: Wiring, run: str
) -> StageOutcome:
    inputs = {
        name: open_artifact(wiring.store, keys.stage, keys.digest, scratch / "inputs")
        for name, keys in node.inputs.items()
    }
    steps = StepLog(wiring.tracking, run)
    job = Job(
        spec=node.spec,
        runtime=config.runtime,
        inputs=inputs,
        ports=wiring,
        keys=node.keys,
        scratch=scratch,
        log_step=steps.log,
    )
    try:
        return run_stage(node.stage, node.recipe, job)
    finally:
        steps.flush()


def flatten(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested mappings as `a.b.c` → value. Lists stay values."""
    flat: dict[str, object] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
