"""`pvar judge-agreement`: compare the configured judge with people's preferences."""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from cyclopts import Parameter, validators

from flows.commands.options import JsonOption, PresetOption, SetOption
from flows.commands.summary import Figure, print_summary
from infra.row_files import read_rows
from pvar.errors import InputError, JudgeError
from pvar.evaluation.judge_agreement import JudgeAgreement, agreement_by_source
from pvar.evaluation.judge_agreement import judge_agreement as agreement_of
from pvar.judging_result import JudgingResult
from pvar.prompt_rows import parse_prompt
from pvar.records import BadRow, Comparison, Prompt, Row

if TYPE_CHECKING:
    from flows.wiring import Wiring
    from pvar.config import PipelineConfig

NO_SOURCE = "no source"


class _Preferences(NamedTuple):
    """The usable rows of a file, and the count of the others."""

    prompts: list[Prompt]
    num_rows: int
    rejected: Mapping[str, int]
    first_problem: str | None
    has_sources: bool


def judge_agreement(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    /,
    preset: PresetOption = None,
    *,
    set_: SetOption = (),
    max_calls: Annotated[int | None, Parameter(validator=validators.Number(gte=0))] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how the configured judge agrees with people's preferences.

    The judge (`evaluate.judge`) sees each pair of answers in both orders. Verdicts of a judge on a
    server are kept, so nothing is paid for twice. Accuracy is the share of the judged pairs in
    which the judge prefers the chosen answer (a tie counts half), with its 95 % interval over
    prompts. Kappa is Cohen's, between the sides that the judge and the person name.

    ```console
    pvar judge-agreement preferences.jsonl my.yaml --max-calls 200
    ```

    Parameters
    ----------
    file
        JSONL or Parquet file (.jsonl may be .gz) of preference rows, as `ingest.source` takes them:
        prompt, chosen, rejected, and optionally source; `-` reads JSON lines from standard input.
    preset
        Name of a preset or path of a YAML file.
    set_
        Changes to the preset as key=value.
    max_calls
        Maximum number of comparisons to judge now, two for each pair (default:
        runtime.judge_max_calls).
    as_json
        Print one JSON object.
    """
    from flows.console import show_progress
    from flows.wiring import connect
    from infra.presets import load_config

    config = load_config(preset, set_)
    preferences = _read(file)
    with show_progress():
        result = _judge(preferences.prompts, config, connect(), max_calls)
    seed = config.evaluate.seed
    agreement = agreement_of(result, seed=seed)
    if not agreement.num_judged:
        raise JudgeError(
            f"none of {agreement.num_pairs} pairs has a verdict in both orders (missing: "
            f"{result.missing}); if the budget is spent, raise --max-calls (a pair needs two) or "
            "runtime.judge_max_*; otherwise check evaluate.judge, and run again"
        )
    sources = [prompt.source for prompt in preferences.prompts] if preferences.has_sources else []
    by_source = agreement_by_source(result, sources, seed=seed) if sources else {}
    figures = _figures(preferences, config, result, agreement)
    if as_json:
        by_name = {source: each._asdict() for source, each in by_source.items()}
        values = {figure.key: figure.value for figure in figures} | {"by_source": by_name}
        sys.stdout.write(json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")
        return
    print_summary("Agreement of the judge with people", figures, as_json=False)
    if by_source:
        _print_sources(by_source)


def _read(path: Path) -> _Preferences:
    prompts: dict[tuple[str, str | None, str | None], Prompt] = {}
    rejected: Counter[str] = Counter()
    first_problem: str | None = None
    has_sources = False
    num_rows = 0
    for row in read_rows(path):
        num_rows += 1
        parsed = _parse(row)
        if isinstance(parsed, Prompt):
            key = (parsed.prompt_id, parsed.chosen, parsed.rejected)
            if key not in prompts:
                prompts[key] = parsed
                has_sources = has_sources or parsed.source != NO_SOURCE
                continue
            parsed = "duplicate"
        rejected[parsed] += 1
        first_problem = first_problem or f"row {row.number}: {parsed}"
    if not prompts:
        raise InputError(
            f"{path}: none of its {num_rows} rows is a preference "
            f"({', '.join(f'{count} {reason}' for reason, count in rejected.items())}); give rows "
            'such as {"prompt": "…", "chosen": "…", "rejected": "…"}'
        )
    return _Preferences(
        list(prompts.values()), num_rows, dict(rejected), first_problem, has_sources
    )


def _parse(row: Row | BadRow) -> Prompt | str:
    """The row's prompt with two answers, or the reason for rejection."""
    if isinstance(row, BadRow):
        return "unreadable_line"
    source = row.fields.get("source")
    parsed = parse_prompt(row.fields, source if isinstance(source, str) and source else NO_SOURCE)
    if isinstance(parsed, str):
        return parsed
    if parsed.chosen is None or parsed.rejected is None:
        return "no_preference"
    return "equal_answers" if parsed.chosen == parsed.rejected else parsed


def _judge(
    prompts: Sequence[Prompt], config: "PipelineConfig", wiring: "Wiring", max_calls: int | None
) -> JudgingResult:
    from flows.pinning import pin_judge
    from pvar.judging import JudgeBudget
    from tasks.engine.progress_log import ProgressLog
    from tasks.stages.judge_pairs import judge_pairs
    from tasks.stages.judgments import cache_of, judge_format, judge_in_format
    from tasks.stages.score import model_folders

    runtime = config.runtime
    if max_calls is not None:
        runtime = runtime.model_copy(update={"judge_max_calls": max_calls})
    settings = pin_judge(config.evaluate.judge, wiring)
    settings = judge_in_format(settings, judge_format(settings, wiring))
    judge = wiring.judge(settings, model_folders(settings, wiring), runtime)
    with ProgressLog("judge-agreement") as progress:
        return judge_pairs(
            judge,
            [
                Comparison(each.prompt_id, each.messages, str(each.rejected), str(each.chosen))
                for each in prompts
            ],
            cache=cache_of(judge, wiring),
            budget=JudgeBudget(runtime.judge_max_calls, runtime.judge_max_usd),
            min_coverage=0.0,
            progress=progress,
        )


def _figures(
    preferences: _Preferences,
    config: "PipelineConfig",
    result: JudgingResult,
    agreement: JudgeAgreement,
) -> list[Figure]:
    return [
        Figure("judge", "Judge", config.evaluate.judge.kind),
        Figure("rows", "Rows", preferences.num_rows),
        Figure("rows_rejected", "Rows left out", preferences.rejected),
        Figure("first_problem", "The first of them", preferences.first_problem),
        Figure("num_pairs", "Pairs", agreement.num_pairs),
        Figure("num_judged", "… judged in both orders", agreement.num_judged),
        Figure("coverage", "Coverage", agreement.coverage),
        Figure("missing", "Verdicts missing", result.missing),
        Figure("accuracy", "Accuracy", agreement.accuracy),
        Figure("accuracy_lower", "… lower end, 95 %", agreement.accuracy_lower),
        Figure("accuracy_upper", "… upper end, 95 %", agreement.accuracy_upper),
        Figure("kappa", "Cohen's kappa", agreement.kappa),
        Figure("position_consistency", "Position consistency", agreement.position_consistency),
        Figure("num_calls", "Calls of the judge", result.num_calls),
        Figure("num_cached", "Verdicts from the cache", result.num_cached),
        Figure("usd", "Cost in USD", result.usd),
    ]


def _print_sources(by_source: Mapping[str, JudgeAgreement]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("Source", "Pairs", "Coverage", "Accuracy", "95 %", "Kappa", "Consistency")
    for source, each in by_source.items():
        table.add_row(
            source,
            str(each.num_pairs),
            f"{100 * each.coverage:.1f} %",
            _share(each.accuracy),
            f"{_share(each.accuracy_lower)} – {_share(each.accuracy_upper)}",
            _share(each.kappa),
            _share(each.position_consistency),
        )
    Console().print(table)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
