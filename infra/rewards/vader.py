"""VADER sentiment as a reward: a known true reward that costs no GPU.

The reward is scale · compound, where compound = s/√(s² + 15) lies in [−1, 1] and s is the sum of
the valences of the text's words after VADER's rules for negation, intensity and "but" (Hutto and
Gilbert, ICWSM 2014). The sum makes longer texts of one tone score higher, up to saturation, and
compound is rounded to 4 decimals, so that saturated texts tie. The lexicon is English.
"""

from collections.abc import Sequence

from pvar.ports import ScoreRequest
from pvar.records import Score


class VaderScorer:
    """Scores the response only, without the prompt."""

    def __init__(self, scale: float) -> None:
        """`scale` is the reward per unit of compound score."""
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        self._scale = scale
        self._analyzer = SentimentIntensityAnalyzer()

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One reward in [−scale, scale] per request; none (`empty_response`) for a blank text."""
        return [self._score(request) for request in requests]

    def close(self) -> None:
        """Do nothing: there is no model."""

    def _score(self, request: ScoreRequest) -> Score:
        # VADER's own answer to a blank text is 0.0, which would read as a neutral tone.
        if request.is_empty:
            return Score(request.prompt_id, request.response_id, None, "empty_response")
        compound = float(self._analyzer.polarity_scores(request.response)["compound"])
        return Score(request.prompt_id, request.response_id, self._scale * compound)
