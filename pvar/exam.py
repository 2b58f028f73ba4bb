"""An exam: the prompts on which models are compared, the same ones from retraining to retraining.

Results are on one curve only if they were measured on the same exam under the same conditions. Both
are named by a digest: the exam by the contents of its prompts, so that the same questions are the
same exam wherever they come from, and the conditions by how they were answered and judged.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from pydantic import JsonValue

from pvar.digest import digest
from pvar.incoming_rows import parse_row
from pvar.records import BadRow, Prompt, Row
from pvar.unpaired_labels import UnpairedLabel


class ExamPrompts(NamedTuple):
    """The prompts of an exam, all held out, and why other rows are left out."""

    prompts: list[Prompt]
    """In the order of the ids."""
    rejected: dict[str, int]
    """Number of rows by reason."""


def read_exam(
    files: Iterable[tuple[str, Iterable[Row | BadRow]]],
    source_field: str | None = None,
    withdrawn: Collection[str] = (),
) -> ExamPrompts:
    """Parse the rows of files, given as name and rows. Of equal prompts one is kept: an ability
    question before a prompt, else the first. `source_field` of a row names its source. Prompts with
    the ids `withdrawn` are left out."""
    prompts: dict[str, Prompt] = {}
    rejected: Counter[str] = Counter()
    for name, rows in files:
        for row in rows:
            parsed = parse_row(row, name, source_field)
            if isinstance(parsed, str):
                rejected[parsed] += 1
                continue
            if isinstance(parsed, UnpairedLabel):
                parsed = parsed.prompt  # its answer is not asked for
            if parsed.prompt_id in withdrawn:
                rejected["withdrawn"] += 1
                continue
            known = prompts.get(parsed.prompt_id)
            rejected["duplicate"] += known is not None
            if known is None or (parsed.is_question and not known.is_question):
                prompts[parsed.prompt_id] = parsed._replace(split="eval")
    kept = [prompts[prompt_id] for prompt_id in sorted(prompts)]
    return ExamPrompts(kept, {rule: num for rule, num in sorted(rejected.items()) if num})


def exam_digest(prompts: Iterable[Prompt]) -> str:
    """Name of an exam: a hash of its prompts and accepted answers, in any order."""
    return digest(sorted([prompt.prompt_id, *prompt.accepted_answers] for prompt in prompts))


def conditions_digest(
    judge: Mapping[str, JsonValue], orders: str, answers: Mapping[str, JsonValue]
) -> str:
    """Name of the conditions: a hash of the judge, its orders, and how answers are generated.

    `answers` are the hashed settings of stage sample, of which the model does not count: it changes
    from version to version.
    """
    settings = {name: answers.get(name) for name in ("settings", "num_responses", "seed")}
    return digest({"judge": judge, "orders": orders, "answers": settings})


def num_judged(prompts: Sequence[Prompt]) -> int:
    """Number of prompts that are judged: all but the ability questions."""
    return sum(not prompt.is_question for prompt in prompts)
