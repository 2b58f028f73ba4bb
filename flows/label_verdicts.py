"""Whether the labels of a finished batch may be learned again, by what became of its reward model.

They may, unless the gate refused a reward model that was trained on them, or that model became the
champion and was rolled back. A model that was refused because another one was adopted meanwhile,
and a run that trained none, say nothing against the labels.
"""

from pathlib import Path

from pydantic import ValidationError

from flows.run_record import load_run
from infra.promotion_history import PromotionHistory, rolled_back_versions
from pvar.errors import ArtifactError, InputError, NotFoundError
from pvar.ports import Store
from tasks.engine.artifact import open_artifact
from tasks.stages.adopt import ADOPT, failed_gate, read_adoption

UNKNOWN_VERDICT = (ArtifactError, InputError, NotFoundError, ValidationError)
"""Errors if the record of the run or the decision on its reward model cannot be read."""


def objection_to_labels(store: Store, run: str, scratch: Path) -> str | None:
    """Why the labels of the batch of this run are not learned again; None if they may be.

    Raises one of `UNKNOWN_VERDICT` if that is not known.
    """
    nodes = {node.name: node.artifact for node in load_run(store, run).nodes}
    if ADOPT.name not in nodes:
        return None  # its run trained no reward model
    stage, _, name = nodes[ADOPT.name].partition("/")
    decision = read_adoption(open_artifact(store, stage, name, scratch))
    if failed_gate(decision):
        return "; ".join(decision.reasons)
    moves = PromotionHistory(store, decision.model_name).moves()
    if decision.version in rolled_back_versions(moves):
        return f"{decision.model_name} version {decision.version} was rolled back"
    return None
