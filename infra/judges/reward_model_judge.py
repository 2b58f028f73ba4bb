"""A reward model as judge: the preference is Bradley–Terry's σ((r_second − r_first)/scale).

One model that scores answers one by one has no position bias, so one showing is enough. To judge by
the reward model of the selection is circular: see `pvar.circular_judge`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pvar.digest import response_id
from pvar.judging import Identity
from pvar.ports import Scorer, ScoreRequest
from pvar.records import Comparison, Score, Verdict


@dataclass(frozen=True)
class RewardPairJudge:
    """Judges through the `Scorer` port; whoever opened the scorer closes it."""

    scorer: Scorer
    reward_model: Identity
    """What decides the scorer's rewards: its configuration with the model pinned."""
    scale: float = 1.0
    """Reward difference per unit of log-odds (> 0)."""

    @property
    def identity(self) -> Mapping[str, str | int | float | bool | None]:
        """The reward model's own identity, its kind as `reward_model`, and the scale."""
        return {
            **self.reward_model,
            "kind": "reward_model",
            "reward_model": self.reward_model["kind"],
            "preference_scale": float(self.scale),
        }

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """One verdict per comparison, in order; every text is scored once."""
        requests = [_requests(comparison) for comparison in comparisons]
        distinct = list(dict.fromkeys(request for both in requests for request in both))
        scores = dict(zip(distinct, self.scorer.score(distinct), strict=True))
        return [
            self._verdict(comparison, scores[first], scores[second])
            for comparison, (first, second) in zip(comparisons, requests, strict=True)
        ]

    def _verdict(self, comparison: Comparison, first: Score, second: Score) -> Verdict:
        if first.reward is None or second.reward is None:
            missing = first if first.reward is None else second
            return Verdict(comparison.prompt_id, None, missing.reason or "no_reward")
        log_odds = (second.reward - first.reward) / self.scale
        if math.isnan(log_odds):
            return Verdict(comparison.prompt_id, None, "reward_not_a_number")
        # σ(d) as ½ + tanh(d/2)/2, which never overflows.
        return Verdict(comparison.prompt_id, 0.5 + math.tanh(log_odds / 2) / 2)


def _requests(comparison: Comparison) -> tuple[ScoreRequest, ScoreRequest]:
    return _request(comparison, comparison.first), _request(comparison, comparison.second)


def _request(comparison: Comparison, text: str) -> ScoreRequest:
    prompt = comparison.prompt_id
    return ScoreRequest(prompt, response_id(prompt, 0, text), comparison.messages, text)
