"""A backtest: historical files, replayed on a simulated clock through retraining.

The files arrive at their times, and retraining looks at them at the times at which a deployment
would: once a period, and when a file arrives. Each policy is the retraining with some settings
changed. What follows from files, schedule and policy is all in this module, and is pure.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, model_validator

from pvar.config_model import ConfigModel, Name
from pvar.digest import digest
from pvar.retrain_decision import RetrainConfig, fixed_opponent
from pvar.study_config import first_fault, set_setting

AS_CONFIGURED = "configured"
"""Name of the policy that is replayed if none is given: the retraining without changes."""

TimeSource = Literal["name", "modified"]
"""Where the time of a file is from: a date in its name, or its modification time."""

_DATE = re.compile(r"(?<!\d)(\d{4}-\d{2}-\d{2})(?:[T_](\d{2})[:-]?(\d{2}))?(?!\d)")


class BacktestConfig(ConfigModel):
    """Which historical files are replayed, when retraining looks at them, and by which policies."""

    batches: str = Field(min_length=1)
    """Folder or s3:// address of the historical files, in all forms of incoming files."""
    retrain: RetrainConfig = RetrainConfig()
    """The retraining that every policy starts from."""
    policies: dict[Name, dict[str, JsonValue]] = Field(
        default={AS_CONFIGURED: {}}, min_length=1, max_length=16
    )
    """Name of a policy → the settings in which it differs, by key: of the retraining (`replay`) or
    of its pipeline (`select.strategy`)."""
    every_days: float | None = Field(default=1, gt=0)
    """Retraining looks for files once in this many days. `null`: only when a file arrives."""
    on_arrival: bool = True
    """Retraining also looks when a file arrives, as the automation of a deployment does."""
    at_once: int = Field(default=1, ge=1, le=16)
    """Policies that are replayed side by side, each in a process of its own."""

    @model_validator(mode="after")
    def _can_run(self) -> Self:
        if self.every_days is None and not self.on_arrival:
            raise ValueError(
                "every_days is null and on_arrival is false, so retraining would never look for "
                "files; give every_days a number, or set on_arrival to true"
            )
        configs = {name: policy_config(self, name) for name in self.policies}
        for one, other in combinations(configs, 2):
            if configs[one] == configs[other]:
                raise ValueError(
                    f"policies: {one} and {other} are the same settings; leave one of them out"
                )
        return self


def policy_config(config: BacktestConfig, name: str) -> RetrainConfig:
    """The retraining of one policy, as it is replayed. Raises ValueError, naming the policy.

    Nobody can be asked in a backtest, so that `promote.mode: approval` is run as `automatic`: what
    passes the gate is taken as approved.
    """
    tree, who = config.retrain.model_dump(), f"policy {name}"
    for key, value in config.policies[name].items():
        is_rule = key.partition(".")[0] in RetrainConfig.model_fields
        set_setting(tree, key if is_rule else f"pipeline.{key}", value, who)
    try:
        changed = RetrainConfig.model_validate(tree)
    except ValueError as error:
        raise ValueError(f"{who}: {first_fault(error)}") from error
    if refusal := fixed_opponent(changed):
        raise ValueError(f"{who}: {refusal}")
    return changed


def without_person(config: RetrainConfig) -> RetrainConfig:
    """The retraining with `promote.mode: automatic` instead of `approval`."""
    promote = config.pipeline.promote
    if promote.mode != "approval":
        return config
    promote = promote.model_copy(update={"mode": "automatic"})
    pipeline = config.pipeline.model_copy(update={"promote": promote})
    return config.model_copy(update={"pipeline": pipeline})


class HistoryFile(BaseModel):
    """A historical file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    """Path below the folder or address."""
    sha256: str
    arrives_at: AwareDatetime


def date_in_name(key: str) -> datetime | None:
    """The last date in a path (`2026-03-01`, `2026-03-01T0930`), UTC; None if it has none.

    Four digits after it that are no time of a day, as a running number may be, are not read.
    """
    for day, hour, minute in reversed(_DATE.findall(key)):
        for time in (f"{hour or '00'}:{minute or '00'}", "00:00"):
            try:
                return datetime.fromisoformat(f"{day}T{time}").replace(tzinfo=UTC)
            except ValueError:  # such as 2026-13-45, or 2026-03-01_2500
                continue
    return None


def arrival_times(
    modified: Sequence[tuple[str, datetime]],
) -> tuple[list[datetime], TimeSource]:
    """When the files with these paths and modification times arrived, and how that is known.

    The dates in the names count if every name has one: a name says when the data was made, and a
    modification time may be that of a copy.
    """
    named = [date_in_name(key) for key, _ in modified]
    times = [time for time in named if time is not None]
    if len(times) == len(modified):
        return times, "name"
    # Whole seconds: file systems keep a time as a fraction that may be read as another one.
    return [time.replace(microsecond=0) for _, time in modified], "modified"


def simulated_looks(
    arrivals: Iterable[datetime],
    *,
    every_days: float | None,
    on_arrival: bool,
    max_days_between_runs: float | None,
) -> tuple[datetime, ...]:
    """The times at which retraining looks for files, in order.

    The schedule begins with the first file. It ends when also the last file must have been used:
    `max_days_between_runs` after it arrived.
    """
    times = sorted(set(arrivals))
    looks = set(times) if on_arrival else set()
    if every_days is not None:
        period = timedelta(days=every_days)
        end = times[-1] + timedelta(days=max_days_between_runs or 0)
        look = times[0]
        while look < end:
            looks.add(look)
            look += period
        looks.add(look)
    return tuple(sorted(looks))


class PolicyPlan(BaseModel):
    """What is replayed of one policy: all that the process of the policy needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    settings: dict[str, JsonValue]
    config: RetrainConfig
    asks_person: bool
    """Whether `promote.mode` is `approval` for this policy."""
    files: tuple[HistoryFile, ...]
    looks: tuple[AwareDatetime, ...]
    withdrawn: tuple[str, ...] = ()
    """Ids of the prompts that are withdrawn today, which are not used in a backtest either."""

    @property
    def identity(self) -> str:
        """Digest of all that its result depends on. How and where stages run is left out."""
        config = self.config.model_dump(mode="json")
        del config["pipeline"]["runtime"]
        return digest(
            [
                config,
                [file.model_dump(mode="json") for file in self.files],
                [look.isoformat() for look in self.looks],
                list(self.withdrawn),
            ]
        )


def plan_policy(
    config: BacktestConfig,
    name: str,
    files: Sequence[HistoryFile],
    withdrawn: Iterable[str] = (),
) -> PolicyPlan:
    """The plan of one policy over these files, without the prompts that are withdrawn."""
    changed = policy_config(config, name)
    return PolicyPlan(
        name=name,
        settings=config.policies[name],
        config=without_person(changed),
        asks_person=changed.pipeline.promote.mode == "approval",
        files=tuple(files),
        looks=simulated_looks(
            (file.arrives_at for file in files),
            every_days=config.every_days,
            on_arrival=config.on_arrival,
            max_days_between_runs=changed.max_days_between_runs,
        ),
        withdrawn=tuple(sorted(withdrawn)),
    )
