"""Correlations of PVar with other measures of a prompt, for a run's report."""

import math
from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean

from pvar.config import PipelineConfig
from pvar.correlation import correlation_table
from pvar.records import Response
from pvar.selection import measure_rewards
from pvar.selection.strategy import PVAR
from tasks.engine.artifact import Artifact
from tasks.engine.tables import MeasuredPrompt, PromptVariance, by_prompt
from tasks.report.data import Correlation
from tasks.stages.reward_columns import read_reward_columns
from tasks.stages.sample import RESPONSES
from tasks.stages.select import MEASURED, VARIANCE


def correlations(
    config: PipelineConfig, artifacts: Mapping[str, Artifact]
) -> tuple[Correlation, ...]:
    """Correlations of PVar with other measures, from the complete artifacts of a run by node."""
    table = artifacts["select"].rows(VARIANCE, PromptVariance)
    values: dict[str, dict[str, float | None]] = defaultdict(dict)
    for each in artifacts["select"].rows(MEASURED, MeasuredPrompt):
        values[each.measure][each.prompt_id] = each.value
    responses = by_prompt(artifacts["sample"].rows(RESPONSES, Response))
    sampled = [responses.get(row.prompt_id, []) for row in table]
    measures: dict[str, list[float | None]] = {
        "PVar": [row.pvar for row in table],
        **{
            name.replace("_", " "): [by_id.get(row.prompt_id) for row in table]
            for name, by_id in values.items()
        },
        "mean length": [
            fmean(each.num_tokens for each in rows) if rows else None for rows in sampled
        ],
        "distinct texts": [len({each.text for each in rows}) or None for rows in sampled],
    }
    if labelled := _pvar_of_labels(config, artifacts):
        measures["PVar, labelling models"] = [labelled.get(row.prompt_id) for row in table]
    known = {
        name: [math.nan if value is None else value for value in values]
        for name, values in measures.items()
        if any(value is not None for value in values)
    }
    if len(known) < 2 or "PVar" not in known:
        return ()
    found = correlation_table(known)
    return tuple(
        Correlation(
            name,
            _finite(found.spearman[0, column]),
            _finite(found.spearman_lower[0, column]),
            _finite(found.spearman_upper[0, column]),
            _finite(found.pearson[0, column]),
            int(found.num_prompts[0, column]),
        )
        for column, name in enumerate(found.names)
        if name != "PVar"
    )


def _pvar_of_labels(config: PipelineConfig, artifacts: Mapping[str, Artifact]) -> dict[str, float]:
    """PVar of each prompt by the models that label; empty if they are those that select.

    Its correlation with PVar says whether both agree which prompts to train on.
    """
    roles = config.model_roles
    if roles.labelling in ((), roles.selecting):
        return {}
    inputs = {"prompts": artifacts["ingest"], "responses": artifacts["sample"]}
    inputs |= {f"scores-{name}": artifacts[f"score-{name}"] for name in roles.labelling}
    if "exclude" in artifacts:
        inputs["exclusions"] = artifacts["exclude"]
    rewards = read_reward_columns(inputs, roles.labelling, config.select)
    pvar = measure_rewards(rewards.combined_by(config.select.combination))[PVAR.name]
    values = zip(rewards.prompt_ids, pvar.tolist(), strict=True)
    return {prompt_id: value for prompt_id, value in values if math.isfinite(value)}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
