"""The results of benchmarks: their records in the store, and one table of all models.

`benchmarks/RUN.json` in the store names the artifacts of a run, so that `pvar gc` keeps them. A
repeat of a run whose artifacts are all complete is read from there (`complete_table`): where no
Prefect server is configured, nothing is started or recorded for it.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from flows.complete_runs import MOST_RECORDS
from flows.pinning import pin
from flows.placed_stages import is_complete
from flows.wiring import Wiring
from pvar.artifacts import Summary
from pvar.benchmark_config import JudgedBenchmark
from pvar.benchmark_takers import with_models
from pvar.config import PipelineConfig
from pvar.errors import ConfigError
from pvar.evaluation.benchmark_scores import BenchmarkScore
from pvar.ports import Store
from tasks.benchmark_nodes import judge_of, score_name
from tasks.engine.artifact import Artifact, open_artifact
from tasks.engine.node import Node
from tasks.graph import plan_nodes
from tasks.stages.benchmark import EXPORTED, RESULTS
from tasks.stages.judge import read_cost
from tasks.stages.train import TRAIN

FOLDER = "benchmarks"


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


def complete_table(
    config: PipelineConfig, models: Sequence[str], benchmarks: Sequence[str], wiring: Wiring
) -> BenchmarkTable | None:
    """The table of the newest run of the same benchmarks and models; None unless all of its
    artifacts are complete and current."""
    pinned = pin(with_models(config, models, benchmarks), wiring)
    nodes = nodes_of_models(pinned)
    if not all(is_complete(node, wiring) for node in nodes):
        return None
    artifacts = [(node.name, node.keys.root) for node in nodes]
    for record in _newest_records(wiring.store):
        if [(each.name, each.artifact) for each in record.nodes] == artifacts:
            return BenchmarkTable(run=record.run, rows=tuple(benchmark_rows(pinned, wiring)))
    return None


def _newest_records(store: Store) -> Iterator[BenchmarkRecord]:
    keys = sorted((info.key for info in store.list(f"{FOLDER}/")), reverse=True)
    for key in keys[:MOST_RECORDS]:
        with suppress(ValidationError):  # of another version
            yield BenchmarkRecord.model_validate_json(store.read(key))


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


def benchmark_rows(config: PipelineConfig, wiring: Wiring) -> list[BenchmarkRow]:
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
