"""Scores of the benchmark label_agreement, in the form of other benchmarks.

The score of a model is the share of pairs in which it gives the labelled answer the higher
log-probability per token. The challenger is compared with the opponent, with the role `first` if
the first model takes part, and with the role `reference`: the policy from which it was trained, to
which its implicit reward is relative. Where two of them are one model their artifact of stage
likelihood is one.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import Summary
from pvar.evaluation.benchmark_scores import BenchmarkDifference, BenchmarkScore, unjudged_score
from pvar.evaluation.preference_accuracy import (
    LabelLogps,
    PreferenceAccuracy,
    preference_accuracy,
)
from tasks.engine.artifact import Artifact
from tasks.stages.benchmark_inputs import ScoredModel
from tasks.stages.likelihood import LABEL_LOGPS

LABEL_AGREEMENT = "label_agreement.parquet"
"""The table of `PreferenceAccuracy`."""

LIKELIHOOD_INPUT = "likelihood-"
REFERENCE_ROLE = "reference"
"""Role of the policy from which the challenger was trained."""
FIRST_ROLE = "first"
"""Role of the first model."""


class LabelAgreementScoring(BaseModel):
    """The settings that determine the shares."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["label_agreement"]
    beta: float
    seed: int


class LabelAgreementScored(NamedTuple):
    """The result in the form of other benchmarks, and in its own."""

    scores: list[BenchmarkScore]
    differences: list[BenchmarkDifference]
    accuracies: tuple[PreferenceAccuracy, ...]
    figures: Summary


class LabelAgreement(NamedTuple):
    """The accuracies of the challenger, or why there are none."""

    accuracies: tuple[PreferenceAccuracy, ...]
    """For each role that it is compared with: of all pairs, then by source if there are several."""
    not_measured: str | None
    """The reason, if no pair was measured; `accuracies` are then empty."""


def score_label_agreement(
    inputs: Mapping[str, Artifact], models: tuple[ScoredModel, ...], scoring: LabelAgreementScoring
) -> LabelAgreementScored:
    """Compare the challenger with the opponent and, if it is among the models, the first one, from
    the inputs `likelihood-ROLE`."""
    likelihoods = {
        name.removeprefix(LIKELIHOOD_INPUT): artifact
        for name, artifact in inputs.items()
        if name.startswith(LIKELIHOOD_INPUT)
    }
    result = label_agreement(likelihoods, beta=scoring.beta, confidence=0.95, seed=scoring.seed)
    beside_opponent = [row for row in result.accuracies if row.compared_with == "opponent"]
    beside_first = [row for row in result.accuracies if row.compared_with == FIRST_ROLE]
    names = {model.role: model.name for model in models}
    return LabelAgreementScored(
        [
            unjudged_score(
                role=role,
                model=names[role],
                category=row.source,
                score=_percent(share),
                num_questions=row.num_wanted,
                num_judged=row.num_pairs,
            )
            for row, role, share in (
                *((row, "challenger", row.per_token_after) for row in beside_opponent),
                *((row, "opponent", row.per_token_before) for row in beside_opponent),
                *((row, FIRST_ROLE, row.per_token_before) for row in beside_first),
            )
        ],
        [
            BenchmarkDifference(
                row.source,
                _percent(row.per_token_change),
                _percent(row.per_token_change_lower),
                _percent(row.per_token_change_upper),
                row.num_pairs,
            )
            for row in beside_opponent
        ],
        result.accuracies,
        label_agreement_figures(result) | _since_first(beside_first),
    )


def _since_first(beside_first: Sequence[PreferenceAccuracy]) -> Summary:
    """The difference from the first model over all pairs, in percentage points; empty without it.

    The name of each figure is that of the difference from the opponent, with a prefix.
    """
    overall = [row for row in beside_first if row.source is None]
    return {
        f"{FIRST_ROLE}_{name}": _percent(change)
        for row in overall
        for name, change in (
            ("difference", row.per_token_change),
            ("difference_lower", row.per_token_change_lower),
            ("difference_upper", row.per_token_change_upper),
        )
    }


def label_agreement(
    likelihoods: Mapping[str, Artifact], *, beta: float, confidence: float, seed: int
) -> LabelAgreement:
    """Compare the role `challenger` with every other one.

    `likelihoods` are the artifacts by role; without the role `reference` there are no implicit
    accuracies.
    """
    reason = _why_not_measured(likelihoods)
    if reason is not None:
        return LabelAgreement((), reason)
    logps = {role: each.rows(LABEL_LOGPS, LabelLogps) for role, each in likelihoods.items()}
    accuracies = [
        accuracy
        for role in likelihoods
        if role != "challenger"
        for accuracy in preference_accuracy(
            logps[role],
            logps["challenger"],
            logps.get("reference"),
            compared_with=role,
            beta=beta,
            confidence=confidence,
            seed=seed,
        )
    ]
    if not any(accuracy.num_pairs for accuracy in accuracies):
        return LabelAgreement(
            (), f"no labelled pair is left of every model{_rejections(likelihoods)}"
        )
    return LabelAgreement(tuple(accuracies), None)


def _why_not_measured(likelihoods: Mapping[str, Artifact]) -> str | None:
    if not any(each.manifest.row_counts.rows_in for each in likelihoods.values()):
        return "no labelled pairs"
    formats = {
        role: str(each.manifest.summary.get("number_format")) for role, each in likelihoods.items()
    }
    if len(set(formats.values())) > 1:
        each = ", ".join(f"{role} in {format_}" for role, format_ in formats.items())
        return (
            f"log-probabilities were computed in different number formats ({each}), so rounding "
            "would not cancel; set the benchmark's dtype to float32, or to bfloat16"
        )
    return None


def _rejections(likelihoods: Mapping[str, Artifact]) -> str:
    """The number of rejected pairs by role and rule; empty if there are none."""
    found = [
        f"{count} {rule} of {role}"
        for role, artifact in likelihoods.items()
        for rule, count in artifact.manifest.row_counts.rejected.items()
    ]
    return f" ({', '.join(found)})" if found else ""


def label_agreement_figures(result: LabelAgreement) -> Summary:
    """The figures of all pairs beside the opponent; None where nothing was measured."""
    overall = next(
        (row for row in result.accuracies if (row.compared_with, row.source) == ("opponent", None)),
        None,
    )
    names = PreferenceAccuracy._fields[2:]
    return {
        **{name: None if overall is None else getattr(overall, name) for name in names},
        "not_measured": result.not_measured,
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
