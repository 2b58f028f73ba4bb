"""Collects the data of a run's report from the run record and its artifacts."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from flows.execution import flatten
from flows.report_benchmarks import benchmark_reports
from flows.report_correlations import correlations
from flows.report_exam import exam_curve
from flows.report_labels import agreement_rows
from flows.report_origin import machines, stored_files
from flows.report_sources import rows_by_source
from flows.run_record import NodeRecord, RunRecord
from flows.wiring import Wiring
from infra.row_files import refuse_target, write_page
from infra.tracking import run_page
from pvar.circular_judge import refuse_circular_judge
from pvar.config import PipelineConfig
from pvar.gate import BENCHMARK_CHECK, without_ability
from pvar.records import Pair, Prompt, Response, Score, Verdict
from pvar.references import Pinned
from pvar.selection.strategy import PVAR
from pvar.stand_ins import stand_ins
from tasks.benchmark_nodes import score_name
from tasks.engine.artifact import Artifact, open_artifact
from tasks.engine.tables import PromptVariance, TrainStep, by_prompt
from tasks.engine.work_folders import work_folder
from tasks.exam_nodes import DIVERGENCE_FIRST_NODE, FIRST_NODE, exam_node
from tasks.report.data import (
    AnswerFigures,
    AnswerSample,
    Counts,
    Evaluation,
    ExamExclusions,
    Failure,
    Gate,
    GateCheck,
    NamedLink,
    PromptExample,
    PvarDistribution,
    ReportData,
    RewardScale,
    ScoredResponse,
    Setting,
    StageRow,
    WaitingStage,
)
from tasks.report.page import render_report
from tasks.stages.exam_looks import ExamLook
from tasks.stages.exclude import excluded_by_exam
from tasks.stages.ingest import PROMPTS
from tasks.stages.judgments import VERDICTS
from tasks.stages.pair import PAIRS
from tasks.stages.person_decision import PersonDecision
from tasks.stages.promote import read_decision
from tasks.stages.promotion_gate import apply_gate, first_divergence, look_of, lower_at_look
from tasks.stages.sample import RESPONSES
from tasks.stages.score import SCORES
from tasks.stages.select import VARIANCE
from tasks.stages.train import STEPS

CHECKS = {
    "win_rate_lower": "lower end of the win rate, above",
    "win_rate_lower_at_look": "lower end of the win rate at the level of this look, above",
    "coverage": "share of prompts judged, at least",
    "ended_share": "share of answers that are not truncated, at least",
    "ability_change_lower": "lower end of the change of ability, at least",
    "total_ability_change_lower": "lower end of the change of ability since the first, at least",
    "total_divergence_upper": "upper end of the divergence from the first model (nats), at most",
}
"""Condition of the gate → its description, which precedes the bound."""

IN_NATS = ("total_divergence_upper",)
"""Conditions whose values are not shares."""

GO_ON = "run the same command again to continue"

NUM_EXAMPLES = 4
NUM_SAMPLES = 12


def write_report(record: RunRecord, wiring: Wiring, path: Path) -> ReportData:
    """Write the report of a run, from the artifacts that are complete; what it shows.

    Raises InputError if the path is not writable.
    """
    refuse_target(path)
    with work_folder(wiring.settings.home, "report") as scratch:
        data = _collect(record, wiring, scratch)
        page = render_report(data)
    write_page(path, page)
    return data


def _collect(record: RunRecord, wiring: Wiring, scratch: Path) -> ReportData:
    """Read the run's complete artifacts."""
    artifacts = {
        node.name: _open(node, wiring, scratch)
        for node in record.nodes
        if node.state in ("made", "reused")
    }
    select = artifacts.get("select")
    examples = _examples(record, artifacts) if select else ([], [])
    return ReportData(
        run_id=record.run,
        title=f"pvar run{f' of preset {record.preset}' if record.preset else ''}",
        date=f"{record.started_at:%Y-%m-%d %H:%M} UTC",
        settings=_settings(record.config),
        stand_ins=stand_ins(record.config),
        stages=tuple(_stage_row(node, artifacts.get(node.name)) for node in record.nodes),
        distribution=_distribution(record, select, artifacts.get("exclude")) if select else None,
        sources=rows_by_source(artifacts, record.config.evaluate.confidence),
        labels=agreement_rows(artifacts),
        correlations=correlations(record.config, artifacts) if select else (),
        highest=tuple(examples[0]),
        lowest=tuple(examples[1]),
        steps=tuple(artifacts["train"].rows(STEPS, TrainStep)) if "train" in artifacts else (),
        evaluation=_evaluation(record, artifacts) if "evaluate" in artifacts else None,
        benchmarks=benchmark_reports(record, artifacts),
        samples=_samples(artifacts) if "evaluate" in artifacts else (),
        gate=_gate(record, artifacts),
        exam_curve=exam_curve(artifacts, wiring),
        machines=machines(artifacts),
        links=_links(record, wiring),
        failure=_failure(record.failed_node),
        waiting=_waiting(record),
    )


def _failure(node: NodeRecord | None) -> Failure | None:
    if node is None:
        return None
    if node.was_interrupted:
        return Failure(node.name, GO_ON, was_interrupted=True)
    return Failure(node.name, node.error or "no message")


def _open(node: NodeRecord, wiring: Wiring, scratch: Path) -> Artifact:
    stage, _, digest = node.artifact.partition("/")
    return open_artifact(wiring.store, stage, digest, scratch)


def _settings(config: PipelineConfig) -> tuple[Setting, ...]:
    """The settings that differ from the defaults, without `runtime`."""
    given = flatten(config.model_dump(mode="json"))
    defaults = flatten(PipelineConfig().model_dump(mode="json"))
    return tuple(
        Setting(name, str(value))
        for name, value in given.items()
        if value != defaults.get(name) and not name.startswith("runtime.")
    )


def _stage_row(node: NodeRecord, artifact: Artifact | None) -> StageRow:
    stage = node.artifact.partition("/")[0]
    if artifact is None:
        waits_for = node.waiting.what if node.waiting else None
        return StageRow(node.name, stage, None, seconds=node.seconds, waits_for=waits_for)
    row_counts = artifact.manifest.row_counts
    return StageRow(
        node.name,
        stage,
        node.artifact,
        rows_in=row_counts.rows_in,
        rows_out=row_counts.rows_out,
        rejected=row_counts.rejected,
        seconds=node.seconds,
        reused=node.state == "reused",
        figures=artifact.manifest.summary,
        files=stored_files(artifact),
    )


def _distribution(
    record: RunRecord, select: Artifact, exclude: Artifact | None
) -> PvarDistribution:
    table = select.rows(VARIANCE, PromptVariance)
    summary = select.manifest.summary
    return PvarDistribution(
        pvar=np.array([math.nan if row.pvar is None else row.pvar for row in table]),
        selected=np.array([row.selected for row in table], dtype=bool),
        # The cut of another measure is on another scale.
        cut=_number(summary.get("cut_value")) if summary.get("measure") == PVAR.name else None,
        strategy=record.config.select.strategy,
        num_tied_at_cut=_whole(summary.get("num_tied_at_cut")),
        scales=tuple(
            RewardScale(
                model.name,
                _number(summary.get(f"reward_scale_{model.name}")),
                _number(summary.get(f"saturation_share_{model.name}")),
            )
            for model in record.config.score.reward_models
        ),
        exams=tuple(ExamExclusions(exam, num) for exam, num in excluded_by_exam(exclude).items())
        if exclude
        else (),
    )


def _examples(
    record: RunRecord, artifacts: Mapping[str, Artifact]
) -> tuple[list[PromptExample], list[PromptExample]]:
    """The prompts of highest and of lowest PVar, with rewards of the first selecting model."""
    table = artifacts["select"].rows(VARIANCE, PromptVariance)
    ranked = sorted(
        (row for row in table if row.pvar is not None),
        key=lambda row: (-(row.pvar or 0.0), row.prompt_id),
    )
    prompts = {each.prompt_id: each for each in artifacts["ingest"].rows(PROMPTS, Prompt)}
    responses = by_prompt(artifacts["sample"].rows(RESPONSES, Response))
    model = record.config.model_roles.selecting[0]
    scores = {
        each.response_id: each.reward for each in artifacts[f"score-{model}"].rows(SCORES, Score)
    }
    pairs = (
        {each.prompt_id: each for each in artifacts["pair"].rows(PAIRS, Pair)}
        if "pair" in artifacts
        else {}
    )

    def example(row: PromptVariance) -> PromptExample:
        pair = pairs.get(row.prompt_id)
        answers = tuple(
            ScoredResponse(each.text, scores.get(each.response_id), _role(each.text, pair))
            for each in responses.get(row.prompt_id, ())
        )
        return PromptExample(prompts[row.prompt_id].messages, row.pvar, row.selected, answers)

    return (
        [example(row) for row in ranked[:NUM_EXAMPLES]],
        [example(row) for row in ranked[::-1][:NUM_EXAMPLES]],
    )


def _role(text: str, pair: Pair | None) -> Literal["chosen", "rejected"] | None:
    if pair is None:
        return None
    return "chosen" if text == pair.chosen else "rejected" if text == pair.rejected else None


def _evaluation(record: RunRecord, artifacts: Mapping[str, Artifact]) -> Evaluation:
    summary = artifacts["evaluate"].manifest.summary
    verdicts = artifacts["evaluate"].rows(VERDICTS, Verdict)
    given = [each.preference for each in verdicts if each.preference is not None]
    opponent = Pinned.parse(record.config.evaluate.opponent)
    same = opponent.digest == Pinned.parse(record.config.policy).digest
    return Evaluation(
        win_rate=_number(summary.get("win_rate")),
        ci_lower=_number(summary.get("win_rate_lower")),
        ci_upper=_number(summary.get("win_rate_upper")),
        confidence=record.config.evaluate.confidence,
        num_judged=_whole(summary.get("num_judged")) or 0,
        num_wanted=_whole(summary.get("num_wanted")) or 0,
        judge=record.config.evaluate.judge.kind,
        opponent="the model it started from" if same else opponent.location,
        challenger_answers=_answer_figures(summary, "challenger"),
        opponent_answers=_answer_figures(summary, "opponent"),
        counts=Counts(
            won=sum(value > 0.5 for value in given),
            tied=sum(value == 0.5 for value in given),
            lost=sum(value < 0.5 for value in given),
        ),
        circularity=refuse_circular_judge(
            record.config.evaluate.judge,
            record.config.score.reward_models,
            allowed=True,  # the configuration rejected it already, unless it was allowed
        ),
    )


def _answer_figures(summary: Mapping[str, object], role: str) -> AnswerFigures:
    return AnswerFigures(
        _number(summary.get(f"{role}_mean_length_tokens")),
        _number(summary.get(f"{role}_ended_share")),
    )


def _samples(artifacts: Mapping[str, Artifact]) -> tuple[AnswerSample, ...]:
    """First answers to the first prompts by id, a choice that favours neither model."""
    asked = artifacts[exam_node(artifacts)]
    prompts = {each.prompt_id: each for each in asked.rows(PROMPTS, Prompt)}
    before = by_prompt(artifacts["answers-opponent"].rows(RESPONSES, Response))
    after = by_prompt(artifacts["answers-challenger"].rows(RESPONSES, Response))
    verdicts = by_prompt(artifacts["evaluate"].rows(VERDICTS, Verdict))
    judged = {prompt_id for prompt_id, each in prompts.items() if not each.is_question}
    both = sorted(before.keys() & after.keys() & judged)[:NUM_SAMPLES]
    return tuple(
        AnswerSample(
            prompts[prompt_id].messages,
            before[prompt_id][0].text,
            after[prompt_id][0].text,
            verdicts[prompt_id][0].preference if prompt_id in verdicts else None,
        )
        for prompt_id in both
    )


def _waiting(record: RunRecord) -> WaitingStage | None:
    node = record.waiting_node
    if node is None or node.waiting is None:
        return None
    return WaitingStage(node.waiting.what, node.waiting.how_to_go_on)


def _gate(record: RunRecord, artifacts: Mapping[str, Artifact]) -> Gate | None:
    """The decision on promotion, or the gate's result if the promotion waits for a person."""
    if "promote" in artifacts:
        decision = read_decision(artifacts["promote"])
        note = _gate_note(record, decision.note, decision.decision, decision.look)
        return Gate(decision.promoted, _gate_checks(decision.checks), note)
    waits = record.waiting_node
    if waits is None or waits.name != "promote":
        return None
    benchmarks = {
        each.name: artifacts[score_name(each.name)].manifest.summary
        for each in record.config.benchmarks
    }
    gate, results, asked = (
        record.config.promote, artifacts["evaluate"], artifacts[exam_node(artifacts)],
    )  # fmt: skip
    look = look_of(results, asked, gate, results.store)
    so_far = apply_gate(
        results.manifest.summary,
        benchmarks,
        gate,
        artifacts[FIRST_NODE].manifest.summary if FIRST_NODE in artifacts else None,
        lower_at_look(results, asked, look),
        first_divergence(artifacts[DIVERGENCE_FIRST_NODE], gate.min_coverage)
        if DIVERGENCE_FIRST_NODE in artifacts
        else None,
    )
    note = _gate_note(record, so_far.note, None, look)
    return Gate(False, _gate_checks(so_far.checks), note, waits=True)


def _gate_checks(
    checks: Iterable[tuple[str, float | None, float, bool]],
) -> tuple[GateCheck, ...]:
    return tuple(_gate_check(*check) for check in checks)


def _gate_check(name: str, value: float | None, bound: float, passed: bool) -> GateCheck:
    if not name.startswith(BENCHMARK_CHECK):
        is_share = name not in IN_NATS
        return GateCheck(CHECKS.get(name, name), value, bound, passed, is_share)
    check = f"lower end of the difference on {name.removeprefix(BENCHMARK_CHECK)}, at least"
    # Points of a percentage are shown as shares, as all values of the gate.
    return GateCheck(check, None if value is None else value / 100, bound / 100, passed)


def _gate_note(
    record: RunRecord, note: str, decision: PersonDecision | None, look: ExamLook | None
) -> str:
    """What is no evidence, the person's decision and the look at the exam, as sentences."""
    if record.config.promote.mode == "never":
        return "Promotion is switched off (promote.mode = never)."
    said = [without_ability(note, *stand_ins(record.config))]  # these are said elsewhere
    said += [part.sentence for part in (decision, look) if part is not None]
    return " ".join(f"{text[0].upper()}{text[1:].rstrip('.')}." for text in said if text)


def _links(record: RunRecord, wiring: Wiring) -> tuple[NamedLink, ...]:
    server, run = wiring.tracking.public_uri, record.mlflow_run
    store = NamedLink("Artifact store", wiring.store.uri)
    if server.startswith(("http://", "https://")):
        return NamedLink("MLflow run", run_page(server, record.mlflow_experiment, run)), store
    return NamedLink("MLflow run", run), NamedLink("MLflow (pvar serve shows it)", server), store


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) else None
