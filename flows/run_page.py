"""The page of a run in Prefect: a Markdown artifact with its results, its gate and its links."""

import re
from collections.abc import Iterator, Sequence

from prefect.artifacts import create_markdown_artifact

from flows.run_record import RunRecord
from flows.wiring import Wiring
from infra.tracking import run_page
from tasks.report.benchmark_report import BenchmarkReport
from tasks.report.data import Evaluation, Gate, GateCheck, ReportData

MAX_CELL_CHARACTERS = 300


def artifact_key(text: str) -> str:
    """The text in the letters that Prefect allows in the key of an artifact."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def publish_run(record: RunRecord, data: ReportData, wiring: Wiring) -> None:
    """Show the results of a pipeline run on the page of its Prefect run.

    The artifacts of one model have one key, so that Prefect shows them as a history.
    """
    create_markdown_artifact(
        run_markdown(record, data, wiring),
        key=artifact_key(f"run-{record.config.promote.model_name}"),
        description=f"{record.run}: {outcome_of(data)}",
    )


def outcome_of(data: ReportData) -> str:
    """How the run ended, in one line."""
    if data.failure is not None:
        return f"{data.failure.word} in {data.failure.stage}"
    fate = data.gate.fate if data.gate else "not decided"
    if data.waiting is not None:
        fate = f"waits for {data.waiting.what}"
    return f"{fate}, win rate {_win_rate(data.evaluation)}" if data.evaluation else fate


def run_markdown(record: RunRecord, data: ReportData, wiring: Wiring) -> str:
    """The page."""
    return "\n".join(_lines(record, data, wiring)) + "\n"


def _lines(record: RunRecord, data: ReportData, wiring: Wiring) -> Iterator[str]:
    yield f"# {data.title}: {outcome_of(data)}"
    yield ""
    yield from _links(record, data, wiring)
    if data.failure is not None:
        ended = f"{data.failure.stage} {data.failure.word}"
        yield from ("", f"**{ended}:** {_cell(data.failure.message)}")
    if data.waiting is not None:
        yield from ("", f"**Waits for {data.waiting.what}.** {data.waiting.how_to_go_on}")
    if data.stand_ins:
        yield from ("", f"**This run has stand-ins:** {'; '.join(data.stand_ins)}.")
    if (evaluation := data.evaluation) is not None:
        yield from (
            "",
            f"**Win rate {_win_rate(evaluation)}** on {evaluation.num_judged} of "
            f"{evaluation.num_wanted} held-out prompts, against {evaluation.opponent}, judged by "
            f"{evaluation.judge}.",
        )
        if evaluation.circularity:
            yield from ("", f"**Caution:** {evaluation.circularity}")
    if data.gate is not None:
        yield from _gate(data.gate)
    if data.benchmarks:
        yield from _benchmarks(data.benchmarks)
    yield from ("", "## Stages", "", "| stage | state | rows in | rows out | seconds |")
    yield "|---|---|--:|--:|--:|"
    rows = {row.node: row for row in data.stages}
    for node in record.nodes:
        row = rows[node.name]
        seconds = "–" if node.seconds is None else f"{node.seconds:.1f}"
        counts = f"{_count(row.rows_in)} | {_count(row.rows_out)}"
        yield f"| {node.name} | {node.state} | {counts} | {seconds} |"


def _links(record: RunRecord, data: ReportData, wiring: Wiring) -> Iterator[str]:
    links = {link.label: link.target for link in data.links}
    mlflow, report = links["MLflow run"], f"`{wiring.store.uri}/runs/{record.run}.html`"
    if mlflow.startswith(("http://", "https://")):
        server, of = wiring.tracking.public_uri, (record.mlflow_experiment, record.mlflow_run)
        yield f"- MLflow: [run {record.mlflow_run}]({mlflow})"
        yield f"- Report: [in MLflow]({run_page(server, *of, 'artifacts')}), and {report}"
    else:
        yield from (f"- MLflow: run `{mlflow}`", f"- Report: {report}")
    yield f"- The same on a machine of yours: `pvar report {record.run}`"


def _gate(gate: Gate) -> Iterator[str]:
    yield from ("", f"## Gate: {gate.fate}")
    if gate.note:
        yield from ("", gate.note)
    if gate.checks:
        yield from ("", "| condition | bound | value | |", "|---|--:|--:|---|")
    for check in gate.checks:
        verdict = "passed" if check.passed else "**failed**"
        bound, value = (_value(each, check) for each in (check.bound, check.value))
        yield f"| {_cell(check.check)} | {bound} | {value} | {verdict} |"


def _benchmarks(benchmarks: Sequence[BenchmarkReport]) -> Iterator[str]:
    """Each benchmark over all of its questions; the report has the categories."""
    yield from ("", "## Benchmarks", "", "In percent, with 95 % intervals over questions.", "")
    columns = ("benchmark", "model", "score", "length-controlled", "style-controlled", "coverage")
    yield f"| {' | '.join(columns)} | difference |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    for benchmark in benchmarks:
        name = f"{_cell(benchmark.name)} ({benchmark.kind})"
        if benchmark.not_measured:
            yield f"| {name} | not measured: {_cell(benchmark.not_measured)} | | | | | |"
        for side in (each for each in benchmark.sides if each.category is None):
            score = _points(side.score, side.ci_lower, side.ci_upper)
            change = side.difference
            difference = (
                _points(change.difference, change.ci_lower, change.ci_upper) if change else ""
            )
            controlled = " | ".join(
                "" if each is None else f"{each:.1f}"
                for each in (side.length_controlled, side.style_controlled)
            )
            yield (
                f"| {name} | {side.role} `{_cell(side.model)}` | {score} | {controlled} | "
                f"{side.coverage:.0%} | {difference} |"
            )
    for benchmark in benchmarks:
        if benchmark.judge_check:
            yield from ("", f"{benchmark.name}: {benchmark.judge_check}")


def _points(value: float | None, lower: float | None, upper: float | None) -> str:
    if value is None:
        return "unknown"
    if lower is None or upper is None:
        return f"{value:.1f}"
    return f"{value:.1f} ({lower:.1f} to {upper:.1f})"


def _win_rate(evaluation: Evaluation) -> str:
    rate, lower, upper = evaluation.win_rate, evaluation.ci_lower, evaluation.ci_upper
    if rate is None:
        return "unknown"
    if lower is None or upper is None:
        return f"{rate:.1%}"
    return f"{rate:.1%} ({lower:.1%} to {upper:.1%})"


def _value(value: float | None, check: GateCheck) -> str:
    if value is None:
        return "unknown"
    return f"{value:.1%}" if check.is_share else f"{value:.3g}"


def _count(number: int | None) -> str:
    return "–" if number is None else str(number)


def _cell(text: str) -> str:
    """The text in one line that does not end a table's cell."""
    return " ".join(text.split()).replace("|", "\\|")[:MAX_CELL_CHARACTERS]
