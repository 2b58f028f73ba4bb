"""Exit codes of `pvar`, for scripts and schedulers.

A flow that ends with 3 or 4 has not failed: in Prefect its state is Completed or Waiting.
"""

from pvar.errors import (
    ConfigError,
    InputError,
    LostRaceError,
    ModelError,
    PromotionError,
    PvarError,
)

DONE, ERROR, WRONG_CALL, GATE_NOT_PASSED, WAITING = range(5)

MEANINGS = {
    DONE: "done",
    ERROR: "an error of a server, the store, hardware or pvar: run again when its cause is gone",
    WRONG_CALL: (
        "a wrong call: the command line, the configuration, or a file or model that it names: the "
        "same call would fail again"
    ),
    GATE_NOT_PASSED: "done, and the gate did not pass: nothing was promoted",
    WAITING: (
        "not done: something waits for approval, for answers, or for the end of an outage: the "
        "same call goes on"
    ),
}

_WRONG_CALLS = (ConfigError, InputError, ModelError, PromotionError)


def code_of_error(error: PvarError) -> int:
    """2 for what the user gave, 1 for anything else."""
    if isinstance(error, LostRaceError):  # the next call is another race
        return ERROR
    return WRONG_CALL if isinstance(error, _WRONG_CALLS) else ERROR


def code_of_result(*, waits: bool, gate_passed: bool | None) -> int:
    """4 if something waits, else 3 if the gate did not pass. None: there was no gate."""
    if waits:
        return WAITING
    return GATE_NOT_PASSED if gate_passed is False else DONE
