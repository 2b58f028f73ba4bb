"""`pvar queue`: ask people about the pairs most worth a label, and take their answers back."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter, validators

from flows.commands.options import JsonOption
from flows.commands.queue_candidates import QueueCandidates, candidates_of_file, candidates_of_run
from flows.commands.summary import Figure, print_summary
from infra.row_files import ROW_FILES, STDIN, read_rows, write_rows
from pvar.annotation_answers import (
    PairAnswer,
    PairLabels,
    UnusableAnswer,
    Vote,
    has_answered,
    label_pairs,
    label_rows,
    parse_answer,
    to_answer_row,
)
from pvar.annotation_queue import (
    AnnotationQueue,
    QueuedPair,
    QueueMeasure,
    Quota,
    make_queue,
    parse_pair,
    to_pair_row,
)
from pvar.errors import ConfigError, InputError
from pvar.label_studio import LABELLING_CONFIGURATION, parse_task, to_task
from pvar.records import BadRow

PAIRS_FILE = "queue.jsonl"
TASKS_FILE = "tasks.json"
CONFIGURATION_FILE = "labelling.xml"

app = App(
    name="queue",
    help="Ask people about the pairs most worth a label, and take their answers back.",
    version_flags=(),
)


@app.command
def export(
    source: str,
    /,
    *,
    out: Path,
    budget: Annotated[int, Parameter(validator=validators.Number(gte=1))],
    by: QueueMeasure = "pvar_lower",
    at_least: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    at_most: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    asked: Annotated[tuple[Path, ...], Parameter(negative=())] = (),
    source_field: str = "source",
    scale: float | Literal["spread"] | None = None,
    seed: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write the pairs most worth a label as Label Studio tasks and as JSON lines.

    One pair of responses of each prompt is asked about. The order of the two in a pair does not
    depend on their rewards, which are in queue.jsonl only.

    ```console
    pvar queue export latest --out queue --budget 200
    ```

    Parameters
    ----------
    source
        A run (its id, or `latest`) whose responses are scored, or a file with one row per prompt:
        prompt, responses and rewards, or the forms of UltraFeedback, SimPO's data and Nectar.
        Several reward models: rewards is an object with a list of each.
    out
        Folder for tasks.json (Label Studio's tasks), labelling.xml (its labelling configuration)
        and queue.jsonl (the pairs with their measure and rewards, best first).
    budget
        Number of pairs.
    by
        Measure by which prompts are asked about, largest first: pvar_lower (the one-sided 95 %
        bound of PVar), pvar, disagreement or entropy of two or more reward models, or random
        (the control).
    at_least
        Minimum share of a source as SOURCE=SHARE, such as code=0.2; may be repeated. If the source
        has fewer prompts, others take their place.
    at_most
        Maximum share of a source as SOURCE=SHARE; may be repeated.
    asked
        Folder of an earlier queue, whose prompts are left out; may be repeated.
    source_field
        Field of a file's rows that names the source. Without it, the file's name is the source. The
        sources of a run are those of its ingest.source_field.
    scale
        Reward scale τ of a file, in units of the rewards, or `spread` (default: 1). A run has its
        own.
    seed
        Seed of random.
    as_json
        Print the summary as one JSON object.
    """
    quotas = _quotas(at_least, at_most)
    candidates = _candidates(source, source_field, scale)
    asked_ids = {pair.prompt_id for folder in asked for pair in read_queue(folder)}
    candidates = candidates.without(asked_ids)
    queue = make_queue(
        candidates.prompts,
        candidates.rewards,
        measure=by,
        budget=budget,
        quotas=quotas,
        seed=seed,
    )
    if not queue.pairs:
        raise InputError(
            f"{source}: no pair to ask about: of {candidates.row_counts.rows_in} prompts "
            f"{dict(candidates.row_counts.rejected) or 'none'} are left out, and then "
            f"{dict(queue.row_counts.rejected)}; pvar_lower needs three responses with a reward, "
            "the other measures two"
        )
    write_queue(out, queue.pairs)
    print_summary("Annotation queue", _export_figures(candidates, queue, budget), as_json=as_json)


@app.command(name="import")
def import_answers(
    answers: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    queue: Path,
    out: Path,
    votes: Path | None = None,
    as_json: JsonOption = False,
) -> None:
    """Turn people's answers into labelled rows that retraining reads.

    A pair has a label if more than half of its annotators prefer the same answer. All other answers
    are counted by reason.

    ```console
    pvar queue import answers.json --queue queue --out labels.jsonl
    ```

    Parameters
    ----------
    answers
        Label Studio's export (format JSON), or JSON lines with id (the pair_id), preferred (1, 2,
        "tie", or null if skipped), annotator and time; `-` reads JSON lines from standard input.
    queue
        Folder of the queue that was asked about.
    out
        Output file, such as incoming/labels-1.jsonl: rows with prompt, chosen, rejected, source,
        annotator and annotated_at. .jsonl, .jsonl.gz or .parquet.
    votes
        Output file with every answer and what became of it.
    as_json
        Print the summary as one JSON object.
    """
    if votes is not None and votes.absolute() == out.absolute():
        raise ConfigError(f"--out and --votes are both {out}; name two files")
    pairs = read_queue(queue)
    labelled = _label(pairs, answers, str(queue))
    if votes is not None:
        write_rows(votes, map(_vote_row, labelled.votes))
    write_rows(out, label_rows(labelled.labels))
    print_summary("Labels", _import_figures(pairs, labelled), as_json=as_json)


@app.command
def fetch(digest: str, /, *, out: Path, as_json: JsonOption = False) -> None:
    """Write the queue of a stage that waits for people's answers (`annotate`).

    ```console
    pvar queue fetch latest --out queue
    ```

    Parameters
    ----------
    digest
        Digest of the stage's artifact, as the waiting run prints it, or its first characters; or
        the run that waits (`latest`).
    out
        Folder for tasks.json, labelling.xml and queue.jsonl.
    as_json
        Print one JSON object with the number of pairs and the folder.
    """
    from flows.asked_questions import asked_digest
    from flows.console import console, print_json
    from flows.wiring import connect
    from tasks.stages.annotate import queued_pairs

    store = connect().store
    pairs = queued_pairs(store, asked_digest(store, digest))
    write_queue(out, pairs)
    if as_json:
        print_json({"pairs": len(pairs), "folder": str(out.absolute())})
        return
    console().print(f"{len(pairs)} pairs: {out.absolute()}", highlight=False, soft_wrap=True)


@app.command
def answer(
    digest: str,
    answers: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    as_json: JsonOption = False,
) -> None:
    """Give the stage that waits (`annotate`) people's answers. Then start its run again.

    The answers replace those that were given before. Those that are there when the run goes on are
    the ones that count; after that, no more are taken. Pairs without a label (ties, skipped pairs,
    disagreement) are left to the rewards.

    ```console
    pvar queue answer latest answers.json
    ```

    Parameters
    ----------
    digest
        Digest of the stage's artifact, as the waiting run prints it, or its first characters; or
        the run that waits (`latest`).
    answers
        The answers, as `pvar queue import` reads them.
    as_json
        Print the summary as one JSON object.
    """
    from flows.asked_questions import asked_digest
    from flows.wiring import connect
    from tasks.stages.annotate import keep_answers, queued_pairs

    store = connect().store
    digest = asked_digest(store, digest)
    pairs = queued_pairs(store, digest)
    labelled = label_pairs(pairs, read_answers(answers))
    if not has_answered(labelled):
        raise InputError(
            f"{answers}: nobody has answered a pair of annotate/{digest} "
            f"({dict(labelled.row_counts.rejected) or 'no answers'}); nothing written"
        )
    readable = [vote.answer for vote in labelled.votes if isinstance(vote.answer, PairAnswer)]
    keep_answers(store, digest, readable)
    print_summary("Labels", _import_figures(pairs, labelled), as_json=as_json)


def write_queue(folder: Path, pairs: Sequence[QueuedPair]) -> None:
    """Write the three files of a queue. Raises InputError if the folder has one already."""
    target = folder / PAIRS_FILE
    if target.exists():
        raise InputError(f"{target} exists, and people may be answering it; give another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tasks = json.dumps([to_task(pair) for pair in pairs], ensure_ascii=False, indent=1)
        (folder / TASKS_FILE).write_text(tasks + "\n", encoding="utf-8")
        (folder / CONFIGURATION_FILE).write_text(LABELLING_CONFIGURATION, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{folder} is not writable ({error.strerror}); give another folder with --out"
        ) from error
    write_rows(target, map(to_pair_row, pairs))  # the last: a queue with it is whole


def read_queue(folder: Path) -> list[QueuedPair]:
    """The pairs of a queue. Raises InputError if the folder has none, or they were changed."""
    path = folder / PAIRS_FILE
    pairs = []
    for row in read_rows(path):
        try:
            pairs.append(parse_pair({} if isinstance(row, BadRow) else row.fields))
        except InputError as error:
            raise InputError(
                f"{path}: row {row.number} is {error}; write it again with `pvar queue export`"
            ) from error
    return pairs


def read_answers(path: Path) -> list[PairAnswer | UnusableAnswer]:
    """The answers of Label Studio's export or of JSON lines.

    Raises InputError if no row has one of both forms.
    """
    name = "standard input" if path == STDIN else str(path)
    found: list[PairAnswer | UnusableAnswer] = []
    has_form = False
    for row in read_rows(path):
        if isinstance(row, BadRow):
            found.append(UnusableAnswer(None, "unreadable_line"))
        elif row.fields.get("annotations") is not None:
            has_form = True
            found += parse_task(row.fields)
        elif "preferred" in row.fields:
            has_form = True
            found.append(parse_answer(row.fields))
        else:
            found.append(UnusableAnswer(None, "unknown_form"))
    if not has_form:
        raise InputError(
            f"{name}: no row has annotations (Label Studio's export in the format JSON) or "
            "preferred (id, preferred, annotator, time); export it again in one of these forms"
        )
    return found


def _label(pairs: Sequence[QueuedPair], answers: Path, queue: str) -> PairLabels:
    """The labels of the answers; InputError if there is none."""
    labelled = label_pairs(pairs, read_answers(answers))
    if not labelled.labels:
        reasons = dict(labelled.row_counts.rejected) or "nobody has answered yet"
        raise InputError(f"{answers}: no pair of {queue} has a label ({reasons}); nothing written")
    return labelled


def _candidates(
    source: str, source_field: str, scale: float | Literal["spread"] | None
) -> QueueCandidates:
    if source.endswith(ROW_FILES):
        return candidates_of_file(
            Path(source), source_field=source_field, scale=1.0 if scale is None else scale
        )
    if scale is not None:
        raise ConfigError(
            f"--scale is {scale}, but a run has its own select.reward_scale; leave --scale out"
        )
    return candidates_of_run(source)


def _quotas(at_least: Sequence[str], at_most: Sequence[str]) -> dict[str, Quota]:
    least, most = _shares("--at-least", at_least), _shares("--at-most", at_most)
    return {name: Quota(least.get(name, 0.0), most.get(name, 1.0)) for name in {**least, **most}}


def _shares(option: str, given: Sequence[str]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for text in given:
        name, _, share = text.rpartition("=")
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not name or not 0 <= value <= 1:
            raise ConfigError(
                f"{option} is {text!r}; give SOURCE=SHARE with a share between 0 and 1, such as "
                "code=0.2"
            )
        if name in shares:
            raise ConfigError(f"{option} names {name} twice; give one share of each source")
        shares[name] = value
    return shares


def _vote_row(vote: Vote) -> dict[str, object]:
    answer = vote.answer
    if isinstance(answer, PairAnswer):
        return {**to_answer_row(answer), "outcome": vote.outcome}
    unknown = {"preferred": None, "annotator": None, "time": None}
    return {"id": answer.pair_id, **unknown, "outcome": vote.outcome}


def _export_figures(
    candidates: QueueCandidates, queue: AnnotationQueue, budget: int
) -> list[Figure]:
    last = queue.pairs[-1]
    by_source = Counter(pair.source for pair in queue.pairs)
    return [
        Figure("rows_rejected", "Prompts left out", dict(candidates.row_counts.rejected)),
        Figure("first_problem", "The first of them", candidates.first_problem),
        Figure("prompts", "Prompts", queue.row_counts.rows_in),
        Figure("budget", "Budget", budget),
        Figure("pairs", "Pairs to label", len(queue.pairs)),
        Figure("not_asked", "Prompts not asked about", dict(queue.row_counts.rejected)),
        Figure("measure", "Measure", last.measure),
        Figure("last_value", "Smallest of the pairs", min(pair.value for pair in queue.pairs)),
        Figure("sources", "Pairs by source", dict(sorted(by_source.items()))),
    ]


def _import_figures(pairs: Sequence[QueuedPair], found: PairLabels) -> list[Figure]:
    counts = found.row_counts
    answered = [vote.answer for vote in found.votes if isinstance(vote.answer, PairAnswer)]
    return [
        Figure("pairs", "Pairs of the queue", len(pairs)),
        Figure("labels", "Pairs with a label", len(found.labels)),
        Figure("annotators", "Annotators", len({answer.annotator for answer in answered})),
        Figure("answers", "Answers", counts.rows_in),
        Figure("answers_used", "Answers that labels rest on", counts.rows_out),
        Figure("answers_rejected", "Other answers", dict(counts.rejected)),
    ]
