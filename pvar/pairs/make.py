"""Make pairs by a rule, and count every requested pair."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from pvar.errors import ConfigError, InputError
from pvar.pairs.answers import RewardedAnswer, usable_answers
from pvar.pairs.best_random import match_best_random
from pvar.pairs.best_worst import match_best_worst
from pvar.pairs.match import Match
from pvar.pairs.max_mu_minus_2sigma import match_max_mu_minus_2sigma
from pvar.pairs.original import Annotation, original_pair
from pvar.records import Pair, Prompt, Response, Score
from pvar.row_counts import RowCounts


class RewardRule(NamedTuple):
    """A rule that matches the answers to one prompt by their rewards."""

    match: Callable[[Sequence[RewardedAnswer], int, int], list[Match]]
    """(two or more answers, best first; maximum number of pairs; seed) → matches."""
    draws: bool = False
    """Whether the rule uses the seed. Otherwise the seed is not hashed."""


RULES: Mapping[str, RewardRule] = {
    "best_worst": RewardRule(match_best_worst),
    "best_random": RewardRule(match_best_random, draws=True),
    "max_mu_minus_2sigma": RewardRule(match_max_mu_minus_2sigma),
}
"""Rules by reward."""

ORIGINAL = "original"
"""The rule that uses the preferences annotated in the data instead of sampled responses."""

if TYPE_CHECKING:
    PairRule = str
else:  # the choices that a configuration offers
    PairRule = Literal[(*RULES, ORIGINAL)]


class Pairing(NamedTuple):
    """The pairs, and the row counts."""

    pairs: list[Pair]
    """Pairs in the order of the prompts."""
    row_counts: RowCounts
    """Counts pairs: prompts times pairs per prompt in, pairs out, the others by reason."""
    responses: RowCounts
    """Counts responses: usable answers out, the others by reason. Empty for rule `original`."""


def make_pairs(
    prompts: Sequence[Prompt],
    responses: Iterable[Response],
    scores: Iterable[Score],
    rule: PairRule,
    *,
    seed: int,
    pairs_per_prompt: int = 1,
    min_margin: float = 0.0,
    keep_truncated: bool = False,
    annotations: Iterable[Annotation] = (),
) -> Pairing:
    """Make up to `pairs_per_prompt` pairs for each prompt.

    `min_margin` is the minimum difference of the two rewards (for `original`: of the annotated
    scores, which are then required). Only `original` reads `annotations`, and only the other rules
    read responses and scores. Raises InputError for duplicate ids, ConfigError for several
    original pairs per prompt.
    """
    _refuse_repeated(prompts)
    if rule == ORIGINAL:
        if pairs_per_prompt != 1:
            raise ConfigError(
                f"pair.pairs_per_prompt is {pairs_per_prompt}, but pair.rule is original and a "
                "prompt has one original pair; set pairs_per_prompt to 1 or use another rule"
            )
        by_prompt = {annotation.prompt_id: annotation for annotation in annotations}
        outcomes = [
            original_pair(prompt, by_prompt.get(prompt.prompt_id), min_margin) for prompt in prompts
        ]
        return _account(outcomes, RowCounts())

    answers = usable_answers(
        responses,
        scores,
        prompt_ids={prompt.prompt_id for prompt in prompts},
        keep_truncated=keep_truncated,
    )
    outcomes = []
    for prompt in prompts:
        usable = answers.by_prompt.get(prompt.prompt_id, ())
        matches = RULES[rule].match(usable, pairs_per_prompt, seed) if len(usable) > 1 else []
        outcomes += [_reward_pair(prompt, match, min_margin) for match in matches]
        outcomes += ["too_few_answers"] * (pairs_per_prompt - len(matches))
    return _account(outcomes, answers.row_counts)


def _reward_pair(prompt: Prompt, match: Match, min_margin: float) -> Pair | str:
    """The pair, or the reason why it is rejected. Duplicate texts are removed before."""
    margin = match.chosen.reward - match.rejected.reward
    if margin == 0:
        return "tie"
    if margin < min_margin:
        return "margin"
    return Pair(
        prompt.prompt_id,
        prompt.messages,
        match.chosen.text,
        match.rejected.text,
        match.chosen.reward,
        match.rejected.reward,
    )


def _account(outcomes: Sequence[Pair | str], responses: RowCounts) -> Pairing:
    pairs = [outcome for outcome in outcomes if isinstance(outcome, Pair)]
    rejected = Counter(outcome for outcome in outcomes if isinstance(outcome, str))
    row_counts = RowCounts(
        rows_in=len(outcomes), rows_out=len(pairs), rejected=dict(sorted(rejected.items()))
    )
    return Pairing(pairs, row_counts, responses)


def _refuse_repeated(prompts: Sequence[Prompt]) -> None:
    for prompt_id, count in Counter(prompt.prompt_id for prompt in prompts).most_common(1):
        if count > 1:
            raise InputError(
                f"prompt id {prompt_id} occurs {count} times, but responses are joined by prompt "
                "id; deduplicate the prompts first"
            )
