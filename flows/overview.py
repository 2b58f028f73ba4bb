"""The page over all runs and versions of a store (`pvar report --all`).

Of a run it has what `pvar runs` lists, of a version what `pvar history --versions` does, and the
tags and moves of each model. Nothing else of the artifacts is read.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from flows.past_runs import PastRun, past_runs
from flows.promotions import MoveWithResults, read_history
from flows.run_record import run_reports
from flows.version_results import VersionResults, version_results
from flows.wiring import Wiring
from infra.row_files import refuse_target, write_page
from pvar.errors import InputError, TrackingError
from tasks.report.overview_figure import RatePoint, win_rates_figure
from tasks.report.page import page_environment

logger = logging.getLogger(__name__)

EVERY_RUN = 10**9


class VersionEntry(NamedTuple):
    """A version, with its results and its tags in MLflow."""

    results: VersionResults
    tags: Mapping[str, str]


class ModelEntry(NamedTuple):
    """A registered model."""

    name: str
    versions: Sequence[VersionEntry]
    """Newest first."""
    moves: Sequence[MoveWithResults]
    """Of the alias `champion`, newest first."""

    @property
    def champion(self) -> int | None:
        """The version that is the champion now."""
        return self.moves[0].move.to_version if self.moves else None


class Overview(NamedTuple):
    """What the page shows."""

    store: str
    made_at: datetime
    runs: Sequence[PastRun]
    """Newest first."""
    reports: Mapping[str, str]
    """Address of a run's report, by run. A run that was killed has none."""
    models: Sequence[ModelEntry]
    unknown: str
    """Why the models are not known; empty if they are."""


def write_overview(wiring: Wiring, path: Path) -> None:
    """Write the page.

    Raises InputError if the path is not writable, or the store has no runs.
    """
    refuse_target(path)
    write_page(path, render_overview(read_overview(wiring)))


def read_overview(wiring: Wiring) -> Overview:
    """All runs of the store, and all models of the registry. InputError if there are no runs."""
    store = wiring.store
    runs = list(past_runs(store, EVERY_RUN))
    if not runs:
        raise InputError(f"{store.uri} has no runs yet; start one: pvar run --preset demo")
    models: list[ModelEntry] = []
    unknown = ""
    try:
        models = _models(wiring)
    except TrackingError as error:
        logger.warning("the page has no versions: %s", error)
        unknown = str(error)
    return Overview(store.uri, wiring.clock(), runs, run_reports(store), models, unknown)


def _models(wiring: Wiring) -> list[ModelEntry]:
    registry, found = wiring.registry, []
    facts = registry.versions()  # by name and number
    for name, group in groupby(facts, lambda each: each.version.model_name):
        of_model = list(group)
        versions = [
            VersionEntry(results, each.tags)
            for results, each in zip(version_results(of_model), of_model, strict=True)
        ]
        found.append(ModelEntry(name, versions[::-1], read_history(registry, name)[::-1]))
    return found


def render_overview(overview: Overview) -> str:
    """The page as text, to be written as UTF-8. The same data gives the same text."""
    points = [
        RatePoint(each.started_at, each.win_rate, each.win_rate_lower, each.win_rate_upper,
                  bool(each.gate_passed))
        for each in reversed(overview.runs)
        if each.started_at is not None and each.win_rate is not None
    ]  # fmt: skip
    states = [each.state for each in overview.runs]
    return (
        page_environment()
        .get_template("overview.html.j2")
        .render(
            overview=overview,
            figure=win_rates_figure(points),
            states={state: states.count(state) for state in dict.fromkeys(sorted(states))},
        )
    )
