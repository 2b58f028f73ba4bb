"""The differential harness: its golden figures, and that a difference is found and explained."""

from pathlib import Path

import pytest
from pydantic import JsonValue

from tests.differential.compare import compare_folders, describe, differences, flatten, read
from tests.differential.configurations import CONFIGURATIONS, GOLDEN
from tests.differential.mapping import MAPPING, Changes
from tests.differential.snapshot import take

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

FOLDER = Path(__file__).parents[1] / "differential" / "golden"


@pytest.mark.parametrize("name", GOLDEN)
def test_a_configuration_comes_to_its_golden_figures(name: str, tmp_path: Path) -> None:
    today = flatten(take(CONFIGURATIONS[name], tmp_path / "home", models={}))
    found = differences(read(FOLDER / f"{name}.json"), today, MAPPING)
    assert "\n".join(describe(found)) == ""


BEFORE: dict[str, JsonValue] = {
    "select": {
        "summary": {"pvar_mean": 0.0957371, "num_pairs": 2},
        "tables": {"pairs": {"p1": {"chosen": "good"}, "p2": {"chosen": "fine"}}},
        "rule": ["too_long", 3],
    }
}
AFTER: dict[str, JsonValue] = {
    "select": {"summary": {"pvar_mean": 0.0957370}},
    "pair": {
        "summary": {"num_pairs": 2, "num_prompts": 5},
        "tables": {"pairs": {"p1": {"preferred": "good"}, "p2": {"preferred": "fine"}}},
    },
    "reason": ["pair_too_long", 3],
}
CHANGES = Changes(
    renamed={
        "select/tables/pairs/*/chosen": "pair/tables/pairs/*/preferred",
        "select/summary/num_*": "pair/summary/num_*",
        "**/rule": "reason",
    },
    values={"reason": {"too_long": "pair_too_long"}},
    ignored={"pair/summary/num_prompts": "new"},
)


def test_what_was_written_down_as_changed_is_no_difference() -> None:
    assert differences(flatten(BEFORE), flatten(AFTER), CHANGES) == []


@pytest.mark.parametrize(
    ("part", "left_out", "wanted"),
    [
        ("renamed", "select/tables/pairs/*/chosen", {"p1: new", "p1: gone"}),
        ("values", "reason", {'["too_long", 3] → ["pair_too_long", 3]'}),
        ("ignored", "pair/summary/num_prompts", {"new: 5"}),
    ],
)
def test_what_was_not_written_down_is_shown(part: str, left_out: str, wanted: set[str]) -> None:
    kept = {key: value for key, value in getattr(CHANGES, part).items() if key != left_out}
    found = differences(flatten(BEFORE), flatten(AFTER), CHANGES._replace(**{part: kept}))
    shown = "\n".join(describe(found))
    assert all(text in shown for text in wanted), shown


def test_a_mapping_must_not_lead_two_paths_to_one() -> None:
    changes = CHANGES._replace(renamed={"**/tables/pairs/*/chosen": "pair/chosen"})
    with pytest.raises(ValueError, match=r"two paths to pair/chosen, .*/p2/chosen is the second"):
        differences(flatten(BEFORE), flatten(AFTER), changes)


@pytest.mark.parametrize(
    ("before", "after", "is_equal"),
    [
        # One unit of the sixth digit is a rounding; two are a difference.
        (1.00000, 1.00001, True),
        (1.00000, 1.00002, False),
        (0.0, 1e-8, False),
        (1, 1.0, True),
        (1, True, False),
        (1.0, True, False),
        (0, False, False),
        ("1", 1, False),
        (None, 0, False),
        ([1.0, "a"], [1.00001, "a"], True),
        ([1.0], [1.0, 2.0], False),
        ({}, None, False),
    ],
)
def test_numbers_are_equal_to_six_digits_and_everything_else_exactly(
    before: object, after: object, is_equal: bool
) -> None:
    found = differences({"x": before}, {"x": after}, Changes({}, {}, {}))  # type: ignore[dict-item]
    assert (found == []) is is_equal


def test_a_configuration_that_one_side_lacks_is_a_difference(tmp_path: Path) -> None:
    for folder, names in (("before", "ab"), ("after", "a")):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.json").write_text('{"x": 1}')
    lines = compare_folders(tmp_path / "before", tmp_path / "after", MAPPING)
    assert list(lines) == [f"b: not in {tmp_path / 'after'}"]


def test_a_run_that_was_killed_must_come_to_the_same_as_one_that_was_not(tmp_path: Path) -> None:
    for name, state, loss in (("top", "made", 0.5), ("killed", "reused", 0.6)):
        train = f'{{"state": "{state}", "loss": {loss}}}'
        (tmp_path / f"{name}.json").write_text(f'{{"train": {train}}}')
    lines = list(compare_folders(tmp_path, tmp_path, MAPPING))
    assert lines[0] == "killed must come to the same as top: 1 values differ"
    assert lines[-1].strip() == "0.5 → 0.6"
