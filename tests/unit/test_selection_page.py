"""The page about selection strategies names those that exist."""

from pathlib import Path

from pvar.selection import STRATEGIES

PAGE = Path(__file__).parents[2] / "docs" / "selection.md"


def test_the_table_has_a_row_for_every_strategy() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    named = [line.split("`")[1] for line in lines if line.startswith("| `")]
    assert sorted(named) == sorted(STRATEGIES)
