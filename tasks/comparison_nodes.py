"""The nodes that compare models on an exam: answers, judgments, and divergence."""

from collections.abc import Sequence

from pvar.config import PipelineConfig
from tasks.benchmark_nodes import policy_input, sampling_inputs
from tasks.engine.artifact import ArtifactKeys
from tasks.engine.node import Node
from tasks.exam_nodes import DIVERGENCE_FIRST_NODE, FIRST_NODE, RESERVE_EVALUATE_NODE
from tasks.stages.divergence import DIVERGENCE, DivergenceSpec
from tasks.stages.evaluate import EVALUATE, EvaluateSpec
from tasks.stages.sample import SAMPLE, SampleSpec


def answers_node(config: PipelineConfig, name: str, exam: Node, policy: str) -> Node:
    """The answers of a model to the exam."""
    return Node(
        name,
        SAMPLE,
        SampleSpec(
            policy=policy,
            settings=config.evaluate.answers,
            num_responses=config.evaluate.num_answers,
            seed=config.evaluate.seed,
            split="eval",
        ),
        sampling_inputs(policy, exam.keys),
    )


def evaluate_node(
    config: PipelineConfig, name: str, exam: Node, *, challenger: Node, opponent: Node
) -> Node:
    """The comparison of two models' answers to the exam."""
    spec = EvaluateSpec(
        judge=config.evaluate.judge,
        orders=config.evaluate.judge_orders,
        confidence=config.evaluate.confidence,
        seed=config.evaluate.seed,
        required_coverage=config.promote.min_coverage,
    )
    inputs = {"prompts": exam.keys, "challenger": challenger.keys, "opponent": opponent.keys}
    return Node(name, EVALUATE, spec, inputs)


def against_first_nodes(config: PipelineConfig, exam: Node, challenger: Node) -> list[Node]:
    """The first model's answers to the exam, and the challenger's answers compared with them."""
    if not config.evaluate.against_first:
        return []
    answers = answers_node(config, "answers-first", exam, config.first_model)
    return [
        answers,
        evaluate_node(config, FIRST_NODE, exam, challenger=challenger, opponent=answers),
    ]


def audit_nodes(config: PipelineConfig, reserve: Sequence[Node]) -> list[Node]:
    """The answers of the audited model and of the first one to the reserve exam, and their
    comparison; none if no model is audited.
    """
    if config.evaluate.audited is None:
        return []
    (exam,) = reserve
    audited = answers_node(config, "reserve-answers", exam, config.evaluate.audited)
    first = answers_node(config, "reserve-answers-first", exam, config.first_model)
    return [
        audited,
        first,
        evaluate_node(config, RESERVE_EVALUATE_NODE, exam, challenger=audited, opponent=first),
    ]


def divergence_nodes(config: PipelineConfig, exam: Node, challenger: str) -> list[Node]:
    """Answers at temperature 1, one per prompt, and the divergences estimated on them: from the
    starting policy and, if that is compared or bounded, last from the first model.
    """
    if not config.evaluate.divergence:
        return []
    plain = config.evaluate.answers.model_copy(update={"temperature": 1.0, "top_p": 1.0})
    evaluate = config.evaluate.model_copy(update={"answers": plain, "num_answers": 1})
    answers = answers_node(
        config.model_copy(update={"evaluate": evaluate}), "answers-divergence", exam, challenger
    )
    spec = DivergenceSpec(
        policy=challenger,
        reference=config.policy,
        dtype=config.train.precision,
        confidence=config.evaluate.confidence,
    )
    inputs = {**sampling_inputs(challenger, exam.keys), "answers": answers.keys}
    references = {DIVERGENCE.name: config.policy}
    if config.evaluate.against_first or config.promote.max_total_divergence is not None:
        references[DIVERGENCE_FIRST_NODE] = config.first_model
    return [
        answers,
        *(
            Node(
                name,
                DIVERGENCE,
                spec.model_copy(update={"reference": model}),
                inputs | _reference_input(model),
            )
            for name, model in references.items()
        ),
    ]


def _reference_input(model: str) -> dict[str, ArtifactKeys]:
    found = policy_input(model)
    return {"reference": found["policy"]} if found else {}
