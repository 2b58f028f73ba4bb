"""A flow that ended because something is waited for, as Prefect's UI shows it: Waiting.

The state's type is Completed, for nothing failed and nothing runs any more; its name and message
say that the work is not done. Automations on `prefect.flow-run.Completed` or `Failed` do not take
it for either.
"""

from typing import TypeVar, cast

from prefect.states import Completed

from pvar.artifacts import WaitingRecord

Result = TypeVar("Result")

WAITING = "Waiting"
"""Name of the state."""


def shown_as_waiting(result: Result, waiting: WaitingRecord) -> Result:
    """What a flow returns in place of `result`: its caller is given `result`, by Prefect."""
    return cast(Result, Completed(name=WAITING, message=_sentence(waiting), data=result))


def _sentence(waiting: WaitingRecord) -> str:
    return waiting.sentence[0].upper() + waiting.sentence[1:]
