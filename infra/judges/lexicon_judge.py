"""A judge that counts words: the answer of the more positive tone wins, by the AFINN lexicon.

AFINN (Nielsen, arXiv 1103.2903) gives English words a valence from −5 to 5; it was made
independently of VADER, so a policy rewarded by the one can be judged by the other. Answers are
compared by valence per word, not by the sum: the sum doubles when an answer says everything twice,
so a model would win by length alone; the mean does not move. Its price is that neutral words
dilute, so a short warm answer beats a long one of the same warmth.

Not covered: negation ("not good" is positive), irony, and whether the answer fits the prompt.
"""

import warnings
from collections.abc import Mapping, Sequence
from math import inf

from pvar.records import Comparison, Verdict


class LexiconJudge:
    """AFINN valence per word; an answer without words loses to any answer with words."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # afinn 0.1, the newest release, has "\w" outside of a raw string: compiling it warns.
            warnings.filterwarnings("ignore", message="invalid escape sequence")
            from afinn import Afinn

        self._afinn = Afinn(language="en")

    @property
    def identity(self) -> Mapping[str, str | int | float | bool | None]:
        """The lexicon and how its valences are combined."""
        return {"kind": "afinn", "lexicon": "AFINN-en-165", "combination": "mean_per_word"}

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """Return 1 where `second` is more positive per word, 0 where `first` is, ½ for a tie."""
        return [self._verdict(comparison) for comparison in comparisons]

    def _verdict(self, comparison: Comparison) -> Verdict:
        first, second = self._valence(comparison.first), self._valence(comparison.second)
        preference = 0.5 if first == second else float(second > first)
        return Verdict(comparison.prompt_id, preference)

    def _valence(self, text: str) -> float:
        """Mean valence per word, in [−5, 5]; −∞ without words, or silence would beat bad news."""
        num_words = len(self._afinn.split(text))
        return float(self._afinn.score(text)) / num_words if num_words else -inf
