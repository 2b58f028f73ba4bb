"""The user's names of columns, and the rows of a file as they are read with these and a format."""

from collections.abc import Iterable, Iterator, Mapping

from pvar.config_model import ConfigModel
from pvar.errors import InputError
from pvar.records import BadRow, Row
from pvar.row_forms import Fields
from pvar.source_forms import AMBIGUOUS, SourceFormat, forms_of, to_trl


class SourceColumns(ConfigModel):
    """The user's name of a column, by the name that is read. `null`: it has that name."""

    prompt: str | None = None
    """Column with the prompt: a text, or a list of messages."""
    messages: str | None = None
    """Column with a conversation of `role` and `content`."""
    conversations: str | None = None
    """Column with a conversation of `from` and `value` (ShareGPT)."""
    system: str | None = None
    """Column with the system message."""
    instruction: str | None = None
    """Column with the instruction (Alpaca)."""
    input: str | None = None
    """Column with what the instruction is about (Alpaca)."""
    chosen: str | None = None
    """Column with the better answer."""
    rejected: str | None = None
    """Column with the worse answer."""
    completion: str | None = None
    """Column with the one answer that `label` is about."""
    label: str | None = None
    """Column that says whether the completion is good: true or false."""
    answer: str | None = None
    """Column with the accepted answer or answers, which makes the row an ability question."""
    responses: str | None = None
    """Column with the list of answers, for `sample.engine: dataset`."""
    rewards: str | None = None
    """Column with their rewards, for `sample.engine: dataset`."""
    score_chosen: str | None = None
    """Column with the score of the better answer."""
    score_rejected: str | None = None
    """Column with the score of the worse answer."""

    def given(self) -> dict[str, str]:
        """Name that is read → the user's name of the column, for those that differ."""
        named = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: theirs for name, theirs in named.items() if theirs not in (None, name)}


def rows_in_form(
    rows: Iterable[Row | BadRow],
    source_format: SourceFormat,
    columns: SourceColumns,
    source: str,
) -> Iterator[Row | BadRow]:
    """The rows in TRL's forms; those that cannot be are bad rows with a rule.

    Raises InputError at the end if no row has a column that is named.
    """
    names = columns.given()
    missing, seen = dict(names), dict[str, None]()
    for row in rows:
        if isinstance(row, BadRow):
            yield row
            continue
        if missing:
            seen |= dict.fromkeys(row.fields)
            missing = {name: each for name, each in missing.items() if each not in row.fields}
        fields = renamed(row.fields, names)
        read = to_trl(fields, source_format)
        if isinstance(read, str):
            forms = forms_of(fields) if read == AMBIGUOUS else []
            which = f"{' or '.join(forms)}? Set ingest.format: " if len(forms) > 1 else ""
            yield BadRow(row.number, f"{which}{_excerpt(row.fields)}", read)
        else:
            yield Row(row.number, read)
    if missing and seen:
        name, theirs = next(iter(missing.items()))
        raise InputError(
            f"{source}: no row has the column {theirs!r} (ingest.columns.{name}); its columns are "
            f"{', '.join(list(seen)[:20])}"
        )


def renamed(fields: Fields, names: Mapping[str, str]) -> Fields:
    """The row with the names that are read. What is not in the row keeps its own name."""
    if not names:
        return fields
    found = {name: fields[theirs] for name, theirs in names.items() if theirs in fields}
    used = {theirs for theirs in names.values() if theirs in fields}
    return {name: value for name, value in fields.items() if name not in used} | found


def _excerpt(fields: object) -> str:
    text = repr(fields)
    return text if len(text) <= 200 else f"{text[:199]}…"
