"""Selection and win rate by the source of the prompts."""

from collections.abc import Mapping

import numpy as np

from pvar.evaluation.paired import paired_win_rate
from pvar.records import Prompt, Verdict
from tasks.engine.artifact import Artifact
from tasks.engine.tables import PromptVariance, by_prompt
from tasks.exam_nodes import exam_node
from tasks.report.data import SourceRow, SourceWinRate
from tasks.stages.evaluate import preferences
from tasks.stages.ingest import INGEST, PROMPTS
from tasks.stages.judgments import VERDICTS
from tasks.stages.select import VARIANCE

SEED = 0


def rows_by_source(artifacts: Mapping[str, Artifact], confidence: float) -> tuple[SourceRow, ...]:
    """One row per source of training prompts, by name, from the run's complete artifacts.

    Empty without a selection, and where all training prompts are of one source: an exam that is a
    file of its own is no source of what is selected.
    """
    if "select" not in artifacts:
        return ()
    prompts = [
        prompt
        for name in sorted({INGEST.name, exam_node(artifacts)})
        for prompt in artifacts[name].rows(PROMPTS, Prompt)
    ]
    candidates = {row.prompt_id: row for row in artifacts["select"].rows(VARIANCE, PromptVariance)}
    sources = sorted({prompt.source for prompt in prompts if prompt.split == "train"})
    if len(sources) < 2:
        return ()
    verdicts = artifacts["evaluate"].rows(VERDICTS, Verdict) if "evaluate" in artifacts else []
    rows = []
    for source in sources:
        of_source = [prompt for prompt in prompts if prompt.source == source]
        measured = [candidates[p.prompt_id] for p in of_source if p.prompt_id in candidates]
        known = [row.pvar for row in measured if row.pvar is not None]
        rows.append(
            SourceRow(
                source,
                len(measured),
                sum(row.selected for row in measured),
                float(np.mean(known)) if known else None,
                _win_rate(of_source, verdicts, confidence),
            )
        )
    return tuple(rows)


def _win_rate(
    prompts: list[Prompt], verdicts: list[Verdict], confidence: float
) -> SourceWinRate | None:
    """On the held-out prompts of one source; None if none of them has a verdict."""
    held_out = [prompt for prompt in prompts if prompt.split == "eval"]
    most = max((len(given) for given in by_prompt(verdicts).values()), default=1)
    table = preferences(held_out, verdicts, most)
    if np.isnan(table).all():
        return None
    result = paired_win_rate(table, confidence=confidence, seed=SEED)
    return SourceWinRate(result.win_rate, result.ci_lower, result.ci_upper, result.num_judged)
