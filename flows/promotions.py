"""What people decide about the champion, and what they are shown before and after."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from infra.promotion_history import Move
from infra.registry import MlflowRegistry, VersionFacts
from pvar.errors import PromotionError
from tasks.stages.promote import GATE_TAG, refuse_stale


class Results(NamedTuple):
    """A version's paired win rate and its interval, in [0, 1]; None where it has none."""

    win_rate: float | None
    win_rate_lower: float | None
    win_rate_upper: float | None

    def __str__(self) -> str:
        if self.win_rate is None or self.win_rate_lower is None or self.win_rate_upper is None:
            return "no results"
        return f"{self.win_rate:.1%} ({self.win_rate_lower:.1%}–{self.win_rate_upper:.1%})"


class MoveWithResults(NamedTuple):
    """A move of the champion, and how the version that it led to had done."""

    move: Move
    results: Results


def read_history(registry: MlflowRegistry, model_name: str) -> list[MoveWithResults]:
    """All moves, oldest first."""
    moves = registry.history(model_name)
    tags = {each.version.version: each.tags for each in registry.versions(model_name)}
    return [MoveWithResults(move, results_of(tags.get(move.to_version or 0, {}))) for move in moves]


def results_of(tags: Mapping[str, str]) -> Results:
    """The results among a version's tags."""
    return Results(*(_figure(tags.get(f"pvar.{name}")) for name in Results._fields))


def find_candidate(registry: MlflowRegistry, model_name: str, version: int) -> VersionFacts:
    """A version that may be approved: it passed the gate, against the champion of today."""
    found = registry.versions(model_name)
    facts = next((each for each in found if each.version.version == version), None)
    if facts is None:
        known = ", ".join(str(each.version.version) for each in found) or "none"
        raise PromotionError(f"{model_name} has no version {version}; it has {known}")
    gate = facts.tags.get(GATE_TAG)
    if gate != "passed":
        raise PromotionError(
            f"{model_name} version {version} did not pass the gate ({gate or 'never compared'}); "
            f"in spite of it: pvar rollback {model_name} --to {version} --reason TEXT"
        )
    refuse_stale(facts.version, registry.champion(model_name))
    return facts


def approve(
    registry: MlflowRegistry, model_name: str, version: int, *, note: str, by: str | None = None
) -> None:
    """Make a version the champion because a person says so; the note is kept in the history."""
    facts = find_candidate(registry, model_name, version)
    champion = registry.champion(model_name)
    registry.promote(facts.version, instead_of=champion, reason=f"approved: {note}", by=by)


def _figure(text: str | None) -> float | None:
    value = math.nan if text is None else float(text)
    return None if math.isnan(value) else value
