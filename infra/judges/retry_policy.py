"""Retry calls to a server that is busy or fails, a bounded number of times.

The pause is the server's Retry-After plus up to a second, so that several clients do not return at
the same moment; without it, a random time up to back_off · 2ⁿ (Amazon's "full jitter").
"""

import logging
from collections.abc import Callable
from threading import Event
from typing import NamedTuple, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from infra.judges.calls import CallError, TransientError

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

LONGEST_PAUSE_SECONDS = 120.0
"""Maximum Retry-After. A call is not retried if the server asks for a longer pause."""


class RetryPolicy(NamedTuple):
    """The retry policy: timeout, attempts and pauses."""

    timeout_seconds: float
    """Timeout of one attempt."""
    max_attempts: int
    """Maximum attempts per call, including the first (≥ 1)."""
    back_off_seconds: float
    """Maximum of the first pause. It doubles with every attempt, up to a minute."""


def with_retries(send: Callable[[], Result], retry_policy: RetryPolicy, over: Event) -> Result:
    """Call `send` until it succeeds or the attempts are used up; `over` ends any pause."""
    return Retrying(
        retry=retry_if_exception_type(TransientError),
        wait=_pause(retry_policy),
        stop=_stop(retry_policy),
        sleep=_sleep(over),
        before_sleep=_report,
        reraise=True,
    )(send)


def _pause(retry_policy: RetryPolicy) -> Callable[[RetryCallState], float]:
    back_off = wait_random_exponential(multiplier=retry_policy.back_off_seconds, max=60)

    def seconds(state: RetryCallState) -> float:
        pause = _error(state).pause_seconds
        return back_off(state) if pause is None else pause + min(back_off(state), 1.0)

    return seconds


def _stop(retry_policy: RetryPolicy) -> Callable[[RetryCallState], bool]:
    is_last = stop_after_attempt(retry_policy.max_attempts)

    def stop(state: RetryCallState) -> bool:
        return is_last(state) or (_error(state).pause_seconds or 0) > LONGEST_PAUSE_SECONDS

    return stop


def _sleep(over: Event) -> Callable[[float], None]:
    def sleep(seconds: float) -> None:
        if over.wait(seconds):
            raise CallError("abandoned")

    return sleep


def _report(state: RetryCallState) -> None:
    pause = state.next_action.sleep if state.next_action else 0
    _log.info("server: %s; retrying in %.1f s", _error(state).reason, pause)


def _error(state: RetryCallState) -> TransientError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, TransientError)
    return error
