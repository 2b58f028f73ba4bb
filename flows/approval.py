"""The approval of a promotion by a form in the Prefect UI.

Stage promote waits for a person (`promote.mode: approval`). A pipeline that Prefect can start again
(a run of its deployment that no other run started) is suspended, which frees its process. Filling
in the form starts it again from the top; what is complete is reused, and the answer is kept as
`pvar approve` keeps it. Any other run ends with its waiting on record, and goes on when it is
started again after `pvar approve`.
"""

import logging
from typing import TYPE_CHECKING, Literal

from prefect.context import FlowRunContext
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from flows.promotions import decide, results_of
from flows.wiring import Wiring
from infra.registry import VersionFacts
from pvar.config import PipelineConfig
from tasks.graph import plan_nodes
from tasks.stages.person_decision import decision_on
from tasks.stages.promote import PROMOTE

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

logger = logging.getLogger(__name__)

ANSWER_WITHIN_SECONDS = 7 * 24 * 3600
"""After a week without an answer the suspended run fails; the version can still be approved."""


class Approval(RunInput):
    """The form."""

    approver: str = Field(min_length=1, max_length=100, description="Your name, for the history.")
    decision: Literal["approve", "decline"] = Field(
        description="approve makes the version the champion at once."
    )
    note: str = Field(min_length=1, max_length=2000, description="Why: kept in the history.")


def suspendable_run() -> "FlowRun | None":
    """The run that this is part of, if Prefect can suspend it and start it again."""
    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    if run is None or run.deployment_id is None or run.parent_task_run_id is not None:
        return None
    return run


def ask_for_approval(config: PipelineConfig, wiring: Wiring) -> None:
    """Suspend this run until its form is filled in, and keep the answer; not if it is decided.

    Prefect ends the process by `Pause`. In the process that goes on, the same call returns.
    """
    asked = _asked(config, wiring)
    if asked is None or _is_decided(asked, config, wiring):
        return
    model_name, version = asked.version.model_name, asked.version.version
    form = Approval.with_initial_data(
        description=(
            f"**{model_name} version {version}** passed the gate: win rate "
            f"{results_of(asked.tags)} against `{asked.version.opponent}`.\n\n"
            "May it become the champion?"
        )
    )
    key = f"{PROMOTE.name}-{plan_nodes(config)[PROMOTE.name].keys.digest}"
    answer = suspend_flow_run(wait_for_input=form, timeout=ANSWER_WITHIN_SECONDS, key=key)
    kept, is_new = decide(
        wiring,
        model_name,
        version,
        approved=answer.decision == "approve",
        note=answer.note,
        by=answer.approver,
    )
    if not is_new:
        logger.warning("the form came too late: version %d was already %s", version, kept.sentence)


def is_approval_decided(config: PipelineConfig, wiring: Wiring) -> bool:
    """Whether a person has decided what this pinned configuration's promotion waits for."""
    asked = _asked(config, wiring)
    return asked is None or _is_decided(asked, config, wiring)


def _asked(config: PipelineConfig, wiring: Wiring) -> VersionFacts | None:
    """The version that the configuration's model was registered as."""
    model = plan_nodes(config)[PROMOTE.name].inputs["model"].root
    versions = wiring.registry.versions(config.promote.model_name)
    return next((facts for facts in versions if facts.version.artifact == model), None)


def _is_decided(asked: VersionFacts, config: PipelineConfig, wiring: Wiring) -> bool:
    results = plan_nodes(config)[PROMOTE.name].inputs["results"].root
    return decision_on(wiring.store, asked.version, results) is not None
