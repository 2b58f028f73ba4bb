"""Label audit: do models agree with the labels of new data as much as with earlier labels?

A model agrees with a label if it prefers the answer that is labelled as chosen: by its reward, by
its implicit reward, or as a judge. Agreement is the share of the labels on which it does; a tie
counts ½, and a label about which a model says nothing is left out and counted. It is no accuracy:
model or label may be wrong. What says something about labels is that agreement *drops*.

    agreement        (agree + tie / 2) / (agree + tie + disagree)
    interval         Wilson's (1927) of the share of agreement among the labels that are not ties
    comparison       Fisher's exact test (1935), one-sided, with the earlier labels of the group
    new groups       the binomial test against ½, one-sided: are the labels reversed?
    all comparisons  Holm's step-down procedure (1979)

A tie stays a tie if its label is flipped, so that it says nothing about the label: as in the sign
test, comparisons are of the others. Holm's procedure needs no independence of the models.

Agreement varies from batch to batch by more than independent labels do, because topics change. So
the test is scaled by the overdispersion of the earlier batches: Pearson's X² of agreement by batch
over its degrees of freedom φ (McCullagh and Nelder, 1989, section 4.5, with φ = 1 for a smaller
one). The normal quantile of Fisher's p-value is divided by √φ and read as Student's t with as many
degrees of freedom. With one earlier batch nothing is known of that, and φ is 1.

Sources differ by nature, so a group without earlier labels is not compared with other groups.
Figures of all this are in tests/benchmarks/README.md.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pvar.label_audit_config import HoldConfig

ModelKind = Literal["reward_model", "champion", "judge"]
Grouping = Literal["source", "annotator"]


class AskedLabel(NamedTuple):
    """What one model says about one labelled pair."""

    prompt_id: str
    source: str
    annotator: str | None
    """None where the row names nobody."""
    kind: ModelKind
    model: str
    settings: str
    """Digest of what determines the model's answers: models with different ones are different."""
    margin: float | None
    """Above 0 for the label, below 0 against it, in the model's own unit: chosen minus rejected
    reward, implicit reward in nats, or a judge's preference minus ½. None is missing."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AgreementCounts(_Record):
    """How many labels of one source or annotator a model agrees with."""

    kind: ModelKind
    model: str
    settings: str
    grouping: Grouping
    group: str
    """Name of the source or annotator."""
    num_agree: int = Field(ge=0)
    num_tie: int = Field(ge=0)
    num_disagree: int = Field(ge=0)
    num_missing: int = Field(ge=0)

    @property
    def num_decided(self) -> int:
        """Labels that the model agrees or disagrees with."""
        return self.num_agree + self.num_disagree

    @property
    def num_labels(self) -> int:
        """Labels about which the model says something."""
        return self.num_decided + self.num_tie

    @property
    def agreement(self) -> float | None:
        """Share in [0, 1]; None without labels."""
        if not self.num_labels:
            return None
        return (self.num_agree + self.num_tie / 2) / self.num_labels

    def interval(self, confidence: float = 0.95) -> "AgreementInterval | None":
        """Interval of the agreement, given the number of ties; None if all are ties."""
        if not self.num_decided:
            return None
        from scipy import stats

        wilson = stats.binomtest(self.num_agree, self.num_decided).proportion_ci(
            confidence, method="wilson"
        )
        weight = self.num_decided / self.num_labels
        return AgreementInterval(
            0.5 + weight * (float(wilson.low) - 0.5), 0.5 + weight * (float(wilson.high) - 0.5)
        )

    @property
    def asked(self) -> tuple[str, str, str]:
        """The model: kind, name and settings."""
        return self.kind, self.model, self.settings


class AgreementInterval(NamedTuple):
    """Bounds of an agreement, in [0, 1]."""

    lower: float
    upper: float


class Disagreement(_Record):
    """A source or annotator with whose labels a model agrees less than so far."""

    now: AgreementCounts
    so_far: AgreementCounts | None
    """In earlier batches; None if these have too few labels of the group, so that its agreement is
    compared with ½."""
    overdispersion: float
    """φ, by which the test was scaled."""
    p_value: float
    """After Holm's correction for all comparisons of the batch."""

    @property
    def sentence(self) -> str:
        """What disagrees, with both agreements."""
        before = "less than half, without earlier ones to compare with"
        if self.so_far is not None:
            bounds = self.so_far.interval()
            between = "" if bounds is None else f" ({bounds.lower:.1%} to {bounds.upper:.1%})"
            before = (
                f"with {self.so_far.agreement or 0:.1%}{between} of {self.so_far.num_labels} in "
                "earlier batches"
            )
        return (
            f"{self.now.grouping} {self.now.group}: {self.now.model} agrees with "
            f"{self.now.agreement or 0:.1%} of {self.now.num_labels} labels, {before} "
            f"(p = {self.p_value:.2g})"
        )

    @property
    def drop(self) -> float:
        """Agreement so far, or ½, minus agreement now."""
        before = 0.5 if self.so_far is None else self.so_far.agreement
        now = self.now.agreement
        return 0.0 if now is None or before is None else before - now


class DisagreeingRow(_Record):
    """A labelled pair, and how much the models are against its label."""

    prompt_id: str
    source: str
    annotator: str | None
    strength: float
    """Mean over the models of minus margin over the model's mean absolute margin in the batch."""
    margins: dict[str, float]
    """By model."""


class Overdispersion(NamedTuple):
    """Variation between batches, relative to that of independent labels."""

    factor: float
    """φ, at least 1."""
    degrees_of_freedom: int

    def scaled(self, p_value: float) -> float:
        """The one-sided p-value of a test that assumed independent labels, given φ."""
        if self.factor == 1.0:
            return p_value
        from scipy import stats

        quantile = stats.norm.isf(p_value) / math.sqrt(self.factor)
        return float(stats.t.sf(quantile, self.degrees_of_freedom))


def count_agreement(rows: Iterable[AskedLabel]) -> list[AgreementCounts]:
    """The agreement of each model with each source and each named annotator, in sorted order."""
    outcomes: dict[tuple[Grouping, ModelKind, str, str, str], Counter[str]] = {}
    for row in rows:
        groups: list[tuple[Grouping, str]] = [("source", row.source)]
        if row.annotator is not None:
            groups.append(("annotator", row.annotator))
        for grouping, group in groups:
            key = (grouping, row.kind, row.model, row.settings, group)
            outcomes.setdefault(key, Counter())[_outcome(row.margin)] += 1
    return [
        AgreementCounts(
            kind=kind,
            model=model,
            settings=settings,
            grouping=grouping,
            group=group,
            num_agree=found["agree"],
            num_tie=found["tie"],
            num_disagree=found["disagree"],
            num_missing=found["missing"],
        )
        for (grouping, kind, model, settings, group), found in sorted(outcomes.items())
    ]


def total_agreement(counts: Sequence[AgreementCounts], group: str) -> AgreementCounts:
    """The sum, under this name. The counts are of one model, and at least one."""
    return counts[0].model_copy(
        update={
            "group": group,
            "num_agree": sum(each.num_agree for each in counts),
            "num_tie": sum(each.num_tie for each in counts),
            "num_disagree": sum(each.num_disagree for each in counts),
            "num_missing": sum(each.num_missing for each in counts),
        }
    )


def find_disagreements(
    now: Sequence[AgreementCounts], earlier: Sequence[AgreementCounts], rules: HoldConfig
) -> list[Disagreement]:
    """The groups of a batch whose agreement is significantly lower than so far, lowest p first.

    `earlier` are the counts of the batches whose labels count as good, one of each batch and group,
    in any order. A group is compared with its own earlier labels under the same model, or, if they
    are fewer than `min_labels`, with ½. The champion is not compared: it changes, and was trained
    on the labels of some sources.
    """
    compared = [
        _compared(counts, earlier, rules.min_labels)
        for counts in now
        if counts.kind != "champion" and counts.num_decided >= rules.min_labels
    ]
    adjusted = holm([each.p_value for each in compared])
    named = [
        each.model_copy(update={"p_value": p_value})
        for each, p_value in zip(compared, adjusted, strict=True)
        if p_value <= rules.level and each.drop >= rules.min_drop
    ]
    return sorted(named, key=lambda each: each.p_value)


def overdispersion(counts: Sequence[AgreementCounts]) -> Overdispersion:
    """How much more agreement varies between the batches of a group than independent labels do.

    Of one model; all its groups together, because each has few batches. A group that is always, or
    never, agreed with says nothing.
    """
    chi_squared, degrees_of_freedom = 0.0, 0
    for group in sorted({each.group for each in counts}):
        batches = [each for each in counts if each.group == group and each.num_decided]
        num_decided = sum(each.num_decided for each in batches)
        share = sum(each.num_agree for each in batches) / max(num_decided, 1)
        if len(batches) > 1 and 0 < share < 1:
            degrees_of_freedom += len(batches) - 1
            chi_squared += sum(
                (each.num_agree - each.num_decided * share) ** 2 / each.num_decided
                for each in batches
            ) / (share * (1 - share))
    if not degrees_of_freedom:
        return Overdispersion(1.0, 0)
    return Overdispersion(max(1.0, chi_squared / degrees_of_freedom), degrees_of_freedom)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the given order: those at most α are rejected at familywise error α.

    Holm (1979), "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def strongest_disagreements(
    rows: Sequence[AskedLabel], found: Sequence[Disagreement], limit: int
) -> list[DisagreeingRow]:
    """The labelled pairs of the groups in `found` that the models are most against, at most
    `limit`. Only pairs that the models are against on the whole."""
    sizes: dict[tuple[str, str, str], list[float]] = {}
    by_prompt: dict[str, list[AskedLabel]] = {}
    for row in rows:
        if row.margin is not None:
            sizes.setdefault(_asked(row), []).append(abs(row.margin))
            by_prompt.setdefault(row.prompt_id, []).append(row)
    scales = {asked: fmean(margins) for asked, margins in sizes.items()}
    named = {(each.now.grouping, each.now.group) for each in found}
    ranked = [
        DisagreeingRow(
            prompt_id=prompt_id,
            source=asked[0].source,
            annotator=asked[0].annotator,
            strength=fmean(_against(row.margin, scales[_asked(row)]) for row in asked),
            margins={row.model: row.margin for row in asked if row.margin is not None},
        )
        for prompt_id, asked in by_prompt.items()
        if named & {("source", asked[0].source), ("annotator", asked[0].annotator)}
    ]
    ranked.sort(key=lambda row: (-row.strength, row.prompt_id))
    return [row for row in ranked if row.strength > 0][:limit]


def _outcome(margin: float | None) -> str:
    if margin is None:
        return "missing"
    return "tie" if margin == 0 else "agree" if margin > 0 else "disagree"


def _asked(row: AskedLabel) -> tuple[str, str, str]:
    return row.kind, row.model, row.settings


def _against(margin: float | None, scale: float) -> float:
    return 0.0 if margin is None or not scale else -margin / scale


def _compared(
    counts: AgreementCounts, earlier: Sequence[AgreementCounts], min_labels: int
) -> Disagreement:
    """The comparison, with its uncorrected p-value."""
    from scipy import stats

    alike = [
        each for each in earlier if (each.asked, each.grouping) == (counts.asked, counts.grouping)
    ]
    own = [each for each in alike if each.group == counts.group]
    if sum(each.num_decided for each in own) < min_labels:
        p_value = stats.binomtest(counts.num_agree, counts.num_decided, alternative="less").pvalue
        return Disagreement(now=counts, so_far=None, overdispersion=1.0, p_value=float(p_value))
    so_far, variation = total_agreement(own, counts.group), overdispersion(alike)
    table = np.array([[each.num_agree, each.num_disagree] for each in (counts, so_far)])
    p_value = stats.fisher_exact(table, alternative="less").pvalue
    return Disagreement(
        now=counts,
        so_far=so_far,
        overdispersion=variation.factor,
        p_value=variation.scaled(float(p_value)),
    )
