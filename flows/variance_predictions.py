"""Prediction of PVar from the prompts of a configuration, for `pvar predict`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flows.open_inputs import open_inputs
from flows.pinning import pin
from flows.wiring import Wiring
from pvar.answer_rows import parse_pool_prompt
from pvar.chat import prompt_token_ids
from pvar.config import PipelineConfig
from pvar.errors import IncompleteError, InputError
from pvar.evaluation.paired import WinRate, paired_win_rate
from pvar.prediction import (
    GroupVariance,
    SamplingComparison,
    compare_with_sampling,
    is_usable,
    predict_variance,
    variance_by_group,
)
from pvar.prompt_rows import parse_prompt
from pvar.records import BadRow, Prompt, Response, Verdict
from pvar.row_forms import Fields
from pvar.selection import Budget, Candidates, select
from pvar.selection.strategy import PVAR
from pvar.source_columns import rows_in_form
from pvar.train_config import TrainConfig
from tasks.engine.progress_log import ProgressLog
from tasks.engine.tables import by_prompt
from tasks.graph import plan_nodes
from tasks.stages.evaluate import preferences
from tasks.stages.ingest import PROMPTS
from tasks.stages.judgments import VERDICTS
from tasks.stages.reward_matrix import read_rewards, to_candidates
from tasks.training.model import load_frozen
from tasks.training.prompt_embeddings import embed_prompts

NO_VALUE = "(none)"
"""Group of the prompts whose row has no value of the field."""


class Cost(NamedTuple):
    """What the estimates of PVar take, for the compared prompts together."""

    prompt_tokens: int
    """Read for the embeddings."""
    response_tokens: float
    """Generated for one response to each prompt, in the mean over the sampled ones."""
    embedding_seconds: float
    """Of the forward passes, without loading the model."""
    fitting_seconds: float
    """Of the regressions of all folds."""


class VariancePredictions(NamedTuple):
    """What `pvar predict` shows."""

    comparison: SamplingComparison
    cost: Cost
    num_left_out: int
    """Training prompts with too few usable responses."""
    by_group: SamplingComparison | None
    """The same with a prediction from each prompt's group alone; None without a field."""
    groups: Mapping[str, GroupVariance]
    """PVar by group; empty without a field."""
    win_rates: Mapping[str, WinRate]
    """Win rate by group of held-out prompts; empty without a field or a complete evaluation."""


def predictions_of(
    config: PipelineConfig,
    wiring: Wiring,
    *,
    by: str | None = None,
    num_folds: int = 10,
    seed: int = 0,
) -> VariancePredictions:
    """Predict PVar of a configuration's training prompts and compare that with sampling.

    by: a field of the source's rows, by whose values PVar and win rate are also given. Raises
    IncompleteError if the responses are not sampled and scored yet, and InputError for too few
    usable prompts, or a field that no row has.
    """
    pinned = pin(config, wiring)
    nodes = plan_nodes(pinned)
    with open_inputs(wiring, nodes["select"].inputs) as inputs:
        rewards = read_rewards(inputs, pinned.model_roles.selecting, pinned.select)
    group_of = {} if by is None else _groups(pinned, wiring, by)
    matrix = rewards.combined_by(pinned.select.combination)
    candidates = to_candidates(rewards.columns, matrix)
    usable = is_usable(matrix)
    matrix = replace(matrix, rewards=matrix.rewards[:, usable], num_tokens=None)
    prompts = [rewards.prompts[row] for row in np.flatnonzero(usable).tolist()]
    pvar = np.asarray(candidates.measures[PVAR.name][usable], np.float64)
    embeddings, cost = _embed(prompts, rewards.responses, pinned, wiring)
    began = time.monotonic()
    predictions = predict_variance(embeddings, pvar, num_folds=num_folds, seed=seed)
    cost = cost._replace(fitting_seconds=time.monotonic() - began)
    top_share = _selected_share(candidates, usable, pinned.select.budget)
    comparison = compare_with_sampling(matrix, predictions, top_share=top_share, seed=seed)
    num_left_out = len(rewards.prompts) - len(prompts)
    if by is None:
        return VariancePredictions(comparison, cost, num_left_out, None, {}, {})
    groups = [group_of.get(prompt.prompt_id, NO_VALUE) for prompt in prompts]
    is_in_group = np.array(groups)[:, None] == np.unique(groups)
    of_groups = predict_variance(is_in_group, pvar, num_folds=num_folds, seed=seed)
    return VariancePredictions(
        comparison,
        cost,
        num_left_out,
        compare_with_sampling(matrix, of_groups, top_share=top_share, seed=seed),
        variance_by_group(matrix, predictions, groups, top_share=top_share, seed=seed),
        _win_rates(pinned, wiring, group_of),
    )


def _selected_share(candidates: Candidates, usable: NDArray[np.bool_], budget: Budget) -> float:
    """Share of the usable prompts that strategy `top` selects of them within the budget."""
    assert candidates.num_tokens is not None
    among = Candidates(
        candidates.prompt_ids[usable],
        {PVAR.name: candidates.measures[PVAR.name][usable]},
        candidates.num_tokens[usable],
    )
    return len(select(among, "top", budget, seed=0)) / len(among)


def _embed(
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    config: PipelineConfig,
    wiring: Wiring,
) -> tuple[NDArray[np.float32], Cost]:
    """Embeddings (num_prompts, num_dimensions) under the policy, in the precision of training."""
    from transformers import AutoTokenizer

    folder = wiring.model_folder(config.policy)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    ids = [tuple(prompt_token_ids(tokenizer, prompt.messages)) for prompt in prompts]
    precision = wiring.number_format(config.train.precision, learns=True)
    with ProgressLog("predict", "loading the policy") as progress:
        model = load_frozen(folder, TrainConfig.model_validate({"precision": precision}))
        progress.begin("embedding", total=len(set(ids)), unit="prompts")
        began = time.monotonic()
        embeddings = embed_prompts(
            model, ids, autocast=precision == "bfloat16", advance=progress.advance
        )
        seconds = time.monotonic() - began
    sampled = by_prompt(responses)
    per_prompt = [[each.num_tokens for each in sampled[prompt.prompt_id]] for prompt in prompts]
    return embeddings, Cost(
        sum(map(len, ids)), float(sum(map(np.mean, per_prompt))), seconds, fitting_seconds=0.0
    )


def _groups(config: PipelineConfig, wiring: Wiring, field: str) -> dict[str, str]:
    """Prompt id → value of the field in the first row with that prompt, of the source and then of
    the exam's files."""
    parse: Any = parse_pool_prompt if config.sample.engine == "dataset" else parse_prompt
    found: dict[str, str] = {}
    fields: set[str] = set()
    ingest = config.ingest
    for row in rows_in_form(
        wiring.source_rows(ingest.source), ingest.format, ingest.columns, ingest.source
    ):
        if isinstance(row, BadRow):
            continue
        fields |= row.fields.keys()
        _note_group(found, parse(row.fields, ""), row.fields, field)
    if not found:
        raise InputError(
            f"no prompt of {config.ingest.source.rpartition('#')[0]} has the field {field}; its "
            f"rows have {', '.join(sorted(fields)) or 'no fields'}"
        )
    for source in config.evaluate.prompts:
        for row in wiring.source_rows(source):
            if not isinstance(row, BadRow):
                _note_group(found, parse_prompt(row.fields, ""), row.fields, field)
    return found


def _note_group(found: dict[str, str], prompt: Prompt | str, fields: Fields, field: str) -> None:
    if isinstance(prompt, Prompt) and fields.get(field) is not None:
        found.setdefault(prompt.prompt_id, str(fields[field]))


def _win_rates(
    config: PipelineConfig, wiring: Wiring, group_of: Mapping[str, str]
) -> dict[str, WinRate]:
    """By group of the held-out prompts, sorted; empty if the evaluation is not complete."""
    try:
        evaluate = plan_nodes(config)["evaluate"]
        wanted = {"evaluate": evaluate.keys, "prompts": evaluate.inputs["prompts"]}
        with open_inputs(wiring, wanted) as inputs:
            verdicts = inputs["evaluate"].rows(VERDICTS, Verdict)
            prompts = inputs["prompts"].rows(PROMPTS, Prompt)
    except IncompleteError:
        return {}
    most = max((len(rows) for rows in by_prompt(verdicts).values()), default=1)
    by_group: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        if prompt.split == "eval" and not prompt.is_question:
            by_group.setdefault(group_of.get(prompt.prompt_id, NO_VALUE), []).append(prompt)
    return {
        group: paired_win_rate(
            preferences(of_group, verdicts, most),
            confidence=config.evaluate.confidence,
            seed=config.evaluate.seed,
        )
        for group, of_group in sorted(by_group.items())
    }
