"""Labelled pairs in the form that stages read: prompts, both answers as responses, and annotators.

The artifact has the tables PROMPTS of stage ingest and RESPONSES of stage sample, so that stages
likelihood and score read it as they read any other.
"""

from pathlib import Path
from typing import NamedTuple

from pvar.digest import response_id
from pvar.labelled_pairs import HeldOutPairs, held_out_pairs
from pvar.records import Prompt, Response
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact
from tasks.engine.tables import write_table
from tasks.stages.ingest import PROMPTS
from tasks.stages.sample import RESPONSES

ANNOTATORS = "annotators.parquet"

ALL_LABELS = "all labels"
"""Name of the source where rows do not name one."""


class Annotator(NamedTuple):
    """Who labelled a prompt, where the row says so."""

    prompt_id: str
    annotator: str


class LabelledPair(NamedTuple):
    """A labelled pair, with the ids of its answers in RESPONSES."""

    prompt: Prompt
    annotator: str | None
    chosen_id: str
    rejected_id: str


def write_labels(labels: HeldOutPairs, folder: Path) -> RowCounts:
    """Write the tables PROMPTS, RESPONSES and ANNOTATORS. Rows out are labelled pairs."""
    responses = [
        _response(pair.prompt_id, index, text)
        for pair in held_out_pairs(labels.prompts)
        for index, text in enumerate((pair.chosen, pair.rejected))
    ]
    write_table(folder / PROMPTS, labels.prompts, Prompt)
    write_table(folder / RESPONSES, responses, Response)
    annotators = [Annotator(*each) for each in labels.annotators.items()]
    write_table(folder / ANNOTATORS, annotators, Annotator)
    num_out = len(labels.prompts)
    return RowCounts(
        rows_in=num_out + sum(labels.rejected.values()), rows_out=num_out, rejected=labels.rejected
    )


def read_labelled_pairs(labels: Artifact) -> list[LabelledPair]:
    """The labelled pairs of a complete artifact."""
    annotators = dict(labels.rows(ANNOTATORS, Annotator))
    return [
        LabelledPair(
            prompt,
            annotators.get(prompt.prompt_id),
            response_id(prompt.prompt_id, 0, prompt.chosen or ""),
            response_id(prompt.prompt_id, 1, prompt.rejected or ""),
        )
        for prompt in labels.rows(PROMPTS, Prompt)
    ]


def _response(prompt_id: str, index: int, text: str) -> Response:
    name = response_id(prompt_id, index, text)
    return Response(prompt_id, name, index, text, len(text.split()), "stop")
