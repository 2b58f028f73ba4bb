"""No key leads out of its prefix, and what is refused says why."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.store.keys import check_key, check_prefix
from pvar.errors import StoreError


@pytest.mark.parametrize("key", ["a", "a/b.json", "score/ab12/0001.parquet", "..a", "a..", "ü/ x"])
def test_names_below_the_root_are_keys(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        *("", "/", "/etc/passwd", "a/", "a//b"),  # an empty part
        *("..", "../a", "a/../../b", "a/..", ".", "./a"),  # leads elsewhere, or twice to one place
        *("a\nb", "a\x00b", "a\x7f", "a\u202eb", "a\ud800"),  # control, direction, no character
        "a\\b",  # a separator elsewhere
        ".tmp/a",  # the store's own
        "é" * 128,  # 256 bytes: no file name
        "/".join(["a" * 99] * 11),  # 1099 bytes: more than S3 takes
    ],
)
def test_what_is_not_a_name_below_the_root_is_refused(key: str) -> None:
    with pytest.raises(StoreError, match="store key"):
        check_key(key)


@given(st.text())
def test_a_key_made_from_any_text_stays_under_its_prefix(text: str) -> None:
    try:
        key = check_key(f"incoming/{text}")
    except StoreError:
        return
    # Independent oracle: a path normalised by hand, as a file system or a browser would do it.
    place: list[str] = []
    for part in PurePosixPath("/", key).parts[1:]:
        place = place[:-1] if part == ".." else [*place, part]
    assert place[0] == "incoming"
    assert len(place) > 1


@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "a/.", ".", ".tm", "a" * 255])
def test_beginnings_of_keys_are_prefixes(prefix: str) -> None:
    assert check_prefix(prefix) == prefix


@pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//", ".tmp/", "a\n"])
def test_what_no_key_begins_with_is_no_prefix(prefix: str) -> None:
    with pytest.raises(StoreError, match="store key"):
        check_prefix(prefix)
