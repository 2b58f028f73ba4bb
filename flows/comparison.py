"""Comparison of selection strategies with random selection, over several seeds, in one table.

The pipeline's stages up to `evaluate` train and judge every model. No model is registered. The
table is a Prefect artifact, a file of the MLflow run, and `comparisons/<run>.md` in the store.
`comparisons/<run>.json` is written at the start and names all artifacts of all variants, so that
`pvar gc` keeps them.
"""

import logging
import secrets
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict

from flows.pinning import pin
from flows.pipeline import run_node
from flows.wiring import Wiring, connect
from pvar.artifacts import Summary
from pvar.config import PipelineConfig
from pvar.method_comparison import (
    ArmResults,
    CompareConfig,
    ComparisonRow,
    tabulate,
    variant,
)
from pvar.records import Prompt, Response, Verdict
from pvar.selection import CONTROL, StrategyName
from tasks.engine.artifact import Artifact, open_artifact
from tasks.engine.node import Node
from tasks.engine.work_folders import work_folder
from tasks.graph import plan_nodes
from tasks.stages.evaluate import preferences
from tasks.stages.ingest import PROMPTS
from tasks.stages.judgments import VERDICTS
from tasks.stages.sample import RESPONSES

logger = logging.getLogger(__name__)


class ComparedNode(BaseModel):
    """A node of one variant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: StrategyName
    seed: int
    name: str
    artifact: str
    """`stage/digest`."""


class ComparisonRecord(BaseModel):
    """What a comparison compares. It is written before the work starts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    started_at: datetime
    config: CompareConfig
    """The pinned configuration of what is compared."""
    nodes: tuple[ComparedNode, ...]


@flow(
    name="compare",
    description="Train on several selections of the same responses and on random prompts.",
    persist_result=False,
)
def compare(config: CompareConfig) -> str:
    """Run the comparison and return its table as Markdown.

    Args:
        config: The pipeline, the strategies and the seeds to compare.
    """
    wiring = connect()
    strategies = (CONTROL, *config.strategies)
    pinned = pin(variant(config.pipeline, CONTROL, config.seeds[0]), wiring)
    record = _begin(config.model_copy(update={"pipeline": pinned}), strategies, wiring)
    run = record.run
    mlflow_run = wiring.tracking.start_run(run, {"pvar.run": run})
    try:
        outcomes: dict[str, list[ArmResults]] = {
            strategy: [
                _outcome(variant(pinned, strategy, seed), wiring, mlflow_run)
                for seed in config.seeds
            ]
            for strategy in strategies
        }
        evaluate = config.pipeline.evaluate
        rows = tabulate(outcomes, confidence=evaluate.confidence, seed=evaluate.seed)
        table = to_markdown(rows)
        _keep(run, mlflow_run, rows, table, wiring)
    except BaseException:  # stopped from outside, too
        wiring.tracking.end_failed_run(mlflow_run)
        raise
    wiring.tracking.end_run(mlflow_run, failed=False)
    return table


def _begin(
    pinned: CompareConfig, strategies: Sequence[StrategyName], wiring: Wiring
) -> ComparisonRecord:
    """Record the artifacts of all variants before any of them is made."""
    now = datetime.now(UTC)
    record = ComparisonRecord(
        run=f"compare-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        started_at=now,
        config=pinned,
        nodes=tuple(
            ComparedNode(strategy=strategy, seed=seed, name=node.name, artifact=node.keys.root)
            for strategy in strategies
            for seed in pinned.seeds
            for node in compared_nodes(variant(pinned.pipeline, strategy, seed)).values()
        ),
    )
    wiring.store.write(
        f"comparisons/{record.run}.json", record.model_dump_json(indent=1).encode() + b"\n"
    )
    return record


def compared_nodes(config: PipelineConfig) -> dict[str, Node]:
    """The nodes of a variant up to `evaluate`: no model is registered or takes a benchmark."""
    nodes = plan_nodes(config)
    names = list(nodes)
    return {name: nodes[name] for name in names[: names.index("evaluate") + 1]}


def _outcome(config: PipelineConfig, wiring: Wiring, mlflow_run: str) -> ArmResults:
    """Train one model and judge its answers. Artifacts of other variants are reused."""
    logger.info("strategy %s, seed %d", config.select.strategy, config.select.seed)
    nodes = compared_nodes(config)
    for node in nodes.values():
        run_node(node, config, wiring, mlflow_run)
    with work_folder(wiring.settings.home, "compare") as scratch:

        def artifact(name: str) -> Artifact:
            keys = nodes[name].keys
            return open_artifact(wiring.store, keys.stage, keys.digest, scratch)

        rows = artifact("ingest").rows(PROMPTS, Prompt)
        prompts = [row for row in rows if row.split == "eval" and not row.is_question]
        verdicts = artifact("evaluate").rows(VERDICTS, Verdict)
        judged = {prompt.prompt_id for prompt in prompts}
        responses = artifact("answers-challenger").rows(RESPONSES, Response)
        answers = [response for response in responses if response.prompt_id in judged]
        return ArmResults(
            preferences(prompts, verdicts, config.evaluate.num_answers),
            artifact("train").manifest.row_counts.rows_out,
            fmean(len(each.text) for each in answers) if answers else 0.0,
        )


def to_markdown(rows: Sequence[ComparisonRow]) -> str:
    """The table as Markdown."""
    lines = [
        "| selection | win rate | minus random | by seed | pairs | length (characters) |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        rate, difference = row.win_rate, row.over_control
        over = (
            f"{difference.difference:+.1%} ({difference.ci_lower:+.1%} to "
            f"{difference.ci_upper:+.1%})"
            if difference
            else "–"
        )
        lines.append(
            f"| {row.strategy} | {rate.win_rate:.1%} ({rate.ci_lower:.1%} to {rate.ci_upper:.1%}) "
            f"| {over} | {', '.join(f'{each:.1%}' for each in row.seed_win_rates)} "
            f"| {row.num_pairs:.0f} | {row.mean_length_characters:.0f} |"
        )
    judged, wanted = rows[0].win_rate.num_judged, rows[0].win_rate.num_wanted
    differences = [row.over_control for row in rows if row.over_control is not None]
    over = (
        "prompts and trainings"
        if all(difference.over_trainings for difference in differences)
        else "prompts only: the spread of trainings is not known"
    )
    said = f"{judged} of {wanted} prompts judged. Intervals of differences are over {over}."
    return "\n".join([*lines, "", said]) + "\n"


def _keep(
    run: str, mlflow_run: str, rows: Sequence[ComparisonRow], table: str, wiring: Wiring
) -> None:
    figures: Summary = {f"win_rate_{row.strategy}": row.win_rate.win_rate for row in rows}
    wiring.tracking.log_summary(mlflow_run, figures)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "comparison.md"
        file.write_text(table, encoding="utf-8")
        wiring.tracking.log_file(mlflow_run, file)
        wiring.store.upload(file, f"comparisons/{run}.md")
    create_markdown_artifact(table, key="comparison", description=run)
