"""Comparison: does a selection beat random prompts? Several strategies and seeds, one table.

Every model is made by the pipeline's own stages up to `evaluate`; nothing is registered. The table
is a Prefect artifact, a file of the MLflow run, and `comparisons/<run>.md` in the store.
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

from flows.pipeline import run_node
from flows.wiring import Wiring, connect, pin
from pvar.artifacts import Summary
from pvar.compare import CONTROL, CompareConfig, Outcome, Row, tabulate, variant
from pvar.config import PipelineConfig
from pvar.records import Prompt, Response, Verdict
from tasks.artifact import Artifact, open_artifact
from tasks.evaluate import VERDICTS, preferences
from tasks.graph import plan_nodes
from tasks.ingest import PROMPTS
from tasks.sample import RESPONSES

logger = logging.getLogger(__name__)


@flow(
    name="compare",
    description="Train on several selections of the same answers, beside random prompts.",
    persist_result=False,
)
def compare(config: CompareConfig) -> str:
    """Return the table, as Markdown.

    Args:
        config: What is compared.
    """
    wiring = connect()
    strategies = (CONTROL, *config.strategies)
    pinned = pin(variant(config.pipeline, CONTROL, config.seeds[0]), wiring)
    run = f"compare-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    mlflow_run = wiring.tracking.start_run(run, {"pvar.run": run})
    try:
        outcomes: dict[str, list[Outcome]] = {
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
    except BaseException:
        wiring.tracking.end_run(mlflow_run, failed=True)
        raise
    wiring.tracking.end_run(mlflow_run, failed=False)
    return table


def _outcome(config: PipelineConfig, wiring: Wiring, mlflow_run: str) -> Outcome:
    """Make one model and judge its answers; what another variant made already is reused."""
    logger.info("strategy %s, seed %d", config.select.strategy, config.select.seed)
    nodes = plan_nodes(config)
    for node in nodes.values():
        if node.name != "promote":
            run_node(node, config, wiring, mlflow_run)

    def artifact(name: str) -> Artifact:
        keys = nodes[name].keys
        return open_artifact(wiring.store, keys.stage, keys.digest, wiring.settings.home / "read")

    prompts = [each for each in artifact("ingest").rows(PROMPTS, Prompt) if each.split == "eval"]
    answers = artifact("answers-challenger").rows(RESPONSES, Response)
    return Outcome(
        preferences(
            prompts, artifact("evaluate").rows(VERDICTS, Verdict), config.evaluate.num_answers
        ),
        artifact("train").manifest.accounts.rows_out,
        fmean(len(each.text) for each in answers) if answers else 0.0,
    )


def to_markdown(rows: Sequence[Row]) -> str:
    """The table for people."""
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
    return "\n".join([*lines, "", f"{judged} of {wanted} prompts judged."]) + "\n"


def _keep(run: str, mlflow_run: str, rows: Sequence[Row], table: str, wiring: Wiring) -> None:
    figures: Summary = {f"win_rate_{row.strategy}": row.win_rate.win_rate for row in rows}
    wiring.tracking.log_summary(mlflow_run, figures)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "comparison.md"
        file.write_text(table, encoding="utf-8")
        wiring.tracking.log_file(mlflow_run, file)
        wiring.store.upload(file, f"comparisons/{run}.md")
    create_markdown_artifact(table, key="comparison", description=run)
