"""The result of the benchmark `label_agreement`, from the artifacts of stage likelihood.

Each model has an artifact; a role is what a model is in the comparison. The challenger is compared
with every other role: with `opponent`, and with `reference`, the policy from which it was trained,
to which its implicit reward is relative. Where both are one model their artifact is one.
"""

from collections.abc import Mapping
from typing import NamedTuple

from pvar.artifacts import Summary
from pvar.evaluation.preference_accuracy import (
    LabelLogps,
    PreferenceAccuracy,
    preference_accuracy,
)
from tasks.engine.artifact import Artifact
from tasks.stages.likelihood import LABEL_LOGPS

LABEL_AGREEMENT = "label_agreement.parquet"
"""The table of `PreferenceAccuracy`."""


class LabelAgreement(NamedTuple):
    """The accuracies of the challenger, or why there are none."""

    accuracies: tuple[PreferenceAccuracy, ...]
    """For each role that it is compared with: of all pairs, then by source if there are several."""
    not_measured: str | None
    """The reason, if no pair was measured; `accuracies` are then empty."""


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


def label_agreement_figures(result: LabelAgreement, compared_with: str) -> Summary:
    """The figures of all pairs beside one role, for a summary; None where nothing was measured."""
    measured = {
        accuracy.compared_with: accuracy
        for accuracy in result.accuracies
        if accuracy.source is None
    }
    overall = measured[compared_with] if measured else None
    names = PreferenceAccuracy._fields[2:]
    return {
        **{name: None if overall is None else getattr(overall, name) for name in names},
        "not_measured": result.not_measured,
    }
