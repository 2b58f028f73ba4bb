"""The rows of prompts, responses and scores, joined: for those who need the texts of all of them.

They are in memory as a whole. Stages select and pair, which read whole pools, use their columns
(`tasks/stages/reward_columns.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pvar.combine import CombinationRule
from pvar.records import Prompt, Response, Score, Split
from pvar.selection import Candidates, RewardMatrix, measure_rewards
from pvar.selection_config import RewardSettings
from tasks.engine.artifact import Artifact
from tasks.engine.row_reader import RowReader
from tasks.stages.ingest import PROMPTS
from tasks.stages.reward_columns import Floats, Ints, RewardColumns, read_reward_columns
from tasks.stages.sample import RESPONSES


class RewardedRows(NamedTuple):
    """Prompts with their responses and rewards."""

    prompts: Sequence[Prompt]
    """In the order of their ids."""
    responses: Sequence[Response]
    combined: Sequence[Score]
    """One reward per response: its reward, or over several models the mean of reward / scale."""


@dataclass(frozen=True, eq=False)
class Rewards:
    """The inputs of stage select, joined by id."""

    columns: RewardColumns
    rows: RewardedRows
    usable: Mapping[str, Sequence[str]]
    """Prompt id → ids of its usable responses, in the order of the matrix."""

    @property
    def prompts(self) -> Sequence[Prompt]:
        """Prompts of the split, in the order of their ids."""
        return self.rows.prompts

    @property
    def responses(self) -> Sequence[Response]:
        """Responses of these and other prompts."""
        return self.rows.responses

    @property
    def combined(self) -> Sequence[Score]:
        """One reward per response."""
        return self.rows.combined

    @property
    def matrix(self) -> Floats:
        """(M, P, N); NaN is missing or unusable."""
        return self.columns.matrix

    @property
    def scales(self) -> tuple[float, ...]:
        """Reward scale τ of each model."""
        return self.columns.scales

    def combined_by(self, rule: CombinationRule) -> RewardMatrix:
        """The rewards from which measures are computed."""
        return self.columns.combined_by(rule)


def read_rewards(
    inputs: Mapping[str, Artifact],
    reward_models: Sequence[str],
    settings: RewardSettings,
    split: Split = "train",
) -> Rewards:
    """The columns of `read_reward_columns`, with the rows that they are made of."""
    columns = read_reward_columns(inputs, reward_models, settings, split)
    prompts = RowReader(inputs["prompts"], PROMPTS, Prompt).take(columns.prompt_rows.tolist())
    everything = np.arange(len(columns.response_rows))
    responses = RowReader(inputs["responses"], RESPONSES, Response)
    answered, combined = _rewarded(columns, responses, everything)
    usable = {
        prompt_id: [answered[index].response_id for index in indices if index >= 0]
        for prompt_id, indices in zip(columns.prompt_ids, columns.usable.tolist(), strict=True)
        if indices[0] >= 0
    }
    return Rewards(columns, RewardedRows(prompts, answered, combined), usable)


class RewardedParts:
    """Prompts with their responses and rewards, some at a time."""

    def __init__(self, columns: RewardColumns, sampled: Artifact) -> None:
        self._columns = columns
        self._responses = RowReader(sampled, RESPONSES, Response)
        self._index_of = {prompt_id: index for index, prompt_id in enumerate(columns.prompt_ids)}
        self._by_prompt = np.argsort(columns.prompt_index, kind="stable")
        self._first = np.searchsorted(
            columns.prompt_index, np.arange(len(columns.prompt_ids) + 1), sorter=self._by_prompt
        )

    def of(self, prompts: Sequence[Prompt]) -> RewardedRows:
        """Those of these prompts that have columns, with their responses."""
        known = [prompt for prompt in prompts if prompt.prompt_id in self._index_of]
        found = [
            self._by_prompt[self._first[index] : self._first[index + 1]]
            for index in (self._index_of[prompt.prompt_id] for prompt in known)
        ]
        indices = np.sort(np.concatenate([np.empty(0, np.int64), *found]))
        return RewardedRows(known, *_rewarded(self._columns, self._responses, indices))


def _rewarded(
    columns: RewardColumns, responses: RowReader[Response], indices: Ints
) -> tuple[list[Response], list[Score]]:
    """Responses by their index, which ascends, with their rewards."""
    rows = responses.take(columns.response_rows[indices].tolist())
    rewards, is_scored = columns.combined[indices].tolist(), columns.is_scored[indices].tolist()
    scores = [
        Score(row.prompt_id, row.response_id, reward)
        if has_reward
        else Score(row.prompt_id, row.response_id, None, "missing_reward")
        for row, reward, has_reward in zip(rows, rewards, is_scored, strict=True)
    ]
    return rows, scores


def to_candidates(columns: RewardColumns, matrix: RewardMatrix) -> Candidates:
    """The prompts with all measures of the strategies."""
    return Candidates(
        prompt_ids=np.array(columns.prompt_ids, dtype=str),
        measures=measure_rewards(matrix),
        num_tokens=columns.mean_pair_tokens,
    )
