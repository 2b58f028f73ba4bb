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


_SELECT, _PAIR, _PROMOTE = (f"**/nodes/{name}" for name in ("select", "pair", "promote"))
_MEASURES = ("reward_gap", "reward_variance", "disagreement")

RENAMED: Mapping[str, str] = {
    # stage select became select and pair
    f"{_SELECT}/tables/pairs": f"{_PAIR}/tables/pairs",
    f"{_SELECT}/tables/pairs/**": f"{_PAIR}/tables/pairs/**",
    f"{_SELECT}/summary/num_pairs": f"{_PAIR}/summary/num_pairs",
    # every measure but PVar went into a table of its own
    **{
        f"{_SELECT}/tables/variance/*/{name}": f"{_SELECT}/tables/measures/* {name}/value"
        for name in _MEASURES
    },
    "**/report/correlations/model disagreement": "**/report/correlations/disagreement",
}
VALUES: Mapping[str, Mapping[str, str]] = {}
IGNORED: Mapping[str, str] = {
    "**/nodes/select/row_counts/**": "now in prompts, of the selection; before in pairs",
    "**/nodes/select/files": "two tables, of which one is new",
    "**/nodes/select/summary/measure": "new",
    "**/nodes/pair/row_counts/**": "in pairs of the selected prompts; before of all prompts",
    "**/nodes/pair/files": "new",
    "**/nodes/pair/state": "new",
    "**/nodes/pair/summary/num_prompts": "new",
    "**/nodes/pair/summary/margin_mean": "new",
    "**/nodes/pair/summary/num_labelled": "new: pairs of labels that came with the data",
    "**/nodes/promote/documents/decision.json/opponent": "new: for a registry that is rebuilt",
    "**/tables/measures/* implicit_gap/value": "new: recorded as the other measures are",
    "**/report/correlations/implicit gap": "new, as every measure that is recorded",
    **{
        pattern: "new: a measure of a new strategy"
        for name in ("entropy", "rip", "implicit_loss")
        for pattern in (
            f"**/tables/measures/* {name}/value",
            f"**/report/correlations/{name.replace('_', ' ')}",
        )
    },
    "runs/2/nodes/select/state": "another rule of pairs shares the selection of the first run",
    f"{_PROMOTE}/*/awaiting_approval": "a promotion that a person decides waits, and is then made",
    f"{_PROMOTE}/documents/decision.json/awaiting_approval": "as above",
    f"{_PROMOTE}/*/decision": "new: what a person decided",
    f"{_PROMOTE}/documents/decision.json/decision": "new: what a person decided",
    f"{_PROMOTE}/summary/exam_look": "new: how often this exam was looked at",
    f"{_PROMOTE}/summary/alpha_level": "new: the level of that look",
    f"{_PROMOTE}/documents/decision.json/look/**": "new: as above",
    "promotion/versions/*/pvar.exam*": "new: on which exam it was measured, and how",
    "promotion/versions/*/pvar.look": "new: how often this exam was looked at",
    **{
        f"promotion/versions/*/pvar.{name}": "new: what a version's description says of it"
        for name in ("gate_note", "judge", "method", "num_judged", "policy", "source")
    },
    "**/report/gate/note": "new in it: how often this exam was looked at",
    f"{_PROMOTE}/summary/gate_note": "new in it: what stands in for a real model",
    f"{_PROMOTE}/documents/decision.json/note": "new in it: what stands in for a real model",
    "**/report/evaluation/circularity": "another wording",
    "**/nodes/evaluate/summary/judge_served": "new: what the judge's server called itself",
    "**/nodes/evaluate/summary/judge_form": "new: tokens, text or mixed",
    "**/nodes/evaluate/summary/exam": "new: which prompts were asked",
    "**/nodes/evaluate/summary/exam_conditions": "new: how they were answered and judged",
}

MAPPING = Changes(RENAMED, VALUES, IGNORED)
