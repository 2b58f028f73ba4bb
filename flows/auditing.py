"""Audits: the champion against the first model, on the reserve exam that no promotion looks at.

Every look wears an exam, and a gate that reads it chooses by it. So the reserve exam has no gate:
an audit follows a number of promotions, or a person's wish, and says how good the champion is.
What to do about it is a person's decision (`pvar rollback`).
"""

import logging
import secrets
from datetime import UTC, datetime

from prefect import flow

from flows.audit_records import (
    AuditNode,
    AuditRecord,
    audit_results,
    read_audits,
    save_audit,
)
from flows.pinning import pin
from flows.pipeline import run_node
from flows.preflight import refuse_unmakeable_here
from flows.retrain_exam import with_reserve
from flows.wiring import Wiring, connect
from infra.actor import whoami
from pvar.config import PipelineConfig
from pvar.errors import ConfigError
from pvar.ports import RegisteredVersion, Store
from pvar.references import Pinned
from pvar.retrain_decision import RetrainConfig
from tasks.comparison_nodes import audit_nodes
from tasks.engine.artifact import open_artifact
from tasks.engine.node import Node
from tasks.exam_nodes import reserve_nodes
from tasks.retraining.exams import exam_of, newest_exam

logger = logging.getLogger(__name__)


@flow(
    name="audit-champion",
    description="Compare the champion with the first model on the reserve exam.",
    persist_result=False,
)
def audit(config: PipelineConfig) -> AuditRecord:
    """Let the champion and the first model take the reserve exam, and record the look.

    The same champion on the same exam is the same look: its record is returned as it is. Raises
    ConfigError without a champion or without a reserve exam.

    Args:
        config: The configuration with `evaluate.reserve_prompts`.
    """
    wiring = connect()
    model = config.promote.model_name
    champion = wiring.registry.champion(model)
    if champion is None:
        raise ConfigError(
            f"{model} has no champion yet, so there is nothing to audit; for its versions: "
            f"pvar history {model} --versions"
        )
    pinned = pin(audited_config(config, champion), wiring)
    reserve = reserve_nodes(pinned)
    nodes = [*reserve, *audit_nodes(pinned, reserve)]
    audits = read_audits(wiring.store, model)
    earlier = next((each for each in audits if each.nodes == _named(nodes)), None)
    if earlier is not None:
        logger.info("%s version %d: looked at in %s", model, earlier.version, earlier.run)
        return _seen_again(earlier, wiring)
    refuse_unmakeable_here(pinned, nodes, wiring)
    record = _begin(champion, pinned, nodes, wiring)
    mlflow_run = wiring.tracking.start_run(record.run, {"pvar.run": record.run})
    try:
        for node in nodes:
            run_node(node, pinned, wiring, mlflow_run)
        record = _finish(record, nodes[-1], audits, wiring)
        assert record.results is not None
        figures = record.results.model_dump(mode="json")
        wiring.tracking.log_summary(mlflow_run, {**figures, "version": record.version})
    except BaseException:  # stopped from outside, too
        wiring.tracking.end_failed_run(mlflow_run)
        raise
    wiring.tracking.end_run(mlflow_run, failed=False)
    return record


def _seen_again(record: AuditRecord, wiring: Wiring) -> AuditRecord:
    """The record, which also holds for the newest move: after a rollback to what was audited, the
    next audit is due as many promotions later as after a look."""
    newest = wiring.registry.history(record.model_name)[-1].number
    if record.move < newest:
        record = record.model_copy(update={"move": newest})
        save_audit(wiring.store, record)
    return record


def audited_config(config: PipelineConfig, champion: RegisteredVersion) -> PipelineConfig:
    """The configuration in which the champion takes the reserve exam, and nothing else is read.

    Raises ConfigError without a reserve exam.
    """
    reserve = config.evaluate.reserve_prompts
    if not reserve:
        raise ConfigError(
            "there is no reserve exam: evaluate.reserve_prompts is empty, and no retraining has "
            "frozen one; set evaluate.reserve_prompts, or reserve_share for the next exam that a "
            "retraining freezes (docs/retraining.md)"
        )
    tree = config.model_dump()
    tree["ingest"] |= {"source": reserve[0], "decontaminate_against": ()}  # nothing is ingested
    tree["evaluate"] |= {
        "audited": f"models:/{champion.model_name}/{champion.version}",
        "prompts": (),
        "against_first": False,
        "divergence": False,
        "margins": False,
        "allow_circular_judge": True,  # of the reward model below, by which nothing is chosen
    }
    tree["promote"] |= {
        "benchmarks": (),
        "max_total_ability_loss": None,
        "max_total_divergence": None,
    }
    tree |= {"benchmarks": (), "benchmark_models": (), "reward_training": None}
    tree["score"] |= {"reward_models": ({"kind": "fake"},)}  # nothing is scored
    tree["select"]["models"] = tree["pair"]["models"] = None
    return PipelineConfig.model_validate(tree)


def with_frozen_reserve(
    config: PipelineConfig, store: Store, exam: int | None = None
) -> PipelineConfig:
    """The configuration with the reserve of a retraining's exam (None: the newest), if it names no
    reserve exam itself and there is one."""
    frozen = newest_exam(store) if exam is None else exam_of(store, exam)
    return with_reserve(frozen, config, store)


def require_reserve(exam: int, store: Store) -> None:
    """Raises ConfigError if no exam has this number, or the one that has kept no reserve apart."""
    frozen = exam_of(store, exam)
    if frozen is None or frozen.reserve is None:
        what = "is not frozen in this store" if frozen is None else "has no reserve"
        raise ConfigError(
            f"exam {exam} {what}; give another --exam, set evaluate.reserve_prompts, or "
            "reserve_share for the next exam that a retraining freezes (docs/retraining.md)"
        )


def audit_due(config: RetrainConfig, wiring: Wiring) -> PipelineConfig | None:
    """The configuration of an audit, if `audit_every` promotions have followed the last look; else
    None."""
    if config.audit_every is None:
        return None
    model = config.pipeline.promote.model_name
    if wiring.registry.champion(model) is None:
        return None
    pipeline = with_frozen_reserve(config.pipeline, wiring.store, config.exam)
    if not pipeline.evaluate.reserve_prompts:
        logger.warning(
            "audit_every is %d, but there is no reserve exam yet; reserve_share keeps one apart "
            "when a retraining freezes an exam",
            config.audit_every,
        )
        return None
    audits = read_audits(wiring.store, model)
    looked_at = max((each.move for each in audits), default=0)
    moves = wiring.registry.history(model)
    promotions = [move for move in moves if move.kind == "promotion" and move.number > looked_at]
    return pipeline if len(promotions) >= config.audit_every else None


def audit_sentence(record: AuditRecord) -> str:
    """What the audit found, and what to do if the champion is worse than the first model."""
    if record.results is None:
        return f"audit {record.run} is not finished"
    named = f"{record.model_name} version {record.version}"
    text = f"{named} on the reserve exam: {record.results.sentence}"
    if not record.results.is_worse:
        return text
    return f"{text}. It is worse than the first model; to undo: pvar rollback {record.model_name}"


def _begin(
    champion: RegisteredVersion, pinned: PipelineConfig, nodes: list[Node], wiring: Wiring
) -> AuditRecord:
    now = datetime.now(UTC)
    moves = wiring.registry.history(champion.model_name)
    record = AuditRecord(
        run=f"audit-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        started_at=now,
        by=whoami(),
        model_name=champion.model_name,
        version=champion.version,
        move=moves[-1].number,
        first_model=Pinned.parse(pinned.first_model).digest,
        nodes=_named(nodes),
    )
    save_audit(wiring.store, record)
    return record


def _finish(
    record: AuditRecord, node: Node, audits: list[AuditRecord], wiring: Wiring
) -> AuditRecord:
    keys = node.keys
    artifact = open_artifact(wiring.store, keys.stage, keys.digest, wiring.settings.home)
    summary = artifact.manifest.summary
    exams = [each.results.exam for each in audits if each.results is not None]
    results = audit_results(summary, look=exams.count(str(summary["exam"])) + 1)
    record = record.model_copy(update={"results": results})
    save_audit(wiring.store, record)
    level = logging.WARNING if results.is_worse else logging.INFO
    logger.log(level, "%s", audit_sentence(record))
    return record


def _named(nodes: list[Node]) -> tuple[AuditNode, ...]:
    return tuple(AuditNode(name=node.name, artifact=node.keys.root) for node in nodes)
