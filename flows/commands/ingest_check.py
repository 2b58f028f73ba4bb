"""`pvar ingest-check`: show how the rows of a file are understood, without a run."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, NamedTuple

from cyclopts import Parameter, validators

from flows.commands.options import JsonOption, PresetOption, SetOption
from pvar.records import BadRow, Prompt, Row

if TYPE_CHECKING:
    from pvar.config import PipelineConfig
    from pvar.unpaired_labels import UnpairedLabel

_MAX_SHOWN = 200
"""Characters of a text that are shown."""


class _Rejected(NamedTuple):
    num_rows: int
    first_line: int
    detail: str


class _Understood(NamedTuple):
    """A row as it is read."""

    line: int
    form: str
    row: "Prompt | UnpairedLabel"


class _Check(NamedTuple):
    source: str
    forms: Counter[str]
    """Rows by form; rows that no form could be found of are not in it."""
    kept: list[_Understood]
    rejected: dict[str, _Rejected]
    num_unused_labels: int
    num_undecided_labels: int
    """Pairs of which as many rows prefer the other answer: their prompts are kept without them."""

    @property
    def prompts(self) -> list[Prompt]:
        return [each.row for each in self.kept if isinstance(each.row, Prompt)]

    @property
    def figures(self) -> dict[str, int]:
        """Numbers of rows."""
        num_rejected = sum(each.num_rows for each in self.rejected.values())
        return {
            "num_rows": len(self.kept) + num_rejected,
            "num_kept": len(self.kept),
            "num_pairs": sum(each.chosen is not None for each in self.prompts),
            "num_ability_questions": sum(each.is_question for each in self.prompts),
            "num_labels": len(self.kept) - len(self.prompts),
            "num_unused_labels": self.num_unused_labels,
            "num_undecided_labels": self.num_undecided_labels,
            "num_rejected": num_rejected,
        }


def ingest_check(
    file: str | None = None,
    /,
    preset: PresetOption = None,
    *,
    set_: SetOption = (),
    rows: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 3,
    as_json: JsonOption = False,
) -> None:
    """Show how stage ingest understands the rows of a file, without a run.

    Shown are the form that is recognised (docs/data.md), how many rows are kept, how many are
    rejected by which reason and the first line of each, and the first rows as they are read. A run
    also joins labelled answers to pairs (ingest.join_labels), and drops near-duplicates and what is
    in benchmarks. If no row can be used, the exit code is 2.

    ```console
    pvar ingest-check pairs.csv --set ingest.columns.prompt=question
    ```

    Parameters
    ----------
    file
        A file of rows, or any other value of ingest.source. Default: ingest.source of the preset.
    preset
        Name of a preset or path of a YAML file, for its keys of ingest.
    set_
        Changes to the preset as key=value, such as `ingest.format=hh` or
        `ingest.columns.prompt=question`.
    rows
        How many of the first rows to show.
    as_json
        Print one JSON object.
    """
    from infra.presets import load_config
    from infra.settings import Settings
    from infra.sources import pin_source, source_rows
    from pvar.errors import InputError

    config = load_config(preset, set_)
    source = file or config.ingest.source
    cache = Settings().home / "sources"
    check = _check(source_rows(pin_source(source, cache), cache), source, config)
    shown = check.kept[:rows]
    sys.stdout.write(_as_json(check, shown) if as_json else _as_text(check, shown))
    if not check.kept:
        raise InputError(
            f"{source}: none of its {check.figures['num_rows']} rows can be used, by the reasons "
            "above; name your columns (ingest.columns={prompt: …}) or the form (ingest.format), or "
            "write rows as docs/data.md has them"
        )


def _check(rows: Iterable[Row | BadRow], source: str, config: "PipelineConfig") -> _Check:
    from pvar.prompt_rows import has_unpaired_label
    from pvar.source_columns import renamed, rows_in_form
    from pvar.source_forms import forms_of

    ingest, names = config.ingest, config.ingest.columns.given()
    forms: Counter[str] = Counter()
    form = ""

    def noted() -> Iterator[Row | BadRow]:
        nonlocal form
        for row in rows:
            if isinstance(row, Row):
                found = forms_of(renamed(row.fields, names))
                form = " or ".join(found) if ingest.format == "auto" else ingest.format
                forms[form] += 1
            yield row

    check = _Check(source, forms, [], {}, 0, 0)
    num_unused = 0
    for row in rows_in_form(noted(), ingest.format, ingest.columns, source):
        if isinstance(row, BadRow):
            _reject(check, row.rule, row.number, row.reason)
            continue
        parsed = _parsed(row, source, config)
        if isinstance(parsed, str):
            _reject(check, parsed, row.number, _about(parsed, row))
            continue
        check.kept.append(_Understood(row.number, form, parsed))
        num_unused += isinstance(parsed, Prompt) and has_unpaired_label(row.fields, parsed)
    num_undecided = _settle_labels(check)
    _remove_duplicates(check, ingest.eval_fraction)
    return check._replace(num_unused_labels=num_unused, num_undecided_labels=num_undecided)


def _settle_labels(check: _Check) -> int:
    """Let the majority of contradictory labels win, as stage ingest does; return how many are not
    used because there is none."""
    from pvar.labelled_pairs import label_states, without_label

    states = iter(label_states(check.prompts))
    kept, num_undecided = [], 0
    for each in check.kept:
        state = next(states) if isinstance(each.row, Prompt) else "kept"
        if state == "outvoted":
            _reject(check, "contradictory_label", each.line, "more rows prefer the other answer")
        elif state == "undecided" and isinstance(each.row, Prompt):
            num_undecided += 1
            kept.append(each._replace(row=without_label(each.row)))
        else:
            kept.append(each)
    check.kept[:] = kept
    return num_undecided


def _remove_duplicates(check: _Check, eval_fraction: float) -> None:
    """Of equal prompts keep the one that stage ingest keeps."""
    from pvar.dedup import deduplicate
    from tasks.stages.ingest import row_rank, side_of

    prompts = {
        each.line: each.row._replace(split=side_of(each.row, eval_fraction))
        for each in check.kept
        if isinstance(each.row, Prompt)
    }
    ranked = sorted(prompts.values(), key=row_rank)
    stay = {id(prompt) for prompt in deduplicate(ranked, min_similarity=None).prompts}
    kept = []
    for each in check.kept:
        prompt = prompts.get(each.line)
        if prompt is None or id(prompt) in stay:
            kept.append(each)
        else:
            _reject(check, "duplicate", each.line, prompt.messages[-1].content)
    check.kept[:] = kept


def _parsed(row: Row, source: str, config: "PipelineConfig") -> "Prompt | UnpairedLabel | str":
    """As stage ingest parses it."""
    from pvar.answer_rows import parse_answers, parse_pool_prompt
    from pvar.prompt_rows import parse_prompt, parse_prompt_or_label, source_of

    name = source_of(row.fields, config.ingest.source_field, source.rpartition("/")[2])
    if config.sample.engine != "dataset":
        parse = parse_prompt_or_label if config.ingest.join_labels else parse_prompt
        return parse(row.fields, name)
    prompt = parse_pool_prompt(row.fields, name)
    if isinstance(prompt, str):
        return prompt
    answers = parse_answers(row.fields, prompt.prompt_id)
    return answers if isinstance(answers, str) else prompt


def _about(rule: str, row: Row) -> str:
    """What to know of a row that is rejected by this rule."""
    if rule == "no_prompt":
        named = [name for name, value in row.fields.items() if value is not None]
        return f"its columns are {', '.join(named) or 'all empty'}; name them in ingest.columns"
    return json.dumps(row.fields, ensure_ascii=False, default=str)


def _reject(check: _Check, rule: str, line: int, detail: str) -> None:
    known = check.rejected.get(rule)
    check.rejected[rule] = (
        _Rejected(1, line, _cut(detail))
        if known is None
        else known._replace(num_rows=known.num_rows + 1)
    )


def _cut(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _MAX_SHOWN else f"{plain[: _MAX_SHOWN - 1]}…"


def _as_json(check: _Check, shown: list[_Understood]) -> str:
    values = {
        "source": check.source,
        "forms": check.forms,
        **check.figures,
        "rejected": {rule: each._asdict() for rule, each in check.rejected.items()},
        "rows": [
            {"line": each.line, "form": each.form, "texts": [list(text) for text in _texts(each)]}
            for each in shown
        ],
    }
    return json.dumps(values, ensure_ascii=False) + "\n"


def _as_text(check: _Check, shown: list[_Understood]) -> str:
    figures = check.figures
    forms = ", ".join(f"{form} ({num})" for form, num in check.forms.most_common()) or "none"
    lines = [
        f"{check.source}: {figures['num_rows']} rows; form: {forms}",
        f"kept: {figures['num_kept']}; with a chosen and a rejected answer: {figures['num_pairs']}"
        f"; ability questions: {figures['num_ability_questions']}",
    ]
    if figures["num_labels"]:
        lines.append(f"answers with a label, to be joined to pairs: {figures['num_labels']}")
    if check.num_unused_labels:
        lines.append(
            f"labels that are not used: {check.num_unused_labels}; to use them: "
            "ingest.join_labels=true and pair.own_labels=true"
        )
    if check.num_undecided_labels:
        lines.append(
            f"labels that are not used, because as many rows prefer the other answer: "
            f"{check.num_undecided_labels}"
        )
    lines.append(f"rejected: {figures['num_rejected']}")
    for rule, rejected in check.rejected.items():
        lines.append(f"  {rule}: {rejected.num_rows}, the first in line {rejected.first_line}")
        lines.append(f"    {rejected.detail}")
    for each in shown:
        lines += ["", f"line {each.line} ({each.form})"]
        lines += [f"  {name}: {_cut(text)}" for name, text in _texts(each)]
    return "\n".join(lines) + "\n"


def _texts(understood: _Understood) -> list[tuple[str, str]]:
    """The messages of the prompt, and the answers with their names."""
    row = understood.row
    prompt = row if isinstance(row, Prompt) else row.prompt
    texts: list[tuple[str, str]] = [(message.role, message.content) for message in prompt.messages]
    if not isinstance(row, Prompt):
        return [*texts, ("good answer" if row.is_good else "bad answer", row.completion)]
    pair = {"chosen": row.chosen, "rejected": row.rejected}
    texts += [(name, text) for name, text in pair.items() if text is not None]
    return texts + [("accepted answer", text) for text in row.accepted_answers]
