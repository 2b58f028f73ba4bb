"""Withdrawal: prompts that are never used again, named by their ids.

A person names them by id, or by a row of their own data, from which the id is computed. A prompt's
id is a hash of its messages, so it names the prompt in every file and store, and is kept after the
text is gone.
"""

import re
from collections.abc import Iterable
from datetime import datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from pvar.answer_rows import parse_pool_prompt
from pvar.errors import InputError
from pvar.prompt_rows import parse_prompt
from pvar.records import BadRow, Row
from pvar.row_forms import SYSTEM_FIELDS, Fields

_ID = re.compile(r"[0-9a-f]{16}")

_OF_PROMPTS = (
    "prompt", "messages", "conversations", "instruction", "input", "history", "answers",
    *SYSTEM_FIELDS,
)  # fmt: skip
"""Fields of which a prompt is made, where the row has no answers of which it is the beginning."""


class Withdrawal(BaseModel):
    """Prompts that a person withdrew together. Their texts are not kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    withdrawn_at: AwareDatetime
    reason: str | None
    prompt_ids: tuple[str, ...] = Field(min_length=1)
    """Without those that were withdrawn before, sorted."""


def new_withdrawal(
    prompt_ids: Iterable[str], *, reason: str | None, now: datetime
) -> Withdrawal | None:
    """The withdrawal of these prompts; None if there are none."""
    ids = tuple(sorted(set(prompt_ids)))
    return Withdrawal(withdrawn_at=now, reason=reason, prompt_ids=ids) if ids else None


def ids_of_row(fields: Fields) -> frozenset[str]:
    """Ids of the prompt of a row in any form of `ingest.source`; empty if it has none.

    There are two if the row is read differently with `sample.engine: dataset`. Invalid answers do
    not matter.
    """
    alone = {name: fields[name] for name in _OF_PROMPTS if name in fields}
    found = set[str]()
    for parse in (parse_prompt, parse_pool_prompt):
        prompt = parse(fields, "")
        if isinstance(prompt, str):
            prompt = parse(alone, "")
        if not isinstance(prompt, str):
            found.add(prompt.prompt_id)
    return frozenset(found)


def ids_of_rows(rows: Iterable[Row | BadRow], source: str) -> set[str]:
    """Ids that the rows of a file name: by their prompt, or else by `prompt_id`.

    Raises InputError for a row with neither.
    """
    found: set[str] = set()
    for row in rows:
        if isinstance(row, BadRow):
            raise InputError(f"{source}: line {row.number} is invalid: {row.reason}; fix it")
        ids = ids_of_row(row.fields)
        # First the prompt, because other data sets have a `prompt_id` of their own.
        found |= ids or {_checked(row.fields.get("prompt_id"), f"{source}: row {row.number}")}
    return found


def ids_of_lines(lines: Iterable[str], source: str) -> set[str]:
    """Ids of a text with one per line; blank lines are skipped. InputError for any other line."""
    return {
        _checked(line.strip(), f"{source}: line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    }


def _checked(prompt_id: object, where: str) -> str:
    if isinstance(prompt_id, str) and _ID.fullmatch(prompt_id):
        return prompt_id
    raise InputError(
        f"{where} has no prompt and no prompt id of pvar (16 hex digits), but "
        f"{str(prompt_id)[:80]!r}; give one id per line, or rows with `prompt` (JSON lines, "
        "Parquet) in the forms of ingest.source"
    )
