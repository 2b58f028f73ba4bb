"""A judge that counts words: the answer with the more positive tone wins, by the AFINN lexicon.

AFINN (Nielsen, arXiv 1103.2903) gives English words a valence from −5 to 5. It was made
independently of VADER, so a policy rewarded by VADER can be judged by AFINN. Answers are compared
by valence per word, because a model could raise the sum by length alone. The cost is that neutral
words dilute the mean, so a short warm answer beats a long one of the same warmth.

Not supported: negation ("not good" is positive), irony, and relevance to the prompt.
"""

import warnings
from collections.abc import Mapping, Sequence
from math import inf

from pvar.records import Comparison, Verdict


class LexiconJudge:
    """Judges by AFINN valence per word. An answer without words loses to any answer with words."""

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
        """1 if `second` is more positive per word, 0 if `first` is, ½ for a tie."""
        return [self._verdict(comparison) for comparison in comparisons]

    def _verdict(self, comparison: Comparison) -> Verdict:
        first, second = self._valence(comparison.first), self._valence(comparison.second)
        preference = 0.5 if first == second else float(second > first)
        return Verdict(comparison.prompt_id, preference)

    def _valence(self, text: str) -> float:
        """Mean valence per word, in [−5, 5]; −∞ without words."""
        num_words = len(self._afinn.split(text))
        return float(self._afinn.score(text)) / num_words if num_words else -inf
