"""The length control's tables: form, faults, and what names the published ones."""

import numpy as np
import pytest

from pvar.errors import InputError
from pvar.evaluation.calibration import is_published, parse_calibration

DIFFICULTY = "index,instruction_difficulty\n0,-0.5\n2,1.5\n"
GAMED = (
    "model,preference,index,std_delta_len,instruction_difficulty,not_gamed_baseline\n"
    "verbose,0.6,0,-1.25,-0.5,False\n"
    "concise,,2,0.5,1.5,False\n"
    "concise,0.1,2,0.75,1.5,False\n"
)


def test_tables_are_read_by_column_name_and_instruction_number() -> None:
    tables = parse_calibration(DIFFICULTY, GAMED)

    np.testing.assert_array_equal(tables.difficulties, [-0.5, np.nan, 1.5])
    # The row without a preference is left out.
    np.testing.assert_array_equal(tables.gamed_preferences, [0.6, 0.1])
    np.testing.assert_array_equal(tables.gamed_std_delta_lengths, [-1.25, 0.75])
    np.testing.assert_array_equal(tables.gamed_indices, [0, 2])
    np.testing.assert_array_equal(tables.gamed_difficulties, [-0.5, 1.5])


def test_an_index_column_without_a_name_is_the_first_one() -> None:
    tables = parse_calibration(DIFFICULTY.replace("index,", ",", 1), GAMED)

    np.testing.assert_array_equal(tables.difficulties, [-0.5, np.nan, 1.5])


@pytest.mark.parametrize(
    ("difficulty", "gamed", "message"),
    [
        ("index,difficulty\n0,1\n", GAMED, r"instruction_difficulty.csv: no column instruction_d"),
        (DIFFICULTY, GAMED.replace("std_delta_len", "x"), r"df_gamed.csv: no column std_delta_len"),
        (DIFFICULTY, GAMED.replace("-1.25", "long"), r"df_gamed.csv, line 2: std_delta_len is 'lo"),
        ("index,instruction_difficulty\n", GAMED, r"instruction_difficulty.csv: there are no rows"),
        ("index,instruction_difficulty\n-1,1\n", GAMED, "number is -1"),
        ("index,instruction_difficulty\n1e30,1\n", GAMED, r"number is 1e\+30; it must be from 0"),
        (DIFFICULTY, GAMED.replace("0.6,0", "0.6,1e30"), r"df_gamed.csv: .* number is 1e\+30"),
        (DIFFICULTY, GAMED.encode() + b"\xff", r"df_gamed.csv: not UTF-8 \(invalid start byte\)"),
        ("", GAMED, "its columns are none"),
    ],
)
def test_a_table_at_fault_is_named_with_its_column(
    difficulty: str, gamed: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        parse_calibration(difficulty, gamed)


def test_published_tables_are_known_by_both_digests() -> None:
    difficulty = "e28d875b" + "0" * 52 + "a18b"
    gamed = "97aeec3f" + "0" * 51 + "d674d"

    assert is_published(difficulty, gamed)
    assert not is_published(gamed, difficulty)
    assert not is_published(difficulty, "0" * 64)
