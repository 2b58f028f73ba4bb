"""Files that the file commands on benchmarks read: tables of rows, and the calibration folder."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from infra.row_files import STDIN, read_rows
from pvar.errors import InputError
from pvar.evaluation.calibration import DIFFICULTY_FILE, GAMED_FILE, parse_calibration
from pvar.evaluation.file_rows import RowFile
from pvar.evaluation.length_control import Calibration


class CalibrationFiles(NamedTuple):
    """The tables of the length control, and the hashes of their files."""

    tables: Calibration
    difficulty_sha256: str
    gamed_sha256: str


def row_file(path: Path) -> RowFile:
    """The rows of a file, or of standard input."""
    return RowFile("standard input" if path == STDIN else str(path), read_rows(path))


def read_calibration(folder: Path) -> CalibrationFiles:
    """Read the length control's tables from a folder that contains both CSV files."""
    contents = []
    for name in (DIFFICULTY_FILE, GAMED_FILE):
        try:
            contents.append((folder / name).read_bytes())
        except OSError as error:
            raise InputError(
                f"{folder / name}: cannot be read ({error.strerror}); the calibration folder must "
                f"contain {DIFFICULTY_FILE} and {GAMED_FILE} (data set tatsu-lab/alpaca_eval)"
            ) from error
    difficulty, gamed = contents
    return CalibrationFiles(
        parse_calibration(difficulty, gamed),
        hashlib.sha256(difficulty).hexdigest(),
        hashlib.sha256(gamed).hexdigest(),
    )
