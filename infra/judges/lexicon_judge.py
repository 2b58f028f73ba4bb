"""A judge that counts words: the answer with the more positive tone wins, by the AFINN lexicon.

AFINN (Nielsen, arXiv 1103.2903) gives English words a valence from −5 to 5. It was made
independently of VADER, so a policy rewarded by VADER can be judged by AFINN. Answers are compared
by valence per word, because a model could raise the sum by length alone. The cost is that neutral
words dilute the mean, so a short warm answer beats a long one of the same warmth.

    without a scale:  1, ½ or 0
    with a scale:     σ((valence_second − valence_first)/scale), as of a Bradley–Terry model

With a scale, a small difference counts little, where without one it counts as much as a large one.

Not supported: negation ("not good" is positive), irony, and relevance to the prompt.
"""

import math
import warnings
from collections.abc import Mapping, Sequence

from pvar.records import Comparison, Verdict


class LexiconJudge:
    """Judges by AFINN valence per word. An answer without words loses to any answer with words."""

    def __init__(self, scale: float | None = None) -> None:
        """`scale` (> 0) is the difference in valence per word per unit of log-odds."""
        with warnings.catch_warnings():
            # afinn 0.1, the newest release, has "\w" outside of a raw string: compiling it warns.
            warnings.filterwarnings("ignore", message="invalid escape sequence")
            from afinn import Afinn

        self._afinn = Afinn(language="en")
        self._scale = scale

    @property
    def identity(self) -> Mapping[str, str | int | float | bool | None]:
        """The lexicon, how its valences are combined, and the scale if there is one."""
        identity = {"kind": "afinn", "lexicon": "AFINN-en-165", "combination": "mean_per_word"}
        return identity if self._scale is None else {**identity, "scale": float(self._scale)}

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """Preference for `second`; without a scale 1 if it is more positive, 0 if `first` is."""
        return [self._verdict(comparison) for comparison in comparisons]

    def _verdict(self, comparison: Comparison) -> Verdict:
        first, second = self._valence(comparison.first), self._valence(comparison.second)
        return Verdict(comparison.prompt_id, self._preference(first, second))

    def _preference(self, first: float, second: float) -> float:
        if first == second:  # also where neither has words
            return 0.5
        if self._scale is None:
            return float(second > first)
        # σ(d) as ½ + tanh(d/2)/2, which never overflows; d is ±∞ where one has no words.
        return 0.5 + math.tanh((second - first) / self._scale / 2) / 2

    def _valence(self, text: str) -> float:
        """Mean valence per word, in [−5, 5]; −∞ without words."""
        num_words = len(self._afinn.split(text))
        return float(self._afinn.score(text)) / num_words if num_words else -math.inf
