"""The node that asks people about selected prompts (`annotate`), between `select` and `pair`."""

from pvar.config import PipelineConfig
from tasks.engine.node import Node
from tasks.stages.annotate import ANNOTATE, AnnotateSpec


def annotate_nodes(config: PipelineConfig, select: Node) -> list[Node]:
    """People's labels of selected prompts, whose responses and scores `select` has read."""
    if config.annotate is None:
        return []
    models = config.model_roles.selecting
    spec = AnnotateSpec(
        settings=config.annotate,
        reward_models=models,
        rewards=config.select.reward_settings,
        combination=config.select.combination,
        uses_labels=config.pair.uses_labels,
    )
    read = {"prompts", "responses", "exclusions", *(f"scores-{name}" for name in models)}
    inputs = {name: keys for name, keys in select.inputs.items() if name in read}
    return [Node("annotate", ANNOTATE, spec, {**inputs, "selection": select.keys})]
