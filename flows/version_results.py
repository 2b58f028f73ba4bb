"""The results of a model's versions, by exam: one curve for each exam and its conditions."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from infra.registered_models import VersionFacts
from pvar.fresh_pairs import FRESH
from tasks.stages.promote import EXAM_TAGS, FIRST_MODEL_TAG, FIRST_TAG, GATE_TAG, LOOK_TAG


class Results(NamedTuple):
    """A version's paired win rate and its interval, in [0, 1]; None if it was not evaluated."""

    win_rate: float | None
    win_rate_lower: float | None
    win_rate_upper: float | None

    def __str__(self) -> str:
        if self.win_rate is None or self.win_rate_lower is None or self.win_rate_upper is None:
            return "no results"
        return f"{self.win_rate:.1%} ({self.win_rate_lower:.1%}–{self.win_rate_upper:.1%})"


class FreshResults(NamedTuple):
    """How often a version prefers the labelled answers of its batch's fresh pairs, per token, in
    [0, 1], and the paired changes, in [−1, 1]. None if they were not asked."""

    agreement: float | None
    change: float | None
    """Since the opponent."""
    change_lower: float | None
    change_upper: float | None
    change_since_first: float | None
    change_since_first_lower: float | None
    change_since_first_upper: float | None

    def __str__(self) -> str:
        if self.agreement is None:
            return "–"
        if self.change is None or self.change_lower is None or self.change_upper is None:
            return f"{self.agreement:.1%}"
        change, lower, upper = (
            f"{100 * each:+.1f}" for each in (self.change, self.change_lower, self.change_upper)
        )
        return f"{self.agreement:.1%}, {change} points ({lower} to {upper})"


class VersionResults(NamedTuple):
    """The results of one version on its exam. Missing figures are None."""

    version: int
    gate: str | None
    """`passed` or `failed`."""
    exam: str | None
    """Digest of the exam; None if an earlier release of pvar registered the version."""
    exam_conditions: str | None
    look: str | None
    """`look 3 at this exam, level 0.0034 of 0.05`."""
    against_opponent: Results
    against_first: Results
    first_model: str | None
    """Digest of the first model; None if the version was not compared with it."""
    ability: float | None
    """Share of the ability questions that it answered correctly."""
    ability_change_since_first: float | None
    """In [−1, 1]."""
    divergence_since_first: float | None
    """KL divergence from the first model in nats per answer, if the gate bounds it."""
    fresh: FreshResults

    @property
    def curve(self) -> tuple[str | None, str | None]:
        """Results that have this in common are comparable, unless it is None."""
        return self.exam, self.exam_conditions

    def as_row(self) -> dict[str, object]:
        """For JSON: the figures side by side, those against the first model and those of fresh
        pairs with a prefix."""
        row = self._asdict()
        del row["against_opponent"], row["against_first"], row["fresh"]
        first = {f"first_{name}": value for name, value in self.against_first._asdict().items()}
        fresh = {f"{FRESH}_{name}": value for name, value in self.fresh._asdict().items()}
        return {**row, **self.against_opponent._asdict(), **first, **fresh}


def results_of(tags: Mapping[str, str], prefix: str = "pvar.") -> Results:
    """The results among a version's tags."""
    return Results(*(_figure(tags.get(f"{prefix}{name}")) for name in Results._fields))


def version_results(versions: Iterable[VersionFacts]) -> list[VersionResults]:
    """The results of these versions, in their order."""
    return [
        VersionResults(
            version=facts.version.version,
            gate=facts.tags.get(GATE_TAG),
            exam=facts.tags.get(EXAM_TAGS["exam"]),
            exam_conditions=facts.tags.get(EXAM_TAGS["exam_conditions"]),
            look=facts.tags.get(LOOK_TAG),
            against_opponent=results_of(facts.tags),
            against_first=results_of(facts.tags, FIRST_TAG),
            first_model=facts.tags.get(FIRST_MODEL_TAG),
            ability=_figure(facts.tags.get("pvar.ability")),
            ability_change_since_first=_figure(facts.tags.get(f"{FIRST_TAG}ability_change")),
            divergence_since_first=_figure(facts.tags.get(f"{FIRST_TAG}kl")),
            fresh=_fresh_results(facts.tags),
        )
        for facts in versions
    ]


def _fresh_results(tags: Mapping[str, str]) -> FreshResults:
    """From the figures of the benchmark of fresh pairs, which are in percent."""
    figures = (
        "challenger_score",
        *("difference", "difference_lower", "difference_upper"),
        *("first_difference", "first_difference_lower", "first_difference_upper"),
    )
    found = (_figure(tags.get(f"pvar.{FRESH}.{name}")) for name in figures)
    return FreshResults(*(None if value is None else value / 100 for value in found))


def by_curve(results: Iterable[VersionResults]) -> list[list[VersionResults]]:
    """The results that are on one curve, oldest curve first. Those without an exam come last, and
    are not comparable with one another."""
    curves: dict[tuple[str | None, str | None], list[VersionResults]] = {}
    for each in results:
        curves.setdefault(each.curve if each.exam else (None, None), []).append(each)
    unknown = curves.pop((None, None), None)
    return [*curves.values(), *([unknown] if unknown else [])]


def _figure(text: str | None) -> float | None:
    value = math.nan if text is None else float(text)
    return None if math.isnan(value) else value
