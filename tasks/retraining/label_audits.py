"""What models say about the labels of a batch, kept with the batch.

    retrain/batches/000001/agreement.json   written once, before anything is trained on its rows
    retrain/batches/000001/accepted.json    written once: a person accepts labels that disagree

The rows that the models are most against are named by their prompts' ids: their texts are in the
batch's data only.
"""

from pydantic import AwareDatetime, BaseModel, ConfigDict

from pvar.evaluation.label_audit import AgreementCounts, DisagreeingRow, Disagreement

AGREEMENT = "agreement.json"
ACCEPTED = "accepted.json"


class LabelAudit(BaseModel):
    """The agreement of models with the labels of a batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    counts: tuple[AgreementCounts, ...]
    disagreements: tuple[Disagreement, ...]
    """Sources and annotators with lower agreement than so far."""
    rows: tuple[DisagreeingRow, ...]
    """Of these, the pairs that the models are most against, strongest first."""
    is_held: bool
    """Whether the batch waits for a person because of the disagreements."""


class LabelAcceptance(BaseModel):
    """That a person accepts the labels of a batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    by: str
    reason: str
