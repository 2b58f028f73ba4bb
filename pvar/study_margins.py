"""Margins of held-out pairs over training, by arm and by PVar, on the same pairs for all arms.

What a training measured is in `tasks/training/held_out.py`. Here the mean margin over the pairs is
taken for each training, and its mean and range over the trainings of an arm. Groups are thirds of
the pairs by the PVar of their prompts.

Margins are in the units of the method, and grow with β and with the distance from the reference:
arms with the same training settings can be compared. A held-out pair is labelled by the rewards
that label the training pairs, so a margin says what was learned of them, not what a judge prefers.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.study_config import StudyConfig, cells

ALL = "all"
GROUPS = ("low", "middle", "high")
"""Thirds by PVar."""


class HeldOutMargins(NamedTuple):
    """What one training measured. Axes: S measured steps, P pairs, one of each prompt."""

    steps: tuple[int, ...]
    """(S,) steps made before; 0 is the starting policy."""
    prompt_ids: tuple[str, ...]
    """(P,)"""
    margins: NDArray[np.float64]
    """(S, P)"""
    pvar: Mapping[str, float]
    """PVar of the prompts that have one."""


class MarginCurve(NamedTuple):
    """Mean margin of some pairs at each measured step, over the trainings of an arm."""

    num_pairs: int
    mean: tuple[float, ...]
    lowest: tuple[float, ...]
    """Of the trainings."""
    highest: tuple[float, ...]


class ArmMargins(NamedTuple):
    """The margins of an arm (at one value of a sweep)."""

    cell: str
    num_trainings: int
    steps: tuple[float, ...]
    """Measured steps, as means over the trainings."""
    num_without_pvar: int
    """Pairs in no group, because their prompt has no PVar."""
    curves: Mapping[str, MarginCurve]
    """ALL pairs and the GROUPS. A group without pairs has no curve."""


def tabulate_margins(
    study: StudyConfig, trainings: Mapping[str, Sequence[HeldOutMargins]]
) -> list[ArmMargins]:
    """One row per cell with measured pairs, in their order; `trainings` has those of each cell.

    Pairs that any training at the same value of the sweep lacks, because they are too long for it,
    are left out. Of trainings of few steps, which are measured less often, as many points are taken
    as the shortest of the cell has.
    """
    rows = []
    for cell in cells(study):
        beside = [other.name for other in cells(study) if other.value == cell.value]
        measured = [set(run.prompt_ids) for name in beside for run in trainings.get(name, ())]
        common = sorted(set.intersection(*measured)) if measured else []
        if common and (runs := trainings.get(cell.name, ())):
            rows.append(_row(cell.name, runs, common))
    return rows


def _row(cell: str, runs: Sequence[HeldOutMargins], prompts: Sequence[str]) -> ArmMargins:
    num_points = min(len(run.steps) for run in runs)
    table = np.stack([_columns(run, prompts)[:num_points] for run in runs])  # (runs, S, P)
    pvar = runs[0].pvar
    groups = {ALL: list(prompts), **thirds({each: pvar[each] for each in prompts if each in pvar})}
    place = {prompt: column for column, prompt in enumerate(prompts)}
    return ArmMargins(
        cell,
        len(runs),
        tuple(np.mean([run.steps[:num_points] for run in runs], axis=0).tolist()),
        sum(prompt not in pvar for prompt in prompts),
        {
            name: _curve(table[:, :, [place[each] for each in group]])
            for name, group in groups.items()
            if group
        },
    )


def _columns(run: HeldOutMargins, prompts: Sequence[str]) -> NDArray[np.float64]:
    place = {prompt: column for column, prompt in enumerate(run.prompt_ids)}
    return run.margins[:, [place[prompt] for prompt in prompts]]


def _curve(table: NDArray[np.float64]) -> MarginCurve:
    means = table.mean(axis=2)  # (runs, S)
    return MarginCurve(
        table.shape[2],
        tuple(means.mean(axis=0).tolist()),
        tuple(means.min(axis=0).tolist()),
        tuple(means.max(axis=0).tolist()),
    )


def thirds(pvar: Mapping[str, float]) -> dict[str, list[str]]:
    """The prompts by group, lowest PVar first. Sizes differ by at most one; ties are by id."""
    ordered = sorted(pvar, key=lambda prompt: (pvar[prompt], prompt))
    cuts = [round(len(ordered) * third / len(GROUPS)) for third in range(len(GROUPS) + 1)]
    return {
        name: ordered[start:stop]
        for name, (start, stop) in zip(GROUPS, pairwise(cuts), strict=True)
    }
