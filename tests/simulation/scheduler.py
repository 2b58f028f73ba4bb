"""Processes of the product that run one at a time, in simulated time, and are killed and paused.

Each process is one or more greenlets that run the product's code. Every call of the store, every
sleep and every wait hands control back, and the scheduler chooses who goes on. What happens to a
call is its `Fate`. So a seed and a list of fates are the whole run: the same ones give the same
run again.

    time of the simulation     seconds, which only the scheduler moves
    monotonic clock            that time plus an offset of each process
    time of day                that time plus the skew of each process's machine, which may jump
"""

import logging
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from greenlet import getcurrent, greenlet

from tasks.engine.lease_holder import Holder

BEGAN = datetime(2026, 1, 1, 12, tzinfo=UTC)
BEGAN_SECONDS = 1000.0
MAX_SWITCHES = 20_000

FateKind = Literal[
    "killed_before", "killed_after", "paused", "slow", "late", "failed_before", "failed_after",
    "repeated",
]  # fmt: skip
"""What happens to a call of the store.

    killed_before, killed_after    kill -9 of the process, before or after its effect
    paused                         the process stands still for some time before the effect
    slow, late                     the call takes long before or after its effect; others go on
    failed_before, failed_after    StoreError, without or with its effect
    repeated                       the answer is lost, and the client's second try is answered
"""
FATES: tuple[FateKind, ...] = (
    "killed_before", "killed_after", "paused", "slow", "late", "failed_before", "failed_after",
    "repeated",
)  # fmt: skip


class Killed(BaseException):
    """The process was killed: nothing of it has any effect from now on."""


class Violation(AssertionError):
    """The product did what it must not do."""


class Fate(NamedTuple):
    """What happens to one call of the store."""

    kind: FateKind
    seconds: float = 200.0
    """How long a pause or a slow call lasts."""


@dataclass(eq=False)
class Process:
    """One process of one worker. A worker that is killed begins again as another process."""

    worker: int
    pid: int
    clock_skew: timedelta
    """Of its machine's time of day."""
    is_dead: bool = False
    is_disturbed: bool = False
    """Whether anything but the usual happened to one of its calls."""
    stopped_until: float = 0.0

    @property
    def holder(self) -> Holder:
        """As it stands in a lease. It cannot be seen from other machines whether it is alive."""
        host = f"machine-{self.worker}"
        return Holder(host=host, boot_id="", pid_namespace="", pid=self.pid, started_ticks=self.pid)


@dataclass(eq=False)
class _Thread:
    process: Process
    greenlet: greenlet
    wakes_at: float = 0.0
    is_ready: Callable[[], bool] | None = None

    @property
    def is_over(self) -> bool:
        return bool(self.greenlet.dead)


@dataclass
class Simulation:
    """A run of workers, by a seed and the fates of some calls of the store, by their number."""

    seed: int
    fates: Mapping[int, Fate] = field(default_factory=dict)
    skews: Sequence[float] = (3 * 3600.0, -3 * 3600.0, 0.0)
    """Seconds by which times of day differ. Each process has one, also if it begins again."""
    restart_seconds: float = 30.0

    def __post_init__(self) -> None:
        self.now = BEGAN_SECONDS
        self.num_calls = 0
        self.num_switches = 0
        self.errors: tuple[type[Exception], ...] = ()
        """By which a process may end; it then begins again."""
        self._random = random.Random(self.seed)
        self._clocks = random.Random(self.seed)
        self._threads: list[_Thread] = []
        self._pids = 0
        self._main = getcurrent()
        self._failure: BaseException | None = None
        self._is_over = False

    def start(self, worker: int, body: Callable[[Process], None], *, after: float = 0.0) -> None:
        """Run `body` in a process of this worker, and again until it returns."""
        self._pids += 1
        skew = timedelta(seconds=self._clocks.choice(self.skews))
        process = Process(worker, self._pids, skew)

        def run() -> None:
            try:
                body(process)
            except (Killed, *self.errors):
                process.is_dead = True
                if not self._is_over:
                    self.start(worker, body, after=self.restart_seconds)

        self._spawn(process, run, after)

    def run(self) -> None:
        """Until all workers have returned. Raises what they raise.

        Lost leases and failed calls are logged, thousands of times here: that is switched off.
        """
        before = logging.root.manager.disable
        logging.disable(logging.ERROR)
        try:
            while self._threads:
                thread = self._next()
                thread.is_ready = None
                thread.greenlet.switch()
                self._reap()
                if self._failure is not None:
                    raise self._failure
                self.num_switches += 1
                if self.num_switches > MAX_SWITCHES:
                    raise Violation(f"no end after {self.now - BEGAN_SECONDS:.0f} s")
        finally:
            self._is_over = True
            for thread in self._threads:
                thread.process.is_dead = True
            self._reap()
            logging.disable(before)

    @property
    def process(self) -> Process:
        """The process that runs."""
        return self._current().process

    def wall_clock(self) -> datetime:
        """The time of day on the machine of the process that runs."""
        return BEGAN + timedelta(seconds=self.now) + self.process.clock_skew

    def monotonic(self) -> float:
        """The monotonic clock of the process that runs."""
        return self.now + 1e4 * self.process.pid

    def sleep(self, seconds: float) -> None:
        """Let the others run for so long."""
        self.wait(lambda: False, seconds)

    def wait(self, is_ready: Callable[[], bool], seconds: float | None = None) -> None:
        """Let the others run until it is ready or the time is over."""
        thread = self._current()
        if thread.process.is_dead:
            raise Killed
        thread.wakes_at = math.inf if seconds is None else self.now + seconds
        thread.is_ready = is_ready
        self._main.switch()
        if thread.process.is_dead:
            raise Killed

    def spawn(self, body: Callable[[], None]) -> "_Thread":
        """A further thread of the process that runs."""
        return self._spawn(self.process, body, 0.0)

    def call(self, effect: Callable[[], object]) -> object:
        """A call of the store by the process that runs."""
        if self.process.is_dead:
            raise Killed
        number, self.num_calls = self.num_calls, self.num_calls + 1
        fate = self.fates.get(number)
        self.sleep(self._random.uniform(0.01, 0.2))
        if fate is None:
            return effect()
        process = self.process
        process.is_disturbed = True
        match fate.kind:
            case "killed_before":
                process.is_dead = True
                raise Killed
            case "killed_after":
                effect()
                process.is_dead = True
                raise Killed
            case "paused":
                process.stopped_until = self.now + fate.seconds
                self.sleep(0)
                return effect()
            case "slow":
                self.sleep(fate.seconds)
                return effect()
            case "late":
                result = effect()
                self.sleep(fate.seconds)
                return result
            case "failed_before":
                raise self.errors[0](f"call {number} failed")
            case "failed_after":
                effect()
                raise self.errors[0](f"the answer to call {number} was lost")
            case "repeated":
                effect()
                return effect()

    def _reap(self) -> None:
        """End all threads of dead processes: what they still do has no effect."""
        dead = [each for each in self._threads if each.process.is_dead]
        for thread in dead:
            if thread.greenlet:  # it has begun, and is not over
                thread.greenlet.throw(Killed)
        self._threads = [each for each in self._threads if not each.is_over and each not in dead]

    def _spawn(self, process: Process, body: Callable[[], None], after: float) -> "_Thread":
        def run() -> None:
            try:
                body()
            except Killed:
                process.is_dead = True
            except BaseException as error:  # noqa: BLE001 - the scheduler raises it
                self._failure = self._failure or error

        thread = _Thread(process, greenlet(run, parent=self._main), self.now + after)
        self._threads.append(thread)
        return thread

    def _current(self) -> _Thread:
        current = getcurrent()
        return next(thread for thread in self._threads if thread.greenlet is current)

    def _next(self) -> _Thread:
        """One of those that can go on; if there is none, the time moves to the next that can."""
        ready = [thread for thread in self._threads if self._can_go_on(thread)]
        if not ready:
            times = [max(each.wakes_at, each.process.stopped_until) for each in self._threads]
            stopped = [
                each.process.stopped_until
                for each in self._threads
                if each.is_ready is not None and each.is_ready()
            ]
            self.now = min([*times, *stopped])
            if self.now == math.inf:
                raise Violation("all processes wait for each other")
            ready = [thread for thread in self._threads if self._can_go_on(thread)]
        return self._random.choice(ready)

    def _can_go_on(self, thread: _Thread) -> bool:
        if thread.process.stopped_until > self.now:
            return False
        return thread.wakes_at <= self.now or (thread.is_ready is not None and thread.is_ready())
