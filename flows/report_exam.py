"""The curve of a report: the results of earlier versions on the exam of this run."""

import logging
from collections.abc import Mapping

from flows.version_results import Results, VersionResults, version_results
from flows.wiring import Wiring
from pvar.errors import TrackingError
from tasks.engine.artifact import Artifact
from tasks.report.data import ExamCurve, ExamPoint
from tasks.stages.promote import PROMOTE, read_decision

logger = logging.getLogger(__name__)


def exam_curve(artifacts: Mapping[str, Artifact], wiring: Wiring) -> ExamCurve | None:
    """The versions up to this run's that were measured on its exam under the same conditions.

    None if there is no other such version, or if MLflow cannot be reached.
    """
    if PROMOTE.name not in artifacts:
        return None
    decision = read_decision(artifacts[PROMOTE.name])
    try:
        versions = wiring.registry.versions(decision.model_name)
    except TrackingError as error:
        logger.warning("the report has no curve of versions: %s", error)
        return None
    results = [each for each in version_results(versions) if each.version <= decision.version]
    this = next((each for each in results if each.version == decision.version), None)
    if this is None or this.exam is None:
        return None
    curve = [each for each in results if each.curve == this.curve]
    if len(curve) < 2:
        return None
    has_first = this.first_model is not None
    return ExamCurve(this.exam, has_first, tuple(_point(each, this.first_model) for each in curve))


def _point(results: VersionResults, first_model: str | None) -> ExamPoint:
    """Win rates against this first model, or against the opponents if it is None."""
    rates = results.against_opponent if first_model is None else results.against_first
    if results.first_model != first_model and first_model is not None:
        rates = Results(None, None, None)
    return ExamPoint(results.version, *rates, results.ability)
