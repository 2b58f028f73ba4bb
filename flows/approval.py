"""Approval of a promotion with a form in the Prefect UI.

With `promote.mode: approval`, stage promote waits for a person's decision. If Prefect can restart
the pipeline run (a run of its deployment that no other run started), the run is suspended, which
frees its process. Submitting the form restarts the run from the beginning. Complete artifacts are
reused, and the decision is stored as `pvar approve` stores it. Any other run ends in the state
Waiting. Starting it again after `pvar approve` completes it.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from prefect.context import FlowRunContext
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from flows.promotions import decide
from flows.version_results import results_of
from flows.wiring import Wiring
from infra.registered_models import VersionFacts
from pvar.config import PipelineConfig
from tasks.graph import plan_nodes
from tasks.stages.person_decision import decision_on
from tasks.stages.promote import LOOK_TAG, PROMOTE

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

logger = logging.getLogger(__name__)

ANSWER_WITHIN_SECONDS = 7 * 24 * 3600
"""The suspended run fails after a week without an answer. The version can still be approved."""


class Approval(RunInput):
    """The fields of the form."""

    approver: str = Field(
        min_length=1, max_length=100, description="Your name, recorded in the history."
    )
    decision: Literal["approve", "decline"] = Field(
        description="`approve` makes the version the champion immediately."
    )
    note: str = Field(
        min_length=1, max_length=2000, description="The reason, recorded in the history."
    )


def suspendable_run() -> "FlowRun | None":
    """The current flow run, if Prefect can suspend and restart it."""
    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    if run is None or run.deployment_id is None or run.parent_task_run_id is not None:
        return None
    return run


def ask_for_approval(config: PipelineConfig, wiring: Wiring) -> None:
    """Suspend this run until its form is submitted, and store the decision.

    Returns at once if there is a decision already. Prefect raises `Pause` to end the process. In
    the process of the restarted run, the same call returns.
    """
    asked = _asked(config, wiring)
    if asked is None or _is_decided(asked, config, wiring):
        return
    model_name, version = asked.version.model_name, asked.version.version
    form = Approval.with_initial_data(
        description=(
            f"**{model_name} version {version}** passed the gate: win rate "
            f"{results_of(asked.tags)} against `{asked.version.opponent}`"
            f"{_look(asked.tags)}.\n\n"
            "Promote it to champion?"
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
        logger.warning(
            "the form was submitted too late: version %d was already %s", version, kept.sentence
        )


def is_approval_decided(config: PipelineConfig, wiring: Wiring) -> bool:
    """Whether a person has decided on the promotion that this pinned configuration waits for."""
    asked = _asked(config, wiring)
    return asked is None or _is_decided(asked, config, wiring)


def _look(tags: Mapping[str, str]) -> str:
    return f"; {tags[LOOK_TAG]}" if LOOK_TAG in tags else ""


def _asked(config: PipelineConfig, wiring: Wiring) -> VersionFacts | None:
    """The registered version of the configuration's model."""
    model = plan_nodes(config)[PROMOTE.name].inputs["model"].root
    versions = wiring.registry.versions(config.promote.model_name)
    return next((facts for facts in versions if facts.version.artifact == model), None)


def _is_decided(asked: VersionFacts, config: PipelineConfig, wiring: Wiring) -> bool:
    results = plan_nodes(config)[PROMOTE.name].inputs["results"].root
    return decision_on(wiring.store, asked.version, results) is not None
