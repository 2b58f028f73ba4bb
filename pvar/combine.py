"""Preference variance from several reward models, and how much they disagree.

With p^m_ij the preference of model m under its own scale τ_m, over the responses that every model
has scored:

    mean_pvar          mean over m of PVar_m                            (the default)
    mean_probability   PVar of the averaged preference p̄_ij = mean_m p^m_ij
    disagreement       mean over pairs of the variance of p^m_ij over m
    entropy            mean over pairs of the entropy of p̄_ij, in nats

The law of total variance ties the first three together, exactly:

    mean_pvar = mean_probability + disagreement.

Each of the first two is a U-statistic with a kernel of its own, the mean of (p^m_ij − ½)² over m
and (p̄_ij − ½)², so that its standard error is the jackknife of `pvar.variance` with that kernel's
sums s_i. It is the error of having few responses, not of having few reward models.

`mean_pvar` is the default because each term is what the paper defines (arXiv 2510.13022) and the
conflict between models stays a column of its own; `mean_probability` keeps only what the models
agree on, and is the choice when their conflict is noise.

Axes: M models, P prompts, N responses.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from pvar.errors import ConfigError
from pvar.pairwise import (
    Block,
    Bools,
    Floats,
    as_mask,
    as_rewards,
    blocks,
    check_scale,
    lagged_tanh,
    mean_over_pairs,
)
from pvar.variance import jackknife_stderr, preference_variance, response_sums

CombinationRule = Literal["mean_pvar", "mean_probability"]


def combine_preference_variance(
    rewards: npt.ArrayLike,
    *,
    scales: Sequence[float],
    mask: npt.ArrayLike | None = None,
    rule: CombinationRule = "mean_pvar",
) -> Floats:
    """One PVar per prompt (P,) by the rule, over the responses that all models have scored.

    rewards: (M, P, N), non-finite entries missing; scales: M reward scales; mask: (P, N) booleans,
        True where the response counts.

    NaN for prompts with fewer than two such responses. Raises InputError for wrong shapes,
    ConfigError for scales that are not M positive numbers.
    """
    problem = _problem(rewards, scales, mask)
    match rule:
        case "mean_pvar":
            return np.asarray(_per_model(problem).mean(axis=0))
        case "mean_probability":
            return _over_models(problem).mean_probability


def combine_preference_variance_stderr(
    rewards: npt.ArrayLike,
    *,
    scales: Sequence[float],
    mask: npt.ArrayLike | None = None,
    rule: CombinationRule = "mean_pvar",
) -> Floats:
    """Jackknife standard error (P,) of the combined PVar; arguments and errors as for that.

    NaN where fewer than three responses have been scored by all models.
    """
    problem = _problem(rewards, scales, mask)
    result = np.empty(problem.rewards.shape[1], problem.rewards.dtype)
    for of_models in _blocks_of_models(problem):
        sums = _response_sums(of_models, problem.scales, rule)
        result[of_models[0].prompts] = jackknife_stderr(sums, of_models[0])
    return result


def disagreement(
    rewards: npt.ArrayLike, *, scales: Sequence[float], mask: npt.ArrayLike | None = None
) -> Floats:
    """Mean over pairs of the variance of the preference over models, (P,), from 0 to ¼.

    Arguments and errors as for the combined PVar; ConfigError for a single model.
    """
    problem = _problem(rewards, scales, mask)
    if len(problem.scales) < 2:
        raise ConfigError("disagreement needs at least two reward models, but there is 1; add one")
    return _over_models(problem).disagreement


def preference_entropy(
    rewards: npt.ArrayLike, *, scales: Sequence[float], mask: npt.ArrayLike | None = None
) -> Floats:
    """Mean over pairs of the entropy of the averaged preference p̄, (P,) in nats, from 0 to log 2.

    Arguments, errors and NaN as for the combined PVar.
    """
    problem = _problem(rewards, scales, mask)
    result = np.empty(problem.rewards.shape[1], problem.rewards.dtype)
    for of_models in _blocks_of_models(problem):
        prompts = of_models[0].prompts
        lost = np.zeros(prompts.stop - prompts.start, result.dtype)
        for _, terms in _mean_preferences(of_models, problem.scales):
            lost += _lost_entropy(terms).sum(axis=0)
        # `mean_over_pairs` gives a quarter of the mean of its terms.
        result[prompts] = np.log(2) - 4 * mean_over_pairs(lost, of_models[0])
    return result


def _lost_entropy(terms: Floats) -> Floats:
    """log 2 − H(p) for terms 2p − 1; 0 for p = ½, as for pairs with a missing reward."""
    larger, smaller = 1 + np.abs(terms), 1 - np.abs(terms)
    logs = np.log(smaller, out=np.zeros_like(smaller), where=smaller > 0)
    return np.asarray((larger * np.log(larger) + smaller * logs) / 2)


class _Problem(NamedTuple):
    """Checked arguments."""

    rewards: Floats
    scales: tuple[float, ...]
    common: Bools
    """(P, N) responses that count and that every model has scored."""


def _problem(
    rewards: npt.ArrayLike, scales: Sequence[float], mask: npt.ArrayLike | None
) -> _Problem:
    array = as_rewards(rewards, ndim=3)
    if len(scales) != len(array) or not scales:
        raise ConfigError(
            f"{len(scales)} scales for {len(array)} reward models; give one per model"
        )
    common: Bools = np.logical_and.reduce(np.isfinite(array))
    allowed = as_mask(mask, array.shape[1:])
    if allowed is not None:
        common &= allowed
    return _Problem(array, tuple(check_scale(scale) for scale in scales), common)


def _per_model(problem: _Problem) -> Floats:
    return np.stack(
        [
            preference_variance(model, scale=scale, mask=problem.common)
            for model, scale in zip(problem.rewards, problem.scales, strict=True)
        ]
    )


class _OverModels(NamedTuple):
    mean_probability: Floats
    """(P,) PVar of the averaged preference."""
    disagreement: Floats
    """(P,)"""


def _over_models(problem: _Problem) -> _OverModels:
    """Mean and variance of the preferences over models, pair by pair, averaged over pairs."""
    num_models = len(problem.scales)
    mean_probability, between = np.empty((2, problem.rewards.shape[1]), problem.rewards.dtype)
    for of_models in _blocks_of_models(problem):
        prompts = of_models[0].prompts
        squared_mean, variance = np.zeros((2, prompts.stop - prompts.start), mean_probability.dtype)
        for steps in zip(*map(lagged_tanh, of_models, problem.scales), strict=True):
            mean = np.add.reduce([terms for _, terms in steps]) / num_models
            squared_mean += np.square(mean).sum(axis=0)
            for _, terms in steps:
                variance += np.square(terms - mean).sum(axis=0) / num_models
        mean_probability[prompts] = mean_over_pairs(squared_mean, of_models[0])
        between[prompts] = mean_over_pairs(variance, of_models[0])
    return _OverModels(mean_probability, between)


def _blocks_of_models(problem: _Problem) -> Iterator[tuple[Block, ...]]:
    """One block of each model: all are cut at the same prompts and step through the same pairs."""
    return zip(*(blocks(model, problem.common) for model in problem.rewards), strict=True)


def _response_sums(
    of_models: Sequence[Block], scales: Sequence[float], rule: CombinationRule
) -> Floats:
    """(N, B) s_i of the rule's kernel."""
    match rule:
        case "mean_pvar":
            per_model = [
                response_sums(lagged_tanh(block, scale), block)
                for block, scale in zip(of_models, scales, strict=True)
            ]
            return np.asarray(np.mean(per_model, axis=0))
        case "mean_probability":
            return response_sums(_mean_preferences(of_models, scales), of_models[0])


def _mean_preferences(
    of_models: Sequence[Block], scales: Sequence[float]
) -> Iterator[tuple[int, Floats]]:
    """2p̄_ij − 1 pair by pair, as `lagged_tanh` yields them for one model."""
    for steps in zip(*map(lagged_tanh, of_models, scales), strict=True):
        yield steps[0][0], np.add.reduce([terms for _, terms in steps]) / len(steps)
