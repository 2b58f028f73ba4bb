"""Stage adopt: measure the trained reward model on held-out labels, register it, and make it the
champion if its gate passes (`pvar/reward_gate.py`).

The new model and the one that it would replace score the answers of all held-out labels, by the
scorer and in the number format of stage score. A model that the scorer refuses fails the gate. As
with policies, a version can replace only the champion that it was compared with, a version that
fails is registered without the alias, and all operations are idempotent. Where another champion was
adopted meanwhile, the version is refused, and the run goes on.
"""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary
from pvar.errors import ScoringError
from pvar.gate import GateDecision
from pvar.number_format import NumberFormat
from pvar.ports import RegisteredVersion, ScoreRequest
from pvar.references import ModelReference
from pvar.reward_config import ClassifierReward, in_format
from pvar.reward_gate import (
    LabelMargin,
    RewardFigures,
    decide_on_reward_model,
    measure_margins_of_labels,
    refusal_reasons,
)
from pvar.reward_training import RewardGateConfig
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import write_table
from tasks.stages.promote import DECISION, GATE_TAG, RESULTS_TAG, passed_reason
from tasks.stages.reward import has_reward_model
from tasks.stages.reward_labels import Label, read_labels
from tasks.stages.score import finite_or_missing
from tasks.stages.train import MODEL
from tasks.stages.version_origin import tags_of_facts

logger = logging.getLogger(__name__)

LABEL_MARGINS = "label_margins.parquet"

NOTHING_TRAINED = "no reward model was trained, because there is no new label to train on"


class AdoptSpec(BaseModel):
    """The settings that determine the decision."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: RewardGateConfig
    model_name: str
    opponent: ModelReference
    """The reward model that would be replaced."""
    held_out_fraction: float
    max_length_tokens: int
    """Longer conversations have no reward."""
    reward_scale: float
    """τ of the probabilities, in units of reward."""
    confidence: float
    seed: int


class AdoptionRecord(BaseModel):
    """The decision on a reward model: `decision.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    passed: bool
    checks: tuple[tuple[str, float | None, float, bool], ...]
    """Name, value (None if missing), bound, passed."""
    reasons: tuple[str, ...]
    """Why it is refused, one sentence for each check that failed, or that another reward model was
    adopted meanwhile; empty if it passed."""
    note: str
    """The checks that were not made, and why."""
    figures: dict[str, float | int | None]
    model_name: str
    version: int | None
    """None if no model was trained."""
    artifact: str | None = None
    """`reward/<digest>`, of which the version was made."""
    tags: dict[str, str] = {}
    """Of the version."""
    previous_version: int | None
    """The champion before."""
    opponent: str


def adopt(job: Job[AdoptSpec], folder: Path) -> AdoptionRecord:
    """Measure, decide, register, and move the alias if the gate passed; margins go to `folder`.

    A version is refused if the champion is no longer the model that it was compared with.
    """
    if not has_reward_model(job.inputs["model"]):
        write_table(folder / LABEL_MARGINS, [], LabelMargin)
        return _nothing_trained(job.spec, job.inputs["model"].manifest.row_counts)
    labels = read_labels(job.inputs, job.spec.held_out_fraction).held_out
    margins, fault = _margins(job, labels)
    write_table(folder / LABEL_MARGINS, margins, LabelMargin)
    spec = job.spec
    figures = measure_margins_of_labels(
        margins, reward_scale=spec.reward_scale, confidence=spec.confidence, seed=spec.seed
    )
    decision = decide_on_reward_model(figures, spec.gate, confidence=spec.confidence)
    reasons = (*fault, *refusal_reasons(figures, decision))
    return _register(job, decision, reasons, figures)


def _margins(
    job: Job[AdoptSpec], labels: Sequence[Label]
) -> tuple[list[LabelMargin], tuple[str, ...]]:
    """Margins by both models, and why the scorer refuses the new one, if it does."""
    opponent = job.ports.model_folder(job.spec.opponent)
    theirs = _margins_by(job, opponent, labels)
    fault: tuple[str, ...] = ()
    try:
        ours = _margins_by(job, job.inputs["model"].folder(MODEL), labels)
    except ScoringError as error:
        ours, fault = [None] * len(labels), (f"it cannot score: {error}",)
    return [
        LabelMargin(label.prompt.prompt_id, label.prompt.source, label.is_earlier, our, their)
        for label, our, their in zip(labels, ours, theirs, strict=True)
    ], fault


def _margins_by(job: Job[AdoptSpec], model: Path, labels: Sequence[Label]) -> list[float | None]:
    """Chosen minus rejected reward of each label; None if one is missing."""
    settings = ClassifierReward(
        name="reward", model=str(model), max_length_tokens=job.spec.max_length_tokens
    )
    scorer = job.ports.scorer(in_format(settings, job.number_format), {"model": model}, job.runtime)
    requests = [
        ScoreRequest(pair.prompt_id, f"{number}-{side}", pair.messages, answer)
        for number, pair in enumerate(label.pair for label in labels)
        for side, answer in (("chosen", pair.chosen), ("rejected", pair.rejected))
    ]
    try:
        rewards = [finite_or_missing(score).reward for score in scorer.score(requests)]
    finally:
        scorer.close()
    return [
        None if chosen is None or rejected is None else chosen - rejected
        for chosen, rejected in zip(rewards[::2], rewards[1::2], strict=True)
    ]


def _register(
    job: Job[AdoptSpec], decision: GateDecision, reasons: tuple[str, ...], figures: RewardFigures
) -> AdoptionRecord:
    registry, spec, model = job.ports.registry, job.spec, job.inputs["model"]
    flat = flat_figures(figures)
    champion = registry.champion(spec.model_name)
    is_own = champion is not None and champion.artifact == model.keys.root  # of an earlier try
    previous = None if is_own else champion
    stale = _why_stale(spec, previous) if previous is not None and decision.passed else ()
    passed = decision.passed and not stale
    tags = {
        "pvar.opponent": spec.opponent,
        RESULTS_TAG: job.keys.root,
        GATE_TAG: "passed" if passed else "failed",
        **tags_of_facts({"reasons": "; ".join((*reasons, *stale)), "note": decision.note}),
        **{f"pvar.{name}": _shown(value) for name, value in flat.items() if value is not None},
    }
    version = registry.register(spec.model_name, model.folder(MODEL), model.keys.root, tags)
    if passed:
        registry.promote(version, instead_of=champion, reason=passed_reason(job.keys))
    return AdoptionRecord(
        passed=passed,
        checks=tuple(
            (each.name, _known(each.value), each.bound, each.passed) for each in decision.checks
        ),
        reasons=(*reasons, *stale),
        note=decision.note,
        figures=flat,
        model_name=spec.model_name,
        version=version.version,
        artifact=model.keys.root,
        tags=tags,
        previous_version=previous.version if previous is not None else None,
        opponent=spec.opponent,
    )


def _why_stale(spec: AdoptSpec, champion: RegisteredVersion) -> tuple[str, ...]:
    """Empty if the champion is the model that the new one was compared with."""
    opponent = spec.opponent.rpartition("#")[2]
    if opponent == champion.digest:
        return ()
    return (
        f"another reward model was adopted meanwhile: this one was compared with {opponent}, but "
        f"the champion of {spec.model_name} is version {champion.version} ({champion.digest}); run "
        "the pipeline again with reward_training.opponent=champion to compare with it; other "
        "artifacts are reused",
    )


def failed_gate(record: AdoptionRecord) -> bool:
    """Whether a check failed. Of a model that was not trained, or is refused only because another
    one was adopted meanwhile, none did."""
    return not all(passed for _, _, _, passed in record.checks)


def _nothing_trained(spec: AdoptSpec, counts: RowCounts) -> AdoptionRecord:
    reason = NOTHING_TRAINED
    if counts.rows_in:
        reason = (
            f"no reward model was trained: none of {counts.rows_in} labels can be trained on "
            f"({counts.rejected}); raise reward_training.train.max_length_tokens where they are "
            "too long, or use another model where its template refuses them"
        )
    return AdoptionRecord(
        passed=False,
        checks=(),
        reasons=(reason,),
        note="",
        figures={},
        model_name=spec.model_name,
        version=None,
        previous_version=None,
        opponent=spec.opponent,
    )


def flat_figures(figures: RewardFigures) -> dict[str, float | int | None]:
    """The figures by name; those on earlier labels are absent without any, NaN is None."""
    flat: dict[str, float | int | None] = {}
    for name, value in figures._asdict().items():
        if isinstance(value, float | int):
            flat[name] = _known(value)
    changes = {"new": figures.on_new, "earlier": figures.on_earlier}
    for name, change in changes.items():
        for figure, value in (change._asdict() if change else {}).items():
            flat[f"{name}.{figure}"] = _known(value)
    return flat


def _shown(value: float | int) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def read_adoption(artifact: Artifact) -> AdoptionRecord:
    """The record of a complete artifact of this stage."""
    (path,) = artifact.paths(DECISION)
    return AdoptionRecord.model_validate(json.loads(path.read_text()))


@contextmanager
def _open_worker(job: Job[AdoptSpec]) -> Iterator[Work]:
    def work(_: ShardSpec, folder: Path) -> RowCounts:
        record = adopt(job, folder)
        logger.info("%s", adoption_sentence(record))
        (folder / DECISION).write_text(record.model_dump_json(indent=1))
        return RowCounts(rows_in=1, rows_out=1)

    yield work


def adoption_sentence(record: AdoptionRecord) -> str:
    """What was decided, and why, for a log."""
    if record.version is None:
        return f"{record.model_name}: {'; '.join(record.reasons)}"
    name = f"{record.model_name} version {record.version}"
    if record.passed:
        return f"{name}: gate passed, now champion{f'; {record.note}' if record.note else ''}"
    return f"{name}: refused: {'; '.join(record.reasons)}"


def _summarise(_: Job[AdoptSpec], artifact: Artifact) -> Summary:
    record = read_adoption(artifact)
    return {
        "adopted": record.passed,
        "reasons": "; ".join(record.reasons) or None,
        "version": record.version,
        "previous_version": record.previous_version,
        **record.figures,
    }


def _number_format(job: Job[AdoptSpec]) -> NumberFormat:
    return job.ports.number_format("auto", learns=False)


ADOPT = Stage(
    name="adopt",
    description="Measure the reward model; make it the champion if its gate passes.",
    version=1,
    image="train",
    wants_gpu=True,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
    number_format=_number_format,
)
