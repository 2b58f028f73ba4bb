"""The nodes of the reward model's training.

    ingest ───────────┬─ reward ── adopt
    earlier-labels ───┘

With exams, `exclude` and `earlier-exclude` name the prompts whose labels are left out. The nodes
come last but for `promote`: a reward model that passes scores the next run. This run's prompts are
scored by one that was not trained on their labels.
"""

from collections.abc import Mapping

from pvar.config import PipelineConfig
from pvar.references import file_name_of
from pvar.reward_training import RewardTrainingConfig
from tasks.engine.artifact import ArtifactKeys
from tasks.engine.node import Node
from tasks.exam_nodes import exclude_node
from tasks.stages.adopt import ADOPT, AdoptSpec
from tasks.stages.ingest import INGEST, IngestSpec
from tasks.stages.reward import REWARD, RewardSpec
from tasks.stages.reward_labels import EARLIER, EARLIER_EXCLUSIONS


def reward_nodes(
    config: PipelineConfig,
    ingest: Node,
    exclude: Node | None,
    exams: Mapping[str, ArtifactKeys],
) -> list[Node]:
    """The nodes that train and adopt a reward model, in execution order; none without it."""
    training = config.reward_training
    if training is None:
        return []
    read: list[Node] = []
    inputs = {"prompts": ingest.keys}
    if exclude is not None:
        inputs["exclusions"] = exclude.keys
    if training.earlier is not None:
        earlier = Node("earlier-labels", INGEST, _earlier_spec(ingest, training.earlier), {})
        read.append(earlier)
        inputs[EARLIER] = earlier.keys
        earlier_exclude = exclude_node(config, earlier, exams, "earlier-exclude")
        if earlier_exclude is not None:
            read.append(earlier_exclude)
            inputs[EARLIER_EXCLUSIONS] = earlier_exclude.keys
    spec = RewardSpec(
        model=training.model,
        settings=training.train,
        held_out_fraction=training.held_out_fraction,
    )
    reward = Node("reward", REWARD, spec, inputs)
    adopt_inputs = {"model": reward.keys, **inputs}
    return [*read, reward, Node("adopt", ADOPT, _adopt_spec(config, training), adopt_inputs)]


def _earlier_spec(ingest: Node, source: str) -> IngestSpec:
    """How earlier labels are read: like this run's source, but none are held out for evaluation."""
    spec = ingest.spec
    assert isinstance(spec, IngestSpec)
    return spec.model_copy(
        update={
            "source": source,
            "source_name": file_name_of(source),
            "eval_fraction": 0.0,
            "with_answers": False,
        }
    )


def _adopt_spec(config: PipelineConfig, training: RewardTrainingConfig) -> AdoptSpec:
    scale = config.select.reward_scale
    return AdoptSpec(
        gate=training.gate,
        model_name=training.model_name,
        opponent=training.opponent,
        held_out_fraction=training.held_out_fraction,
        max_length_tokens=training.train.max_length_tokens,
        reward_scale=1.0 if scale == "spread" else scale,
        confidence=config.evaluate.confidence,
        seed=config.evaluate.seed,
    )
