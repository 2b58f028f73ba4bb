"""Benchmarks without training: any models answer, a judge judges, one table.

The artifacts are those of the pipeline: a model that took a benchmark in a run is not asked again.
`benchmarks/RUN.json` in the store names them, so that `pvar gc` keeps them.
"""

import logging
import secrets
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict

from flows.pinning import pin
from flows.pipeline import run_node
from flows.wiring import Wiring, connect
from pvar.artifacts import Summary
from pvar.benchmark_config import JudgedBenchmark
from pvar.benchmark_takers import with_models
from pvar.config import PipelineConfig
from pvar.errors import ConfigError
from pvar.evaluation.benchmark_scores import BenchmarkScore
from tasks.benchmark_nodes import judge_of, score_name
from tasks.engine.artifact import Artifact, open_artifact
from tasks.engine.node import Node
from tasks.graph import plan_nodes
from tasks.stages.benchmark import EXPORTED, RESULTS
from tasks.stages.judge import read_cost
from tasks.stages.train import TRAIN

logger = logging.getLogger(__name__)


class BenchmarkNode(BaseModel):
    """An artifact of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    artifact: str
    """`stage/digest`."""


class BenchmarkRecord(BaseModel):
    """What a run of benchmarks makes. It is written before the work starts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    started_at: datetime
    config: PipelineConfig
    """The pinned configuration."""
    nodes: tuple[BenchmarkNode, ...]


class BenchmarkRow(BaseModel):
    """One model on one benchmark, over all questions. Rates in percent; None is missing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str
    kind: str
    model: str
    judge: str | None
    score: BenchmarkScore
    lc_comparable: bool | None
    """Whether the length-controlled win rate is comparable with the leaderboard; None if it was not
    computed."""
    usd: float | None
    """Cost of the judgments when they were made."""
    judge_epoch: int | None
    """Results of different epochs are not comparable; None without a judge."""
    artifact: str
    """`benchmark/digest`: its folder `exported` has the projects' own files."""


class BenchmarkTable(BaseModel):
    """The result of a run of benchmarks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    rows: tuple[BenchmarkRow, ...]


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
    record = _begin(pinned, nodes, wiring)
    mlflow_run = wiring.tracking.start_run(record.run, {"pvar.run": record.run})
    try:
        for node in nodes:
            run_node(node, pinned, wiring, mlflow_run)
        rows = _rows(pinned, wiring)
        for row in rows:
            wiring.tracking.log_summary(mlflow_run, _figures(row))
        create_markdown_artifact(benchmark_markdown(rows), key="benchmark", description=record.run)
    except BaseException:  # stopped from outside, too
        wiring.tracking.end_failed_run(mlflow_run)
        raise
    wiring.tracking.end_run(mlflow_run, failed=False)
    return BenchmarkTable(run=record.run, rows=tuple(rows))


def nodes_of_models(config: PipelineConfig) -> list[Node]:
    """The nodes that `benchmark_models` need, in execution order."""
    nodes = plan_nodes(config)
    wanted: set[str] = set()
    for benchmark in config.benchmarks:
        for model in config.benchmark_models:
            _add_with_inputs(score_name(benchmark.name, model.name), nodes, wanted)
    if not wanted:
        raise ConfigError(
            "no model takes any of the benchmarks "
            f"({', '.join(each.name for each in config.benchmarks)}): label_agreement compares the "
            "challenger with its opponent in `pvar run` only, and lm_eval needs a model instead of "
            "outputs; choose other benchmarks or models"
        )
    return [node for name, node in nodes.items() if name in wanted]


def _add_with_inputs(name: str, nodes: Mapping[str, Node], wanted: set[str]) -> None:
    """Add a node and the nodes of its inputs; a trained model is taken as it is."""
    if name not in nodes or name in wanted:
        return
    wanted.add(name)
    for keys in nodes[name].inputs.values():
        if keys.stage != TRAIN.name:
            made_by = next(other for other, node in nodes.items() if node.keys == keys)
            _add_with_inputs(made_by, nodes, wanted)


def _begin(config: PipelineConfig, nodes: Sequence[Node], wiring: Wiring) -> BenchmarkRecord:
    now = datetime.now(UTC)
    record = BenchmarkRecord(
        run=f"benchmark-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        started_at=now,
        config=config,
        nodes=tuple(BenchmarkNode(name=node.name, artifact=node.keys.root) for node in nodes),
    )
    wiring.store.write(
        f"benchmarks/{record.run}.json", record.model_dump_json(indent=1).encode() + b"\n"
    )
    return record


def _rows(config: PipelineConfig, wiring: Wiring) -> list[BenchmarkRow]:
    """The scores of all models on all benchmarks, over all questions."""
    nodes = plan_nodes(config)
    rows = []
    for benchmark in config.benchmarks:
        for model in config.benchmark_models:
            node = nodes.get(score_name(benchmark.name, model.name))
            if node is None:
                continue
            artifact = _open(node.keys.root, wiring)
            judge = judge_of(benchmark)
            judged = nodes.get(f"judge-{benchmark.name}-{model.name}")
            rows += [
                BenchmarkRow(
                    benchmark=benchmark.name,
                    kind=benchmark.kind,
                    model=score.model,
                    judge=judge,
                    score=score,
                    lc_comparable=_flag(artifact.manifest.summary, f"{score.role}_lc_comparable"),
                    usd=read_cost(_open(judged.keys.root, wiring)).usd if judged else None,
                    judge_epoch=benchmark.judge_epoch
                    if isinstance(benchmark, JudgedBenchmark)
                    else None,
                    artifact=node.keys.root,
                )
                for score in artifact.rows(RESULTS, BenchmarkScore)
                if score.category is None
            ]
    return rows


def _flag(summary: Summary, name: str) -> bool | None:
    value = summary.get(name)
    return value if isinstance(value, bool) else None


def _open(root: str, wiring: Wiring) -> Artifact:
    """The artifact `stage/digest`."""
    stage, _, digest = root.partition("/")
    return open_artifact(wiring.store, stage, digest, wiring.settings.home / "benchmarks")


def exported_files(row: BenchmarkRow, wiring: Wiring, folder: Path) -> list[Path]:
    """Copy the projects' own files of a row into `folder`; their paths."""
    source = _open(row.artifact, wiring).folder(EXPORTED) / row.score.role
    copied = []
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        target = folder / row.benchmark / row.score.role / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
        copied.append(target)
    return copied


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


def benchmark_markdown(rows: Sequence[BenchmarkRow]) -> str:
    """The table as Markdown."""
    lines = [
        "| benchmark | model | score, % | 95 % interval | length-controlled | length "
        "(characters) | coverage | judge | cost, USD |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(shown_cells(row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def shown_cells(row: BenchmarkRow) -> tuple[str, ...]:
    """The row of a table for people: the columns of `benchmark_markdown`."""
    score = row.score
    return (
        row.benchmark,
        row.model,
        _shown(score.score),
        f"{_shown(score.clustered_ci_lower)} to {_shown(score.clustered_ci_upper)}",
        _shown(score.length_controlled_win_rate),
        _shown(score.mean_length_characters, 0),
        f"{score.coverage:.1%}",
        row.judge or "–",
        _shown(row.usd),
    )


def _shown(value: float | None, decimals: int = 2) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"
