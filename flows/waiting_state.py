"""The Prefect state Waiting, of a flow that ended because it waits for something.

Its type is Completed, because nothing failed and nothing is running. Its name and message say that
the work is unfinished. Automations on `prefect.flow-run.Completed` or `prefect.flow-run.Failed` do
not match it.
"""

from typing import TypeVar, cast

from prefect.states import Completed

from pvar.artifacts import WaitingRecord

Result = TypeVar("Result")

WAITING = "Waiting"
"""Name of the state."""


def shown_as_waiting(result: Result, waiting: WaitingRecord) -> Result:
    """The return value of a waiting flow. Prefect passes `result` on to the flow's caller."""
    return cast(Result, Completed(name=WAITING, message=_sentence(waiting), data=result))


def _sentence(waiting: WaitingRecord) -> str:
    return waiting.sentence[0].upper() + waiting.sentence[1:]
