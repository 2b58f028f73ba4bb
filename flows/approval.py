"""A promotion that a person decides, in the Prefect UI.

The run is suspended, which frees its process, until somebody fills in the form; then it starts
again from the top, and the wait returns what was filled in. It has to be started from a deployment
(`pvar deploy` makes one), or Prefect would not know how to start it again. Stage promote starts it
by `request_approval`. At the terminal the same is `pvar approve`.
"""

import logging
from typing import Literal

from prefect import flow
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from flows.promotions import approve, find_candidate, results_of
from flows.wiring import connect

logger = logging.getLogger(__name__)

DEPLOYMENT = "approve-promotion/approve-promotion"

ANSWER_WITHIN_SECONDS = 7 * 24 * 3600
"""After a week without an answer the run fails; the version stays registered."""


class Approval(RunInput):
    """The form."""

    approver: str = Field(min_length=1, max_length=100, description="Your name, for the history.")
    decision: Literal["approve", "decline"] = Field(
        description="approve makes the version the champion at once."
    )
    note: str = Field(min_length=1, max_length=2000, description="Why: kept in the history.")


@flow(
    name="approve-promotion",
    description="Ask a person whether a registered version becomes the champion.",
    persist_result=False,
)
def approve_promotion(model_name: str, version: int) -> bool:
    """Return whether the version was approved (and is champion now)."""
    registry = connect().registry
    candidate = find_candidate(registry, model_name, version)
    form = Approval.with_initial_data(
        description=(
            f"**{model_name} version {version}** passed the gate: win rate "
            f"{results_of(candidate.tags)} against `{candidate.version.opponent}`.\n\n"
            "May it become the champion?"
        )
    )
    answer = suspend_flow_run(wait_for_input=form, timeout=ANSWER_WITHIN_SECONDS, key="approval")
    if answer.decision == "decline":
        logger.info("%s declined by %s: %s", version, answer.approver, answer.note)
        return False
    approve(registry, model_name, version, note=answer.note, by=answer.approver)
    return True


def request_approval(model_name: str, version: int) -> None:
    """Start the flow that asks, where it is deployed; say how to answer in either case."""
    command = f"pvar approve {model_name} {version} --note TEXT"
    parameters = {"model_name": model_name, "version": version}
    try:
        run = run_deployment(
            DEPLOYMENT,
            parameters=parameters,
            flow_run_name=f"{model_name} version {version}",
            timeout=0,
            as_subflow=False,
        )
    except ObjectNotFound:
        logger.warning("%s version %d awaits approval: %s", model_name, version, command)
        return
    logger.info(
        "%s version %d awaits approval: flow run %s, or %s",
        *(model_name, version, getattr(run, "name", ""), command),
    )
