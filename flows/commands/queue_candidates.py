"""Read the prompts, responses and rewards for `pvar queue`, from a file or a run."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from infra.row_files import read_rows
from pvar.annotation_queue import AnsweredPrompt
from pvar.answer_rows import parse_answers, parse_pool_prompt
from pvar.errors import InputError
from pvar.labelled_pairs import is_labelled
from pvar.prompt_rows import source_of
from pvar.records import BadRow, Prompt
from pvar.row_counts import RowCounts
from pvar.row_forms import Fields
from pvar.scale import MAX_REWARD, scale_from_spread
from pvar.selection import RewardMatrix

RewardScale = float | Literal["spread"]
REWARDS = "rewards"


class QueueCandidates(NamedTuple):
    """What a queue is made of."""

    prompts: list[AnsweredPrompt]
    """(P,)"""
    rewards: RewardMatrix
    row_counts: RowCounts
    """In rows of the file, or training prompts of the run."""
    first_problem: str | None = None
    """Description of the first rejected row's problem."""

    def without(self, prompt_ids: Collection[str]) -> "QueueCandidates":
        """The candidates without these prompts, counted as `asked_before`."""
        return self._left_out("asked_before", prompt_ids)

    def without_labelled(self) -> "QueueCandidates":
        """The candidates without prompts that the data labels, counted as `labelled`."""
        prompts = [each.prompt for each in self.prompts]
        return self._left_out(
            "labelled", {prompt.prompt_id for prompt in prompts if is_labelled(prompt)}
        )

    def _left_out(self, reason: str, prompt_ids: Collection[str]) -> "QueueCandidates":
        kept = [
            row for row, each in enumerate(self.prompts) if each.prompt.prompt_id not in prompt_ids
        ]
        num_left_out = len(self.prompts) - len(kept)
        if not num_left_out:
            return self
        counts = self.row_counts
        rejected = {**counts.rejected, reason: num_left_out}
        return self._replace(
            prompts=[self.prompts[row] for row in kept],
            rewards=replace(self.rewards, rewards=self.rewards.rewards[:, kept], num_tokens=None),
            row_counts=RowCounts(rows_in=counts.rows_in, rows_out=len(kept), rejected=rejected),
        )


class _PoolRow(NamedTuple):
    prompt: Prompt
    texts: tuple[str, ...]
    scores: Mapping[str, tuple[float, ...]]
    """By reward model; NaN is missing."""


def candidates_of_file(
    path: Path, *, source_field: str | None, scale: RewardScale
) -> QueueCandidates:
    """One row per prompt with its responses and their rewards (`pvar/answer_rows.py`).

    `rewards` may be an object with a list of each reward model. Empty and repeated responses are
    left out. Raises InputError for a file without a usable row.
    """
    found: dict[str, _PoolRow] = {}
    rejected: Counter[str] = Counter()
    first_problem = None
    for row in read_rows(path):
        parsed: _PoolRow | str = "unreadable_line"
        if not isinstance(row, BadRow):
            parsed = _parse_row(row.fields, source_of(row.fields, source_field, path.name))
        if not isinstance(parsed, str) and parsed.prompt.prompt_id in found:
            parsed = "repeated_prompt"
        if isinstance(parsed, str):
            rejected[parsed] += 1
            first_problem = first_problem or f"row {row.number}: {parsed}"
        else:
            found[parsed.prompt.prompt_id] = parsed
    if not found:
        raise InputError(
            f"{path}: no row has a prompt with responses and their rewards; {first_problem}. Give "
            'one row per prompt, such as {"prompt": "…", "responses": ["…", "…"], '
            '"rewards": [0.5, 1.5]}'
        )
    rows = list(found.values())
    matrix = _matrix(rows)
    scales = tuple(scale_from_spread(model) if scale == "spread" else scale for model in matrix)
    return QueueCandidates(
        [AnsweredPrompt(row.prompt, row.texts) for row in rows],
        RewardMatrix(matrix, scales),
        RowCounts(
            rows_in=len(rows) + rejected.total(),
            rows_out=len(rows),
            rejected=dict(sorted(rejected.items())),
        ),
        first_problem,
    )


def _parse_row(fields: Fields, source: str) -> _PoolRow | str:
    prompt = parse_pool_prompt(fields, source)
    if isinstance(prompt, str):
        return prompt
    if prompt.is_question:
        return "ability_question"
    given = fields.get(REWARDS)
    by_model = given if isinstance(given, Mapping) else {"": given}
    texts: list[str] = []
    scores: dict[str, tuple[float, ...]] = {}
    for model, rewards in by_model.items():
        answers = parse_answers({**fields, REWARDS: rewards}, prompt.prompt_id)
        if isinstance(answers, str):
            return answers
        kept = {each.text.strip(): each for each in reversed(answers) if each.text.strip()}
        usable = sorted(kept.values(), key=lambda each: each.answer_index)
        texts = [each.text for each in usable]
        scores[model] = tuple(math.nan if each.score is None else each.score for each in usable)
    if any(abs(score) > MAX_REWARD for given in scores.values() for score in given):
        return "reward_too_large"
    return _PoolRow(prompt, tuple(texts), scores) if scores else "no_rewards"


def _matrix(rows: list[_PoolRow]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """(M, P, N); NaN where a model has no reward or a prompt no such response."""
    models = list(dict.fromkeys(model for row in rows for model in row.scores))
    width = max(len(row.texts) for row in rows)
    matrix = np.full((len(models), len(rows), max(width, 1)), np.nan)
    for place, row in enumerate(rows):
        for model, scores in row.scores.items():
            matrix[models.index(model), place, : len(scores)] = scores
    return matrix


def candidates_of_run(run: str) -> QueueCandidates:
    """The training prompts of a run, with the usable responses and the rewards that select.

    Prompts that are trained on a label of the data are left out. Raises InputError for a run that
    does not exist, and IncompleteError if its responses are not scored yet.
    """
    from flows.open_inputs import open_inputs
    from flows.run_record import load_run
    from flows.wiring import connect
    from tasks.graph import plan_nodes
    from tasks.stages.annotate import answered_prompts
    from tasks.stages.reward_matrix import read_rewards

    wiring = connect()
    config = load_run(wiring.store, run).config
    with open_inputs(wiring, plan_nodes(config)["select"].inputs) as inputs:
        rewards = read_rewards(inputs, config.model_roles.selecting, config.select)
    prompts = answered_prompts(rewards)
    found = QueueCandidates(
        prompts,
        rewards.combined_by(config.select.combination),
        RowCounts(rows_in=len(prompts), rows_out=len(prompts)),
    )
    return found.without_labelled() if config.pair.uses_labels else found
