"""Scores of the benchmark label_agreement, in the form of other benchmarks.

The score of a model is the share of pairs in which it gives the labelled answer the higher
log-probability per token.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import Summary
from pvar.evaluation.benchmark_scores import BenchmarkDifference, BenchmarkScore, unjudged_score
from pvar.evaluation.preference_accuracy import PreferenceAccuracy
from tasks.engine.artifact import Artifact
from tasks.stages.benchmark_inputs import ScoredModel
from tasks.stages.label_agreement_result import (
    LabelAgreement,
    label_agreement,
    label_agreement_figures,
)

LIKELIHOOD_INPUT = "likelihood-"
REFERENCE_ROLE = "reference"
"""Role of the policy from which the challenger was trained."""


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


def score_label_agreement(
    inputs: Mapping[str, Artifact], models: tuple[ScoredModel, ...], scoring: LabelAgreementScoring
) -> LabelAgreementScored:
    """Compare the challenger with the opponent, from the inputs `likelihood-ROLE`."""
    likelihoods = {
        name.removeprefix(LIKELIHOOD_INPUT): artifact
        for name, artifact in inputs.items()
        if name.startswith(LIKELIHOOD_INPUT)
    }
    result = label_agreement(likelihoods, beta=scoring.beta, confidence=0.95, seed=scoring.seed)
    beside_opponent = [row for row in result.accuracies if row.compared_with == "opponent"]
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
            for row in beside_opponent
            for role, share in (
                ("challenger", row.per_token_after),
                ("opponent", row.per_token_before),
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
        _figures(result),
    )


def _figures(result: LabelAgreement) -> Summary:
    return label_agreement_figures(result, "opponent")


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
