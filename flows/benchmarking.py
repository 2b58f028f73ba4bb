"""Benchmarks without training: any models answer, a judge judges, one table.

The artifacts are those of the pipeline: a model that took a benchmark in a run is not asked again.
Their record in the store and the table are in `flows/benchmark_table.py`.
"""

import logging
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.benchmark_table import (
    FOLDER,
    BenchmarkNode,
    BenchmarkRecord,
    BenchmarkRow,
    BenchmarkTable,
    benchmark_markdown,
    benchmark_rows,
    nodes_of_models,
)
from flows.pinning import pin
from flows.pipeline import run_node
from flows.preflight import refuse_unmakeable_here
from flows.wiring import Wiring, connect
from pvar.artifacts import Summary
from pvar.benchmark_takers import with_models
from pvar.config import PipelineConfig
from tasks.engine.node import Node

logger = logging.getLogger(__name__)


@flow(
    name="benchmark",
    description="Answer and judge the benchmarks by models, without training.",
    persist_result=False,
)
def benchmark(
    config: PipelineConfig, models: list[str] | None = None, benchmarks: list[str] | None = None
) -> BenchmarkTable:
    """Run the benchmarks of the configuration for these models.

    Args:
        config: The configuration. Its `benchmarks` are run; nothing is trained.
        models: Model references, or `outputs:FILE` for answers that were made elsewhere. Empty
            means `champion` (the starting policy if no model is promoted), or the configuration's
            `benchmark_models` if it has any.
        benchmarks: Names of the benchmarks to run. Empty means all.
    """
    wiring = connect()
    pinned = pin(with_models(config, models or [], benchmarks or []), wiring)
    nodes = nodes_of_models(pinned)
    refuse_unmakeable_here(pinned, nodes, wiring)
    record = _begin(pinned, nodes, wiring)
    mlflow_run = wiring.tracking.start_run(record.run, {"pvar.run": record.run})
    try:
        for node in nodes:
            run_node(node, pinned, wiring, mlflow_run)
        rows = benchmark_rows(pinned, wiring)
        for row in rows:
            wiring.tracking.log_summary(mlflow_run, _figures(row))
        create_markdown_artifact(benchmark_markdown(rows), key="benchmark", description=record.run)
    except BaseException:  # stopped from outside, too
        wiring.tracking.end_failed_run(mlflow_run)
        raise
    wiring.tracking.end_run(mlflow_run, failed=False)
    return BenchmarkTable(run=record.run, rows=tuple(rows))


def _begin(config: PipelineConfig, nodes: Sequence[Node], wiring: Wiring) -> BenchmarkRecord:
    now = datetime.now(UTC)
    record = BenchmarkRecord(
        run=f"benchmark-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        started_at=now,
        config=config,
        nodes=tuple(BenchmarkNode(name=node.name, artifact=node.keys.root) for node in nodes),
    )
    wiring.store.write(
        f"{FOLDER}/{record.run}.json", record.model_dump_json(indent=1).encode() + b"\n"
    )
    return record


def _figures(row: BenchmarkRow) -> Summary:
    """The metrics of one row in MLflow, named as those of a run."""
    score = row.score
    figures = {
        "score": score.score,
        "length_controlled_win_rate": score.length_controlled_win_rate,
        "style_controlled_score": score.style_controlled_score,
        "lower": score.clustered_ci_lower,
        "upper": score.clustered_ci_upper,
        "mean_length_characters": score.mean_length_characters,
        "coverage": score.coverage,
    }
    return {f"{row.benchmark}.{row.score.role}_{name}": each for name, each in figures.items()}
