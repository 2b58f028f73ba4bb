"""What a change of the product renamed or moved: how a snapshot of before is read as one of today.

A path is that of a value in the JSON, its keys joined by `/`, below the configuration:
`runs/1/nodes/select/tables/pairs/008acd3e4c191e76/chosen`. In a pattern `*` stands for any text
without a slash and `**` for any text; the wildcards of a new path take what those of the old one
matched, in order. Write here what was meant to change, and nothing else:

    RENAMED = {
        # a table that moved to another node
        "**/nodes/select/tables/pairs/**": "**/nodes/pair/tables/pairs/**",
        # a column
        "**/tables/variance/*/stderr": "**/tables/variance/*/standard_error",
    }
    VALUES = {"**/tables/rejected/*/rule": {"too_long": "pair_too_long"}}
    IGNORED = {"**/nodes/pair/row_counts/rows_in": "new: pairs that were wanted of the selected"}
"""

from collections.abc import Mapping
from typing import NamedTuple


class Changes(NamedTuple):
    """What was meant to change between two snapshots."""

    renamed: Mapping[str, str]
    """Pattern of a path before → today's. The first that matches counts."""
    values: Mapping[str, Mapping[str, str]]
    """Pattern of today's path → text before → today's, also of the texts in a list."""
    ignored: Mapping[str, str]
    """Pattern of today's path → why both sides are left out."""


RENAMED: Mapping[str, str] = {}
VALUES: Mapping[str, Mapping[str, str]] = {}
IGNORED: Mapping[str, str] = {}

MAPPING = Changes(RENAMED, VALUES, IGNORED)
