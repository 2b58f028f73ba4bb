"""What models said about the labels of a run's source, for its report."""

from collections.abc import Mapping

from pvar.evaluation.label_audit import AskedLabel, count_agreement
from tasks.engine.artifact import Artifact
from tasks.label_nodes import AUDIT_NODE
from tasks.report.data import LabelRow
from tasks.stages.audit import ASKED


def agreement_rows(artifacts: Mapping[str, Artifact]) -> tuple[LabelRow, ...]:
    """One row per model and source or annotator; empty without an audit."""
    if AUDIT_NODE not in artifacts:
        return ()
    counts = count_agreement(artifacts[AUDIT_NODE].rows(ASKED, AskedLabel))
    return tuple(
        LabelRow(
            each.model,
            f"{each.grouping} {each.group}",
            each.agreement,
            None if (interval := each.interval()) is None else interval.lower,
            None if interval is None else interval.upper,
            each.num_labels,
            each.num_missing,
        )
        for each in counts
    )
