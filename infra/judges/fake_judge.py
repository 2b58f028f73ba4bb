"""A judge whose verdicts are computed from hashes of the texts.

For tests and for trying out the workflow. Every answer has a hidden quality q, practically uniform
in [0, 1) and the same on every machine. The preference is ½ + (q_second − q_first)/2, so swapping
the answers reverses the verdict. It can also fail as real judges do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pvar.digest import digest
from pvar.records import Comparison, Verdict


@dataclass(frozen=True)
class FakePairJudge:
    """A judge whose verdicts depend only on the prompt's messages and the two texts."""

    missing_share: float = 0.0
    """Share of the comparisons, in [0, 1], without a verdict (`fake_failure`)."""

    @property
    def identity(self) -> Mapping[str, str | int | float | bool | None]:
        """The kind and the settings; a fake reward model has another identity."""
        return {"kind": "fake_judge", "missing_share": self.missing_share}

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """One verdict per comparison, in order."""
        return [self._verdict(comparison) for comparison in comparisons]

    def _verdict(self, comparison: Comparison) -> Verdict:
        if _uniform("fate", comparison, comparison.first, comparison.second) < self.missing_share:
            return Verdict(comparison.prompt_id, None, "fake_failure")
        first = _uniform("quality", comparison, comparison.first)
        second = _uniform("quality", comparison, comparison.second)
        return Verdict(comparison.prompt_id, 0.5 + (second - first) / 2)


def _uniform(purpose: str, comparison: Comparison, *texts: str) -> float:
    """Return a number in [0, 1) from a hash; 13 hex digits are 52 bits, exact as a float."""
    return int(digest([purpose, comparison.messages, texts], length=13), 16) / 16**13
