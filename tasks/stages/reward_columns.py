"""Prompts, responses and scores joined by id, as columns: a row per response, and no texts.

A pool of a million prompts with eight responses has no room in memory as Python objects. Which
responses can be used is decided by the rules of `pvar/pairs/answers.py`, response by response.

Axes: M reward models, P prompts, R responses, N usable responses of a prompt.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pvar.combine import CombinationRule
from pvar.errors import InputError
from pvar.records import Split
from pvar.scale import scale_from_spread
from pvar.selection import RewardMatrix
from pvar.selection_config import RewardSettings
from tasks.engine.artifact import Artifact
from tasks.engine.tables import plain_rows, plain_values
from tasks.stages.exclude import excluded_prompts
from tasks.stages.ingest import PROMPTS
from tasks.stages.sample import RESPONSES
from tasks.stages.score import SCORES

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_RULES = ("", "other_prompt", "failed", "truncated", "empty", "missing_reward", "duplicate_text")
"""By their code; the first that applies is given."""


@dataclass(frozen=True, eq=False)
class RewardColumns:
    """The inputs of stage select, joined by id."""

    prompt_ids: list[str]
    """(P,) ids of the split's prompts, in the order of the artifact."""
    prompt_rows: Ints
    """(P,) their rows in the artifact."""
    num_responses: Ints
    """(P,) responses, usable or not."""
    sum_tokens: Ints
    """(P,) of all responses."""
    response_rows: Ints
    """(R,) rows of the responses in their artifact, without those of excluded prompts."""
    prompt_index: Ints
    """(R,) index of each response's prompt; −1 for other prompts."""
    combined: Floats
    """(R,) reward, or over several models the mean of reward / scale; NaN is missing."""
    is_scored: Bools
    """(R,) whether every model has a reward."""
    usable: Ints
    """(P, N) index of each usable response, in the order of their ids; −1 where there is none."""
    matrix: Floats
    """(M, P, N) rewards of usable responses, in the order of their ids; NaN is missing."""
    num_tokens: Floats
    """(P, N) length of each usable response in tokens; NaN for others."""
    scales: tuple[float, ...]
    """Reward scale τ of each model."""
    left_out: Mapping[str, int]
    """Number of unusable responses, by the name of the rule."""
    num_excluded: int | None
    """Training prompts that are an exam's and left out; None without the input `exclusions`."""

    def combined_by(self, rule: CombinationRule) -> RewardMatrix:
        """The rewards from which measures are computed."""
        return RewardMatrix(self.matrix, self.scales, rule, self.num_tokens)

    @property
    def mean_pair_tokens(self) -> Ints:
        """(P,) tokens of a prompt's pair: twice the mean length of its responses."""
        return np.rint(2 * self.sum_tokens / np.maximum(self.num_responses, 1)).astype(np.int64)


def read_reward_columns(
    inputs: Mapping[str, Artifact],
    reward_models: Sequence[str],
    settings: RewardSettings,
    split: Split = "train",
) -> RewardColumns:
    """Join the prompts of a split, their responses and the scores of every model by id.

    Prompts that the input `exclusions` names are left out, with their responses, if it is given.
    Raises InputError for two responses with the same id.
    """
    exclusions = inputs.get("exclusions")
    excluded = excluded_prompts(exclusions) if exclusions else frozenset[str]()
    prompt_ids, prompt_rows, num_excluded = _prompts(inputs["prompts"], split, excluded)
    responses = _responses(inputs["responses"], prompt_ids, excluded)
    penalties = np.where(responses.is_truncated, settings.missing_eos_penalty, 0.0)
    rewards = np.empty((len(reward_models), len(responses.rows)))
    is_scored = np.ones(len(responses.rows), np.bool_)
    for model, name in enumerate(reward_models):
        rewards[model], has_reward = _scores(inputs[f"scores-{name}"], responses.ids)
        rewards[model] -= penalties
        is_scored &= has_reward
    codes = _why_unusable(responses, is_scored, keep_truncated=settings.keep_truncated)
    usable = _usable(responses, codes == 0, len(prompt_ids))
    matrix, num_tokens = _matrix(usable, rewards, responses.num_tokens)
    scales = tuple(
        scale_from_spread(model) if settings.reward_scale == "spread" else settings.reward_scale
        for model in matrix
    )
    known = responses.prompt_index >= 0
    counts = np.bincount(codes, minlength=len(_RULES)).tolist()
    return RewardColumns(
        prompt_ids,
        prompt_rows,
        np.bincount(responses.prompt_index[known], minlength=len(prompt_ids)),
        np.bincount(
            responses.prompt_index[known],
            weights=responses.num_tokens[known],
            minlength=len(prompt_ids),
        ).astype(np.int64),
        responses.rows,
        responses.prompt_index,
        _combine(rewards, is_scored, scales),
        is_scored,
        usable,
        matrix,
        num_tokens,
        scales,
        {rule: count for rule, count in sorted(zip(_RULES, counts, strict=True)) if rule and count},
        num_excluded if exclusions else None,
    )


def _prompts(
    ingested: Artifact, split: Split, excluded: Collection[str]
) -> tuple[list[str], Ints, int]:
    """Ids and rows of the split's prompts that may be paired, and how many are excluded."""
    ids: list[str] = []
    rows: list[int] = []
    row = num_excluded = 0
    for batch in ingested.batches(PROMPTS, ["prompt_id", "split", "accepted_answers"]):
        for prompt_id, side, accepted in plain_rows(batch):
            if side == split and not accepted:
                if prompt_id in excluded:
                    num_excluded += 1
                else:
                    ids.append(prompt_id)
                    rows.append(row)
            row += 1
    return ids, np.array(rows, np.int64), num_excluded


class _Responses(NamedTuple):
    """(R,) columns of the responses."""

    rows: Ints
    prompt_index: Ints
    ids: Any
    """Arrow's strings."""
    sample_index: Ints
    num_tokens: Ints
    texts: Ints
    """Hashes of the texts without outer white space; equal texts of a prompt have equal ones."""
    is_empty: Bools
    is_failed: Bools
    is_truncated: Bools


def _responses(
    sampled: Artifact, prompt_ids: Sequence[str], excluded: Collection[str]
) -> _Responses:
    index_of = {prompt_id: index for index, prompt_id in enumerate(prompt_ids)}
    names = ["prompt_id", "response_id", "sample_index", "num_tokens", "finish_reason", "text"]
    parts = []
    start = 0
    for batch in sampled.batches(RESPONSES, names):
        rows = np.arange(start, start + batch.num_rows)
        start += batch.num_rows
        if excluded:
            kept = [prompt_id not in excluded for prompt_id in plain_values(batch)]
            batch, rows = batch.filter(pa.array(kept, pa.bool_())), rows[kept]
        prompts = plain_values(batch)
        texts = [text.strip() for text in plain_values(batch, 5)]
        reasons = plain_values(batch, 4)
        parts.append(
            _Responses(
                rows,
                np.array([index_of.get(prompt_id, -1) for prompt_id in prompts], np.int64),
                batch.column(1),
                batch.column(2).to_numpy(),
                batch.column(3).to_numpy(),
                np.array([hash(text) for text in texts], np.int64),
                np.array([not text for text in texts], np.bool_),
                np.array([reason == "error" for reason in reasons], np.bool_),
                np.array([reason == "length" for reason in reasons], np.bool_),
            )
        )
    responses = _joined(parts)
    _refuse_repeated(responses, prompt_ids)
    return responses


def _joined(parts: Sequence[_Responses]) -> _Responses:
    if not parts:
        nothing, no_flags = np.empty(0, np.int64), np.empty(0, np.bool_)
        no_ids = pa.array([], pa.string())
        parts = [_Responses._make([*[nothing] * 2, no_ids, *[nothing] * 3, *[no_flags] * 3])]
    columns: list[Sequence[Any]] = list(zip(*parts, strict=True))
    ids = _Responses._fields.index("ids")
    return _Responses._make(
        pa.concat_arrays(column) if place == ids else np.concatenate(column)
        for place, column in enumerate(columns)
    )


def _refuse_repeated(responses: _Responses, prompt_ids: Sequence[str]) -> None:
    if pc.count_distinct(responses.ids).as_py() == len(responses.ids):
        return
    seen = set[str]()
    for response_id, index in zip(
        responses.ids.to_pylist(), responses.prompt_index.tolist(), strict=True
    ):
        if response_id in seen:
            of_prompt = f"prompt {prompt_ids[index]}" if index >= 0 else "of another split"
            raise InputError(
                f"duplicate response id {response_id} ({of_prompt}); responses are joined by id, "
                "so remove one"
            )
        seen.add(response_id)


def _scores(scored: Artifact, response_ids: Any) -> tuple[Floats, Bools]:
    """(R,) the rewards of these responses, and which of them have one."""
    batches = list(scored.batches(SCORES, ["response_id", "reward"]))
    ids: Any = pa.concat_arrays([pa.array([], pa.string()), *(each.column(0) for each in batches)])
    rewards: Any = pa.concat_arrays(
        [pa.array([], pa.float64()), *(each.column(1) for each in batches)]
    )
    if not ids.equals(response_ids):  # of other responses, or in another order
        present = np.flatnonzero(rewards.is_valid().to_numpy(zero_copy_only=False))
        backwards = pa.array(present[::-1])  # of two scores of a response, the last counts
        ids, rewards = ids.take(backwards), rewards.take(backwards)
        rewards = rewards.take(pc.index_in(response_ids, value_set=ids))
    has_reward: Bools = rewards.is_valid().to_numpy(zero_copy_only=False)
    return rewards.to_numpy(zero_copy_only=False), has_reward


def _why_unusable(responses: _Responses, is_scored: Bools, *, keep_truncated: bool) -> Ints:
    """(R,) the code of the first rule that applies; 0 for usable responses."""
    codes = np.zeros(len(is_scored), np.int64)
    codes[~is_scored] = _RULES.index("missing_reward")
    codes[responses.is_empty] = _RULES.index("empty")
    if not keep_truncated:
        codes[responses.is_truncated] = _RULES.index("truncated")
    codes[responses.is_failed] = _RULES.index("failed")
    codes[responses.prompt_index < 0] = _RULES.index("other_prompt")
    usable = np.flatnonzero(codes == 0)
    prompts, texts = responses.prompt_index[usable], responses.texts[usable]
    order = np.lexsort((responses.sample_index[usable], texts, prompts))
    is_repeated = (prompts[order[1:]] == prompts[order[:-1]]) & (
        texts[order[1:]] == texts[order[:-1]]
    )
    codes[usable[order[1:][is_repeated]]] = _RULES.index("duplicate_text")
    return codes


def _usable(responses: _Responses, is_usable: Bools, num_prompts: int) -> Ints:
    """(P, N) index of each usable response, in the order of their ids; −1 where there is none."""
    found = np.flatnonzero(is_usable)
    keys = [key[found] for key in _sort_keys(responses.ids)]
    found = found[np.lexsort((*keys, responses.prompt_index[found]))]
    prompts = responses.prompt_index[found]
    counts = np.bincount(prompts, minlength=num_prompts)
    columns = np.arange(len(found)) - np.repeat(np.cumsum(counts) - counts, counts)
    usable = np.full((num_prompts, max(int(counts.max(initial=0)), 1)), -1, np.int64)
    usable[prompts, columns] = found
    return usable


def _matrix(usable: Ints, rewards: Floats, num_tokens: Ints) -> tuple[Floats, Floats]:
    """(M, P, N) rewards and (P, N) lengths of the usable responses."""
    is_there = usable >= 0
    matrix = np.full((len(rewards), *usable.shape), np.nan)
    lengths = np.full(usable.shape, np.nan)
    matrix[:, is_there] = rewards[:, usable[is_there]]
    lengths[is_there] = num_tokens[usable[is_there]]
    return matrix, lengths


def _sort_keys(ids: Any) -> list[NDArray[Any]]:
    """Keys for `lexsort` that sort the ids, the last first. Hashes are compared as numbers."""
    lengths: Any = pc.min_max(pc.binary_length(ids)).as_py()
    length = lengths["min"]
    if length is None or length != lengths["max"] or length % 8 or not length:
        return [np.array([each.encode() for each in ids.to_pylist()] or [b""][:0], "S")]
    _, offsets, data = ids.buffers()
    first = np.frombuffer(offsets, np.int32)[ids.offset]
    words = np.frombuffer(data, ">u8", len(ids) * length // 8, first).reshape(len(ids), -1)
    return [words[:, place].astype(np.uint64) for place in range(words.shape[1])][::-1]


def _combine(rewards: Floats, is_scored: Bools, scales: tuple[float, ...]) -> Floats:
    combined: Floats
    if len(rewards) == 1:
        combined = rewards[0].copy()
    else:
        scaled = np.ascontiguousarray((rewards / np.array(scales)[:, None]).T)
        combined = np.asarray(scaled.mean(axis=1))
    combined[~is_scored] = np.nan
    return combined
