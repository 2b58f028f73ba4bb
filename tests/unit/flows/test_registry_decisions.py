"""Which versions a store knows of, with what they were compared, and what it cannot tell."""

from datetime import UTC, datetime
from pathlib import Path

from flows.registry_decisions import Decision, newest_decisions
from infra.promotion_history import PromotionHistory
from pvar.artifacts import Recipe
from pvar.evaluate_config import PromoteConfig
from pvar.ports import RegisteredVersion, Store
from tasks.engine.artifact import ArtifactKeys
from tasks.stages.person_decision import PersonDecision, keep_decision
from tasks.stages.promote import DECISION, PromotionRecord, passed_reason
from tasks.stages.promotion_gate import PromoteSpec
from tests.artifacts import put_artifact

DIGEST = "sha256-0123456789abcdef01234567"
POLICY = f"/models/start#{DIGEST}"


def put_decision(
    store: Store, model: str, *, record: PromotionRecord | None = None, opponent: str = POLICY
) -> ArtifactKeys:
    """A promote artifact of a trained model; without a record, it is not complete."""
    trained = put_artifact(store, "train", config={"model": model})
    results = put_artifact(store, "evaluate", config={"model": model})
    inputs = {"model": trained, "results": results}
    files = {DECISION: record.model_dump_json().encode()} if record else None
    is_complete = record is not None
    keys = put_artifact(store, "promote", inputs=inputs, files=files, is_complete=is_complete)
    spec = PromoteSpec(
        gate=PromoteConfig(model_name="pvar"), strategy="top", budget="1", opponent=opponent
    )
    digests = {name: made_from.digest for name, made_from in inputs.items()}
    store.write(keys.recipe, Recipe.of("promote", 4, spec, digests).to_json())
    return keys


def recorded(version: int, opponent: str | None = None) -> PromotionRecord:
    return PromotionRecord(
        passed=True, promoted=False, decision=None, checks=(), note="",
        model_name="pvar", version=version, previous_version=None, opponent=opponent,
    )  # fmt: skip


def decisions(store: Store, folder: Path) -> list[Decision]:
    found, faults = newest_decisions(store, folder)
    assert not faults
    return found


def test_an_opponent_has_the_location_of_its_record(file_store: Store, tmp_path: Path) -> None:
    put_decision(file_store, "a", record=recorded(1, POLICY))
    assert [each.spec.opponent for each in decisions(file_store, tmp_path)] == [POLICY]


def test_an_opponent_of_earlier_records_is_an_artifact_or_its_digest(
    file_store: Store, tmp_path: Path
) -> None:
    trained = "train/0123456789abcdef"
    put_decision(file_store, "a", record=recorded(1), opponent=f"models:/pvar/3#{trained}")
    put_decision(file_store, "b", record=recorded(2))  # no run names it
    assert [each.spec.opponent for each in decisions(file_store, tmp_path)] == [
        f"artifact:{trained}#{trained}",
        DIGEST,
    ]


def test_a_version_whose_run_was_not_resumed_is_known_by_its_approval(
    file_store: Store, tmp_path: Path
) -> None:
    put_decision(file_store, "a")
    assert decisions(file_store, tmp_path) == []  # it waits, and nobody decided
    results = put_artifact(file_store, "evaluate", config={"model": "a"})
    approved = PersonDecision(approved=True, by="ana", note="fine", at=datetime.now(UTC))
    keep_decision(file_store, RegisteredVersion("pvar", 3, None), results.root, approved)
    assert [each.version for each in decisions(file_store, tmp_path)] == [3]


def test_a_version_whose_run_was_killed_after_the_promotion_is_known_by_the_history(
    file_store: Store, tmp_path: Path
) -> None:
    keys = put_decision(file_store, "a")
    history = PromotionHistory(file_store, "pvar")
    history.append(None, "promotion", 2, by="ana", reason=passed_reason(keys))
    assert [each.version for each in decisions(file_store, tmp_path)] == [2]


def test_what_cannot_be_read_is_named_and_hides_nothing_else(
    file_store: Store, tmp_path: Path
) -> None:
    put_decision(file_store, "a", record=recorded(1, POLICY))
    damaged = put_decision(file_store, "b", record=recorded(2, POLICY))
    for info in list(file_store.list(f"{damaged.root}/shards/")):
        if info.key.endswith(DECISION):
            file_store.write(info.key, b"{}")
    file_store.write("promote/0123456789abcdef/recipe.json", b"{")
    found, faults = newest_decisions(file_store, tmp_path)
    assert [each.version for each in found] == [1]
    assert {fault.model_name for fault in faults} == {"pvar", None}
    assert all("cannot be read" in fault.sentence for fault in faults)
