"""The last lines of `pvar run`: the main results, and the next step."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from flows.past_runs import PastRun, node_figures
from flows.report_sources import rows_by_source
from flows.run_record import RunRecord
from flows.wiring import Wiring
from pvar.artifacts import Summary
from pvar.gate import ABILITY_NOT_MEASURED, without_ability
from pvar.references import Pinned
from tasks.benchmark_nodes import score_name
from tasks.engine.artifact import open_artifact
from tasks.engine.progress_text import duration_text
from tasks.engine.work_folders import work_folder
from tasks.report.data import SourceRow

MOST_SOURCES = 6
"""With more of them, only the report has them."""

if TYPE_CHECKING:
    from rich.console import Console


def describe(record: RunRecord, wiring: Wiring, console: "Console") -> None:
    """Print the available results of a run, and what the run waits for."""
    with work_folder(wiring.settings.home, "outcome") as scratch:
        artifacts = {}
        for node in record.nodes:
            if node.state in ("made", "reused"):
                stage, _, digest = node.artifact.partition("/")
                artifacts[node.name] = open_artifact(wiring.store, stage, digest, scratch)
        sources = rows_by_source(artifacts, record.config.evaluate.confidence)
    summaries = {name: artifact.manifest.summary for name, artifact in artifacts.items()}
    for line in _lines(record, summaries, sources, wiring.store.uri):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def outcome_json(record: RunRecord, found: PastRun, wiring: Wiring) -> dict[str, object]:
    """The run as `pvar runs --json` has it, with its stages and the figures of each."""
    waits = record.waiting_node
    return {
        **found.as_row(),
        "nodes": [
            node.model_dump(mode="json", include={"name", "artifact", "state", "seconds", "error"})
            | {"figures": node_figures(node, wiring.store)}
            for node in record.nodes
        ],
        "waiting": None
        if waits is None or waits.waiting is None
        else {"node": waits.name, **waits.waiting.model_dump(mode="json")},
        "report": f"{wiring.store.uri}/runs/{record.run}.html",
    }


def _lines(
    record: RunRecord,
    summaries: Mapping[str, Summary],
    sources: Sequence[SourceRow],
    store_uri: str,
) -> Iterator[str]:
    num_reused = sum(node.state == "reused" for node in record.nodes)
    yield f"run {record.run}: {num_reused} of {len(record.nodes)} artifacts reused"
    if spent := _time_spent(record):
        yield spent
    if chosen := summaries.get("select"):
        yield _selected(record.config.select.strategy, chosen, sources)
    if result := summaries.get("evaluate"):
        opponent = Pinned.parse(record.config.evaluate.opponent).location
        yield (
            f"win rate {_share(result['win_rate'])} "
            f"({_share(result['win_rate_lower'])}–{_share(result['win_rate_upper'])}) on "
            f"{result['num_judged']} of {result['num_wanted']} held-out prompts, against {opponent}"
        )
        yield (
            f"mean length {result['opponent_mean_length_tokens']:.0f} → "
            f"{result['challenger_mean_length_tokens']:.0f} tokens, not truncated "
            f"{_share(result['opponent_ended_share'])} → {_share(result['challenger_ended_share'])}"
        )
        yield _ability(result)
    for benchmark in record.config.benchmarks:
        if scores := summaries.get(score_name(benchmark.name)):
            yield f"{benchmark.name}: {_benchmark(scores)}"
    if decision := summaries.get("promote"):
        yield (
            f"gate {'passed' if decision['gate_passed'] else 'failed'}: "
            f"{record.config.promote.model_name} version {decision['version']} {_fate(decision)}"
        )
        if note := without_ability(str(decision.get("gate_note") or "")):  # that is said above
            yield note
    yield f"report: {store_uri}/runs/{record.run}.html"
    node = record.waiting_node
    if node is not None and node.waiting is not None:
        yield f"{node.name} waits for {node.waiting.what}"
        yield f"to go on: {node.waiting.how_to_go_on}"


def _time_spent(record: RunRecord) -> str:
    """How long the run took, the longest stage first, and what was reused. Empty if all was.

    Without the time between the stages if that is not known: a run that Prefect can suspend may
    have waited for days.
    """
    took = {each.name: each.seconds for each in record.nodes if each.state == "made"}
    made = {name: seconds for name, seconds in took.items() if seconds is not None}
    if not made:
        return ""
    parts = [
        f"{name} {_seconds(seconds)}"
        for name, seconds in sorted(made.items(), key=lambda item: -item[1])
    ]
    total = sum(made.values())
    if record.finished_at is not None and record.flow_run is None:
        between = (record.finished_at - record.started_at).total_seconds() - total
        parts.append(f"between the stages {_seconds(max(between, 0.0))}")
        total += max(between, 0.0)
    reused = [each.name for each in record.nodes if each.state == "reused"]
    line = f"took {_seconds(total)}: {', '.join(parts)}"
    return f"{line}; reused: {', '.join(reused)}" if reused else line


def _seconds(seconds: float) -> str:
    return duration_text(seconds) if seconds >= 10 else f"{seconds:.1f} s"


def _selected(strategy: str, chosen: Summary, sources: Sequence[SourceRow]) -> str:
    line = (
        f"selected {chosen['num_selected']} of {chosen['num_prompts']} prompts ({strategy}), mean "
        f"PVar {_number(chosen['pvar_mean_selected'])}, of all {_number(chosen['pvar_mean'])}"
    )
    of_each = [f"{each.num_selected} of {each.num_prompts} {each.source}" for each in sources]
    return f"{line}: {', '.join(of_each)}" if 0 < len(of_each) <= MOST_SOURCES else line


def _number(value: float | int | str | bool | None) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "missing"


def _ability(result: Summary) -> str:
    if result["num_ability_questions"] is None:
        return ABILITY_NOT_MEASURED
    return (
        f"ability {_share(result['opponent_ability'])} → {_share(result['ability'])} of "
        f"{result['num_ability_questions']} questions right, change "
        f"{_share(result['ability_change'])} ({_share(result['ability_change_lower'])} to "
        f"{_share(result['ability_change_upper'])})"
    )


def _benchmark(scores: Summary) -> str:
    if scores.get("not_measured"):
        return f"not measured: {scores['not_measured']}"
    return (
        f"{_points(scores.get('opponent_score'))} → {_points(scores.get('challenger_score'))} %, "
        f"difference {_points(scores.get('difference'))} "
        f"({_points(scores.get('difference_lower'))} to {_points(scores.get('difference_upper'))})"
    )


def _points(value: float | int | str | bool | None) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else "missing"


def _fate(decision: Summary) -> str:
    who = f", {decision['decision']}" if decision["decision"] else ""
    return f"{'is the champion' if decision['promoted'] else 'is registered, not promoted'}{who}"


def _share(value: float | int | str | bool | None) -> str:
    return f"{value:.1%}" if isinstance(value, int | float) else "missing"
