"""A reward model whose rewards are hashes of the texts.

For tests and for trying out the workflow. Rewards are practically uniform in [−2, 2), the same on
every machine, and have no meaning. It can also fail as real models do: no reward, or NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

from pvar.digest import digest
from pvar.ports import ScoreRequest
from pvar.records import Score


@dataclass(frozen=True)
class FakeScorer:
    """Scores the response only, so that equal texts have equal rewards."""

    name: str
    """Salt of the hash, so that scorers with different names disagree."""
    missing_share: float = 0.0
    """Share of the texts, in [0, 1], that get no reward (`fake_failure`)."""
    nan_share: float = 0.0
    """Share of the texts, in [0, 1 − missing_share], whose reward is NaN."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score per request, in order."""
        return [self._score(request) for request in requests]

    def close(self) -> None:
        """Do nothing: there is no model."""

    def _score(self, request: ScoreRequest) -> Score:
        fate = self._uniform("fate", request.response)
        if fate < self.missing_share:
            return Score(request.prompt_id, request.response_id, None, "fake_failure")
        if fate < self.missing_share + self.nan_share:
            return Score(request.prompt_id, request.response_id, nan)
        reward = 4 * self._uniform("reward", request.response) - 2
        return Score(request.prompt_id, request.response_id, reward)

    def _uniform(self, purpose: str, text: str) -> float:
        """Return a number in [0, 1) from a hash; 13 hex digits are 52 bits, exact as a float."""
        return int(digest([self.name, purpose, text], length=13), 16) / 16**13
