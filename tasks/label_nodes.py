"""The nodes of the label audit: the labels of the source, and what models say about them.

    labels ─┬─ labels-score-… ─────────────────┬─ audit
            └─ labels-likelihood-champion, … ──┘

No other node reads them: with or without the audit, all other artifacts are the same.
"""

from collections.abc import Mapping

from pvar.config import PipelineConfig
from pvar.digest import digest
from pvar.identity import identity
from pvar.label_audit_config import LabelAuditConfig
from pvar.references import Pinned
from pvar.reward_config import RewardModelConfig
from tasks.benchmark_nodes import judge_name, sampling_inputs
from tasks.engine.artifact import ArtifactKeys
from tasks.engine.node import Node
from tasks.stages.audit import (
    AUDIT,
    CHAMPION_INPUT,
    FIRST_INPUT,
    SCORES_INPUT,
    THE_CHAMPION,
    AskedJudge,
    AskedModel,
    AuditSpec,
)
from tasks.stages.exam_questions import QUESTIONS, LabelQuestions, QuestionsSpec
from tasks.stages.judge_epoch import judge_digest
from tasks.stages.likelihood import LIKELIHOOD, LikelihoodSpec
from tasks.stages.score import SCORE, ScoreSpec

LABELS_NODE = "labels"
AUDIT_NODE = "audit"


def label_nodes(config: PipelineConfig) -> list[Node]:
    """The nodes in execution order; none without `label_audit`."""
    if config.label_audit is None:
        return []
    labels = _labels(config, config.label_audit)
    inputs = {"prompts": labels.keys, "responses": labels.keys}
    scores = {
        model.name: Node(f"labels-score-{model.name}", SCORE, ScoreSpec(reward_model=model), inputs)
        for model in _asked_models(config)
    }
    likelihoods = _likelihoods(config, labels) if _asks_champion(config) else []
    by_input: Mapping[str, ArtifactKeys] = {
        "labels": labels.keys,
        **{f"{SCORES_INPUT}{name}": node.keys for name, node in scores.items()},
        **{node.name.removeprefix("labels-"): node.keys for node in likelihoods},
    }
    audit = Node(AUDIT_NODE, AUDIT, _audit_spec(config), by_input)
    return [labels, *scores.values(), *likelihoods, audit]


def _labels(config: PipelineConfig, audit: LabelAuditConfig) -> Node:
    labels = LabelQuestions(
        kind="labels",
        source=config.ingest.source,
        format=config.ingest.format,
        columns=config.ingest.columns,
        source_field=config.ingest.source_field,
        annotator_field=audit.annotator_field,
        num_rows=audit.num_rows,
    )
    spec = QuestionsSpec(benchmark=labels, withdrawn=config.ingest.withdrawn)
    return Node(LABELS_NODE, QUESTIONS, spec, {})


def _asked_models(config: PipelineConfig) -> list[RewardModelConfig]:
    """The reward models that score any answer, not only those of the data."""
    return [model for model in config.score.reward_models if model.kind != "dataset"]


def _asks_champion(config: PipelineConfig) -> bool:
    """Whether the champion is asked: the first model has no implicit reward relative to itself."""
    first, champion = Pinned.parse(config.first_model), Pinned.parse(config.evaluate.opponent)
    wanted = config.label_audit is not None and config.label_audit.champion
    return wanted and first.digest != champion.digest


def _likelihoods(config: PipelineConfig, labels: Node) -> list[Node]:
    models = {CHAMPION_INPUT: config.evaluate.opponent, FIRST_INPUT: config.first_model}
    return [
        Node(
            f"labels-{name}",
            LIKELIHOOD,
            LikelihoodSpec(
                policy=policy,
                max_length_tokens=config.train.max_length_tokens,
                dtype=config.train.precision,
            ),
            sampling_inputs(policy, labels.keys),
        )
        for name, policy in models.items()
    ]


def _audit_spec(config: PipelineConfig) -> AuditSpec:
    assert config.label_audit is not None
    champion = None
    if _asks_champion(config):
        models = (config.evaluate.opponent, config.first_model)
        settings = digest([Pinned.parse(each).digest for each in models])
        champion = AskedModel(name=THE_CHAMPION, settings=settings)
    return AuditSpec(
        reward_models=tuple(
            AskedModel(name=model.name, settings=digest(identity(model)))
            for model in _asked_models(config)
        ),
        champion=champion,
        judge=_asked_judge(config, config.label_audit.max_judged),
    )


def _asked_judge(config: PipelineConfig, max_judged: int) -> AskedJudge | None:
    evaluate = config.evaluate
    if not max_judged:
        return None
    return AskedJudge(
        name=f"judge {judge_name(evaluate.judge)}",
        settings=judge_digest(evaluate.judge),
        judge=evaluate.judge,
        orders=evaluate.judge_orders,
        seed=evaluate.seed,
        max_judged=max_judged,
    )
