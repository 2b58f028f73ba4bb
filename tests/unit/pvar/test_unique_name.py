"""A name by its first characters: one is found, several or none are an error with candidates."""

import pytest

from pvar.errors import InputError
from pvar.unique_name import unique_name

NAMES = ["20260102-1200-bbbb", "20260101-1200-aaaa", "pair/ab12", "pair/abcd", "train/ab12cd"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pair/ab12", "pair/ab12"),
        ("pair/abc", "pair/abcd"),
        ("tr", "train/ab12cd"),
        ("ab12c", "train/ab12cd"),
        ("20260101", "20260101-1200-aaaa"),
    ],
)
def test_the_only_name_that_begins_so_is_found(text: str, name: str) -> None:
    assert unique_name(text, NAMES, "store", "see pvar runs") == name


def test_a_name_that_begins_another_one_is_itself() -> None:
    assert unique_name("a", ["ab", "a"], "store", "x") == "a"


def test_several_are_listed() -> None:
    with pytest.raises(InputError) as error:
        unique_name("ab", NAMES, "store", "see pvar runs")
    assert str(error.value) == (
        "'ab' begins 3 of them: pair/ab12, pair/abcd, train/ab12cd; give more characters, or see "
        "pvar runs"
    )


def test_of_what_is_not_there_the_nearest_are_listed_or_else_the_first() -> None:
    with pytest.raises(InputError, match=r"^'pair/ab21' is not in s3://b; there are pair/ab12, "):
        unique_name("pair/ab21", NAMES, "s3://b", "see pvar show")
    with pytest.raises(InputError, match=r"'train/00' is not in s3://b; there are train/ab12cd; "):
        unique_name("train/00", NAMES, "s3://b", "see pvar show")
    with pytest.raises(InputError, match=r"there are 20260102.* and 1 more; see pvar show$"):
        unique_name("zzz", NAMES, "s3://b", "see pvar show")
    with pytest.raises(InputError, match=r"^'zzz' is not in s3://b; see pvar show$"):
        unique_name("zzz", [], "s3://b", "see pvar show")
