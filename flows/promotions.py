"""Decisions of people about the champion, and the results that they are shown."""

from datetime import UTC, datetime
from typing import NamedTuple

from flows.run_record import load_run
from flows.version_results import Results, results_of
from flows.wiring import Wiring
from flows.withdrawn_versions import versions_trained_on
from infra.actor import whoami
from infra.promotion_history import Move
from infra.registered_models import VersionFacts
from infra.registry import MlflowRegistry
from pvar.errors import InputError, PromotionError
from pvar.ports import RegisteredVersion
from tasks.retraining.erasures import erased_pairs
from tasks.retraining.withdrawals import withdrawn_ids
from tasks.stages.person_decision import PersonDecision, decision_on, keep_decision
from tasks.stages.promote import (
    EXAM_TAGS,
    GATE_TAG,
    MODE_TAG,
    RESULTS_TAG,
    carry_out_approval,
    refuse_stale,
)
from tasks.stages.train import TRAIN


class MoveWithResults(NamedTuple):
    """A move of the champion alias, and the results of the version that it moved to."""

    move: Move
    results: Results
    exam: str | None
    """Digest of the exam of these results; None if it is not known."""
    has_files: bool = True
    """Whether the version's files are there; False if MLflow has no such version."""


class Decided(NamedTuple):
    """The decision that counts, and whether it was just made."""

    decision: PersonDecision
    is_new: bool


def read_history(registry: MlflowRegistry, model_name: str) -> list[MoveWithResults]:
    """All moves of the champion alias, oldest first."""
    moves = registry.history(model_name)
    facts = {each.version.version: each for each in registry.versions(model_name)}
    usable = registry.numbers_with_files(model_name) if moves else frozenset[int]()
    found = []
    for move in moves:
        to = move.to_version
        tags = facts[to].tags if to in facts else {}
        has_files = to is None or to in usable
        found.append(
            MoveWithResults(move, results_of(tags), tags.get(EXAM_TAGS["exam"]), has_files)
        )
    return found


def version_of_run(run: str, wiring: Wiring) -> tuple[str, int]:
    """Name and number of the version that a run registered. Raises InputError if there is none."""
    record = load_run(wiring.store, run)
    name = record.config.promote.model_name
    trained = [node.artifact for node in record.nodes if node.name == TRAIN.name]
    numbers = [
        facts.version.version
        for facts in wiring.registry.versions(name)
        if facts.version.artifact in trained
    ]
    if not numbers:
        raise InputError(
            f"run {record.run} has registered no version of {name}; complete it first, or name "
            "model and version as pvar history prints them"
        )
    return name, max(numbers)


def find_candidate(registry: MlflowRegistry, model_name: str, version: int) -> VersionFacts:
    """The version, if it passed the gate, so that a person may decide on it.

    Raises PromotionError for any other version, and for one of `promote.mode: never`: its
    comparison was not counted as a look at the exam (`tasks/stages/exam_looks.py`).
    """
    found = registry.versions(model_name)
    facts = next((each for each in found if each.version.version == version), None)
    if facts is None:
        known = ", ".join(str(each.version.version) for each in found) or "none"
        raise PromotionError(
            f"{model_name} has no version {version}; it has {known}; see pvar history {model_name}"
        )
    gate = facts.tags.get(GATE_TAG)
    if gate != "passed":
        raise PromotionError(
            f"{model_name} version {version} did not pass the gate ({gate or 'never compared'}); "
            f"to promote it anyway: pvar rollback {model_name} --to {version} --reason TEXT"
        )
    if facts.tags.get(MODE_TAG) == "never":
        raise PromotionError(
            f"{model_name} version {version} was compared with promote.mode=never, so no look at "
            "the exam was counted, and it cannot be approved; run the same with "
            "promote.mode=approval (all else is reused), or promote it without a gate: "
            f"pvar rollback {model_name} --to {version} --reason TEXT"
        )
    return facts


def _refuse_withdrawn(version: RegisteredVersion, wiring: Wiring) -> None:
    """Raise PromotionError if the version was trained on prompts that were withdrawn since."""
    ids = withdrawn_ids(wiring.store)
    trained = versions_trained_on(ids, wiring, erased_pairs(wiring.store)) if ids else []
    named = f"models:/{version.model_name}/{version.version}"
    own = next((each.prompt_ids for each in trained if each.version == named), ())
    if own:
        raise PromotionError(
            f"{version.model_name} version {version.version} was trained on {len(own)} prompts "
            f"that were withdrawn since ({own[0]}, …), so it cannot be approved; decline it, and "
            "run the same again: the prompts are left out"
        )


def decide(
    wiring: Wiring,
    model_name: str,
    version: int,
    *,
    approved: bool,
    note: str,
    by: str | None = None,
) -> Decided:
    """Store a person's decision, and make an approved version the champion.

    The first decision counts. It is not overridden, and it is carried out if that was interrupted.
    Raises PromotionError if no one may decide on the version (`find_candidate`), or if it is
    approved after another version became champion, or was trained on withdrawn prompts.
    """
    facts = find_candidate(wiring.registry, model_name, version)
    results = facts.tags.get(RESULTS_TAG, "")
    kept = decision_on(wiring.store, facts.version, results)
    is_new = False
    if kept is None:
        if approved:  # checked before the decision is stored permanently
            refuse_stale(facts.version, wiring.registry.champion(model_name))
            _refuse_withdrawn(facts.version, wiring)
        decision = PersonDecision(
            approved=approved, by=by or whoami(), note=note, at=datetime.now(UTC)
        )
        kept = keep_decision(wiring.store, facts.version, results, decision)
        is_new = kept == decision
    if kept.approved:
        carry_out_approval(wiring.registry, facts.version, results, kept)
    return Decided(kept, is_new)
