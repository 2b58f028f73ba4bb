"""The reward scale calibrated on a file of labelled pairs."""

import math
from pathlib import Path

from flows.commands.benchmark_files import row_file
from pvar.errors import InputError
from pvar.evaluation.file_rows import number_of, rows_with
from pvar.scale import CalibratedScale, calibrate_scale

COLUMNS = ("chosen_reward", "rejected_reward")


def read_scale(path: Path) -> CalibratedScale:
    """Fit τ on the columns chosen_reward and rejected_reward; null is a missing reward.

    Raises InputError as `calibrate_scale`, with the file's name.
    """
    file = row_file(path)
    rewards: list[tuple[float, float]] = []
    for row in rows_with(file, COLUMNS):
        chosen, rejected = (number_of(file, row, name, default=math.nan) for name in COLUMNS)
        rewards.append((chosen, rejected))
    try:
        return calibrate_scale(*zip(*rewards, strict=True))
    except InputError as error:
        raise InputError(f"{file.name}: {error}") from error
