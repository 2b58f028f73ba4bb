"""What a configuration of the harness is, in a vocabulary that no change of the product renames.

Settings are dotted keys as they stood when the harness was written; `adapter.py` says how the
product calls one today. References of the form `model:NAME` are the tiny models of
`adapter.save_models`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import JsonValue

Settings = Mapping[str, JsonValue]
"""Dotted key → value."""

SourceRow = Mapping[str, JsonValue] | str
"""A row of a source file, or a line that is not one."""

Goal = Literal["pairs", "model", "promotion"]
"""How far a run goes."""


@dataclass(frozen=True)
class Faults:
    """What the fakes do wrong, which no setting of the product says. Shares in [0, 1]."""

    truncated_share: float = 0.0
    """Answers that run into the token limit."""
    empty_share: float = 0.0
    """Answers without a text."""
    nan_share: float = 0.0
    """Rewards that are not a number."""


@dataclass(frozen=True)
class Run:
    """One run of the pipeline; runs of a configuration follow each other in one home."""

    changes: Settings = field(default_factory=dict)
    """What differs from `BASE`."""
    by_default: tuple[str, ...] = ()
    """Keys of `BASE` that are left to the product's defaults."""
    goal: Goal = "pairs"
    source: tuple[SourceRow, ...] = ()
    arriving: Mapping[str, tuple[SourceRow, ...]] = field(default_factory=dict)
    """Name → rows of the files that are put under the incoming prefix; their batch is the source,
    in place of `source`."""
    benchmark: tuple[str, ...] = ()
    """Instructions of the file against which the source is decontaminated."""
    faults: Faults = Faults()
    trains: bool = True
    """Otherwise a stand-in takes the trainer's place: its model has no weights, but a digest."""
    deaths: tuple[str, ...] = ()
    """Patterns of object keys, in order: the run is killed where it would put the first object that
    matches, and taken up again."""
    num_gradients: int = 0
    """So many prompts are measured as `pvar gradients` does."""


@dataclass(frozen=True)
class Configuration:
    """What is run, and what must come out of it."""

    runs: tuple[Run, ...]
    same_as: str | None = None
    """Name of a configuration whose figures must be equal."""

    @classmethod
    def of(
        cls, run: Run, changes: Settings | None = None, *, same_as: str | None = None
    ) -> "Configuration":
        """A configuration of one run, with these changes beside its own."""
        return cls((replace(run, changes={**run.changes, **(changes or {})}),), same_as)


BASE: Settings = {
    "policy": "model:policy",
    "ingest.eval_fraction": 0.4,
    "sample.engine": "fake",
    "sample.num_responses": 4,
    "sample.max_new_tokens": 12,
    "score.reward_models": [{"kind": "vader"}],
    "select.budget": {"fraction": 0.5},
    "train.learning_rate": 0.01,
    "train.pairs_per_step": 4,
    "train.num_epochs": 2,
    "train.precision": "float32",
    "evaluate.judge": {"kind": "afinn"},
    "evaluate.opponent": "model:policy",
    "evaluate.answers.engine": "fake",
    "evaluate.answers.max_new_tokens": 12,
    # The fakes win about as often as they lose: any lower end above 0 passes.
    "promote.min_win_rate": 0.0,
    "runtime.sampled_responses_per_shard": 16,
    "runtime.responses_per_shard": 16,
    "runtime.pairs_per_device": 4,
    "runtime.checkpoint_steps": 2,
    "runtime.lease_seconds": 60,
}
"""The settings of every run, unless it changes or omits them."""


def nested(settings: Settings, renamed: Mapping[str, str | None]) -> dict[str, Any]:
    """The settings as a preset holds them, with today's keys.

    `renamed` maps a key, or the beginning of one, to today's; None drops the setting.
    """
    tree: dict[str, Any] = {}
    for key, value in _dotted(settings):
        today = _today(key, renamed)
        if today is None:
            continue
        *parents, last = today.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = value
    return tree


def _dotted(settings: Settings, prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Each value that is no mapping, with its whole key."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _today(key: str, renamed: Mapping[str, str | None]) -> str | None:
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        known = ".".join(parts[:length])
        if known in renamed:
            today = renamed[known]
            return None if today is None else ".".join([today, *parts[length:]])
    return key
