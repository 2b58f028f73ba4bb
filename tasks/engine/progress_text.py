"""Progress as one line of text: counts, speed, and remaining time.

sample/ab12…: 54 of 108 prompts (50 %, 3 of 6 shards), 1.4 prompts/s, about 38 s left
sample/ab12…: 0 of 108 prompts after 30 s
train/ab12…: loading the model, 30 s so far
"""

from typing import NamedTuple

MINUTE, HOUR = 60, 3600


class Snapshot(NamedTuple):
    """Progress at one moment."""

    activity: str
    """The current activity; empty if the counts are enough."""
    unit: str
    """Plural noun of the counted units; empty without counts."""
    done: int
    total: int | None
    elapsed_seconds: float
    """Seconds since the activity began in this process."""
    per_second: float | None = None
    """Speed of this process; None until it has completed a unit."""
    left_seconds: float | None = None
    shards_done: int = 0
    """Complete shards of `num_shards`, by any process."""
    num_shards: int = 0
    """0 for work without shards."""


def to_text(now: Snapshot) -> str:
    """The snapshot as one line, without the name of the work."""
    counts = f"{now.done}"
    if now.total:
        counts = f"{now.done} of {now.total} {now.unit}"
        shares = [f"{100 * now.done // now.total} %"] if now.done else []
        if now.num_shards > 1:
            shares.append(f"{now.shards_done} of {now.num_shards} shards")
        if shares:
            counts += f" ({', '.join(shares)})"
    elif now.unit:
        counts = f"{now.done} {now.unit}"
    else:
        counts = ""
    parts = [": ".join(part for part in (now.activity, counts) if part)]
    if now.per_second is not None:
        parts.append(rate_text(now.per_second, now.unit))
        if now.left_seconds is not None:
            parts.append(f"about {duration_text(now.left_seconds)} left")
    elif counts:
        parts[0] += f" after {duration_text(now.elapsed_seconds)}"
    elif now.elapsed_seconds >= 1:
        parts.append(f"{duration_text(now.elapsed_seconds)} so far")
    return ", ".join(parts)


def rate_text(per_second: float, unit: str) -> str:
    """A speed per second, minute or hour, whichever gives a number of at least 1."""
    number, per = per_second, "s"
    if number < 1:
        number, per = per_second * MINUTE, "min"
    if number < 1:
        number, per = per_second * HOUR, "h"
    return f"{number:.1f} {unit}/{per}" if number < 10 else f"{number:.0f} {unit}/{per}"


def duration_text(seconds: float) -> str:
    """Seconds as `45 s`, `2 min 20 s` or `1 h 5 min`."""
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
