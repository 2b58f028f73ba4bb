"""The nodes that make the held-out pairs, on which margins are measured during training.

    ingest ── held-out-sample ── held-out-score-… ── held-out-select ── held-out-pair

They are the stages of training on the other split of the prompts. `held-out-select` keeps every
prompt, for its PVar. `held-out-pair` takes the best and the worst response. All depend on the
settings of sampling and of rewards, on the reward models that label and on the seed of the
evaluation, and on nothing in which selections differ. So the arms and seeds of a study share them.
"""

from pvar.config import PipelineConfig
from pvar.selection_config import PairConfig, SelectConfig
from tasks.benchmark_nodes import sampling_inputs
from tasks.engine.node import Node
from tasks.stages.pair import PAIR, pair_spec
from tasks.stages.sample import SAMPLE, SampleSpec
from tasks.stages.score import SCORE, ScoreSpec
from tasks.stages.select import SELECT, SelectSpec

HELD_OUT_SELECT = "held-out-select"
HELD_OUT_PAIR = "held-out-pair"


def held_out_nodes(config: PipelineConfig, exam: Node) -> list[Node]:
    """The nodes in execution order: first the responses, last the pairs.

    `exam` has the held-out prompts: `ingest`, or the node of `evaluate.prompts`.
    """
    models, rewards = config.model_roles.labelling, config.select.reward_settings
    sample = Node(
        "held-out-sample",
        SAMPLE,
        SampleSpec(
            policy=config.policy,
            settings=config.sample.sampler_settings,
            num_responses=config.sample.num_responses,
            seed=config.evaluate.seed,
            split="eval",
        ),
        sampling_inputs(config.policy, exam.keys),
    )
    inputs = {"prompts": exam.keys, "responses": sample.keys}
    scores = {
        model.name: Node(
            f"held-out-score-{model.name}", SCORE, ScoreSpec(reward_model=model), inputs
        )
        for model in config.score.reward_models
        if model.name in models
    }
    scored = {**inputs, **{f"scores-{name}": node.keys for name, node in scores.items()}}
    everything = SelectConfig(
        **rewards.model_dump(), strategy="all", combination=config.select.combination
    )
    select = Node(
        HELD_OUT_SELECT,
        SELECT,
        SelectSpec(settings=everything, reward_models=models, split="eval"),
        scored,
    )
    spec = pair_spec(PairConfig(), rewards, models).model_copy(update={"split": "eval"})
    pair = Node(HELD_OUT_PAIR, PAIR, spec, {**scored, "selection": select.keys})
    return [sample, *scores.values(), select, pair]
