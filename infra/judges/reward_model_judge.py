"""A reward model as judge: the preference is Bradley–Terry's σ((r_second − r_first)/scale).

The model scores the answers separately and so has no position bias; one order is enough. A judge
that is also a reward model of the selection is circular: see `pvar.circular_judge`.
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
    """Judges with a `Scorer`, which its opener closes."""

    scorer: Scorer
    reward_model: Identity
    """The settings that determine the scorer's rewards: its configuration with a pinned model."""
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
        """One verdict per comparison, in order. Every text is scored once."""
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
