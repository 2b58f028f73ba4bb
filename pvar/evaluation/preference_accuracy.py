"""Preference accuracy: how often a model prefers the answer that is labelled as chosen.

The pairs are labelled by the data and held out. No answer is sampled and no judge is asked: a model
prefers the answer to which it gives the higher log-probability.

    likelihood   log π(y_w|x) > log π(y_l|x)
    per token    log π(y_w|x) / |y_w| > log π(y_l|x) / |y_l|, which does not favour short answers
                 (the reward of SimPO, arXiv 2405.14734)
    implicit     β log π(y_w|x)/π_ref(y_w|x) > β log π(y_l|x)/π_ref(y_l|x): the reward that DPO
                 trains (arXiv 2305.18290, eq. 5), relative to the policy before training

A tie counts ½. β scales the implicit margin and does not change the accuracy. The implicit accuracy
of an untrained model is ½, whatever it knows: so it says what was learned, and the likelihoods say
what the model prefers. Changes are paired, with intervals over prompts (`paired.py`).
"""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from pvar.errors import InputError
from pvar.evaluation.paired import paired_difference, paired_win_rate
from pvar.implicit_reward import implicit_rewards


class LabelLogps(NamedTuple):
    """Log-probabilities of a labelled pair's answers under one model, in nats."""

    prompt_id: str
    source: str
    """Name of the data set or file of the pair."""
    chosen: float
    rejected: float
    num_chosen_tokens: int
    """Tokens of the answer, including its end."""
    num_rejected_tokens: int


class LikelihoodAccuracy(NamedTuple):
    """Shares of pairs in which one model prefers the labelled answer; None without pairs."""

    likelihood: float | None
    per_token: float | None


class PreferenceAccuracy(NamedTuple):
    """Shares of pairs in which the labelled answer is preferred, in [0, 1].

    They are over the pairs that every model has; all are None if there is no such pair, and the
    implicit ones without a reference.
    """

    compared_with: str
    """Name of the model whose shares are `…_before`."""
    source: str | None
    """None for the pairs of all sources."""
    num_pairs: int
    """Pairs that every model has."""
    num_wanted: int
    """Pairs that any model has."""
    likelihood_before: float | None
    likelihood_after: float | None
    likelihood_change: float | None
    """After minus before, in [−1, 1]."""
    likelihood_change_lower: float | None
    likelihood_change_upper: float | None
    per_token_before: float | None
    per_token_after: float | None
    per_token_change: float | None
    per_token_change_lower: float | None
    per_token_change_upper: float | None
    implicit: float | None
    """Of the model after training."""
    implicit_lower: float | None
    implicit_upper: float | None
    implicit_margin_mean: float | None
    """Mean of chosen minus rejected implicit reward."""


def preference_accuracy(
    before: Sequence[LabelLogps],
    after: Sequence[LabelLogps],
    reference: Sequence[LabelLogps] | None,
    *,
    compared_with: str,
    beta: float,
    confidence: float,
    seed: int,
) -> list[PreferenceAccuracy]:
    """The accuracy over all pairs and, if there are several sources, over those of each.

    `reference` is the policy from which `after` was trained. Rows are joined by prompt id. Raises
    InputError if a prompt has two rows of one model.
    """
    given = [_by_prompt(rows) for rows in (before, after, reference or ())]
    models = given[: 2 if reference is None else 3]
    sources = {row.prompt_id: row.source for rows in models for row in rows.values()}
    names = sorted(set(sources.values()))
    found = []
    for source in (None, *(names if len(names) > 1 else ())):
        wanted = [each for each in sorted(sources) if source in (None, sources[each])]
        shared = [each for each in wanted if all(each in rows for rows in models)]
        of_models = [[rows[each] for each in shared] for rows in models]
        figures = _figures(of_models, beta, confidence, seed) if shared else [None] * _NUM_FIGURES
        found.append(PreferenceAccuracy(compared_with, source, len(shared), len(wanted), *figures))
    return found


def likelihood_accuracy(rows: Sequence[LabelLogps]) -> LikelihoodAccuracy:
    """The accuracy of one model by its likelihoods."""
    if not rows:
        return LikelihoodAccuracy(None, None)
    return LikelihoodAccuracy(
        *(fmean(_preferences(map(margin, rows))) for margin in (_margin, _margin_per_token))
    )


_NUM_FIGURES = len(PreferenceAccuracy._fields) - 4


def _by_prompt(rows: Sequence[LabelLogps]) -> dict[str, LabelLogps]:
    found: dict[str, LabelLogps] = {}
    for row in rows:
        if row.prompt_id in found:
            raise InputError(
                f"prompt {row.prompt_id} has two labelled pairs of one model; give one per prompt"
            )
        found[row.prompt_id] = row
    return found


def _figures(
    models: Sequence[Sequence[LabelLogps]], beta: float, confidence: float, seed: int
) -> list[float | None]:
    """The shares and their intervals, in the order of the fields."""
    before, after, *reference = models
    figures: list[float | None] = []
    for margin in (_margin, _margin_per_token):
        first, second = (_preferences(map(margin, rows)) for rows in (before, after))
        change = paired_difference(second, first, confidence=confidence, seed=seed)
        figures += [
            fmean(first), fmean(second), change.difference, change.ci_lower, change.ci_upper
        ]  # fmt: skip
    if not reference:
        return [*figures, None, None, None, None]
    margins = _implicit_margins(after, reference[0], beta)
    share = paired_win_rate(_preferences(margins), confidence=confidence, seed=seed)
    return [*figures, share.win_rate, share.ci_lower, share.ci_upper, fmean(margins)]


def _preferences(margins: Iterable[float]) -> list[float]:
    """1 where the chosen answer is preferred, 0 where the rejected one is, ½ for a tie."""
    return [((margin > 0) - (margin < 0) + 1) / 2 for margin in margins]


def _margin(row: LabelLogps) -> float:
    return row.chosen - row.rejected


def _margin_per_token(row: LabelLogps) -> float:
    return row.chosen / row.num_chosen_tokens - row.rejected / row.num_rejected_tokens


def _implicit_margins(
    policy: Sequence[LabelLogps], reference: Sequence[LabelLogps], beta: float
) -> list[float]:
    """Implicit reward of the chosen answer minus that of the rejected one."""
    logps = ([(row.chosen, row.rejected) for row in rows] for rows in (policy, reference))
    rewards = implicit_rewards(*logps, beta=beta)
    margins: list[float] = (rewards[:, 0] - rewards[:, 1]).tolist()
    return margins
