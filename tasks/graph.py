"""The graph of a configuration: its artifacts, and the inputs of each.

    ingest ─┬─ sample ── score-… ── select ── pair ── train
            ├─ answers-challenger (by the trained model) ─┬─ evaluate ── promote
            └─ answers-opponent ──────────────────────────┘

With `evaluate.prompts`, a node `exam` has the prompts that the models answer, instead of `ingest`.
With `evaluate.reserve_prompts`, a node `reserve` has prompts that are kept out of training, and
that only an audit asks:

    reserve ─┬─ reserve-answers (by the audited model) ─┬─ reserve-evaluate
             └─ reserve-answers-first ──────────────────┘

With `evaluate.against_first`, `answers-first` and `evaluate-first` compare the trained model with
the first one in the same way.

With `evaluate.margins`, `train` also reads pairs that it does not train on:

    ingest ── held-out-sample ── held-out-score-… ── held-out-select ── held-out-pair ── train

With `evaluate.divergence`, `answers-divergence` and `divergence` follow `answers-challenger`; with
`evaluate-first` or `promote.max_total_divergence` also `divergence-first`, from the first model.

If there are exams, `exclude` follows them and `ingest`, and `select` leaves out what it names.

With `sample.adaptive` a first round precedes `sample`, which then has the responses of both rounds:

    first-sample ── first-score-… ── sample ── score-…

With `annotate`, people label selected prompts (`tasks/annotate_nodes.py`).
With `reward_training`, the labels train a reward model (`tasks/reward_nodes.py`).

With `sample.engine: dataset`, `sample` takes the answers that `ingest` found in the data.

A node is a stage with its part of the configuration. Its digest is computed from that part and from
the digests of its inputs, so the whole plan is known before anything runs.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from pvar.config import PipelineConfig
from pvar.references import file_name_of
from pvar.stand_ins import stand_ins
from tasks.annotate_nodes import annotate_nodes
from tasks.benchmark_nodes import (
    benchmark_nodes,
    question_nodes,
    sampling_inputs,
    score_name,
)
from tasks.comparison_nodes import (
    against_first_nodes,
    answers_node,
    audit_nodes,
    divergence_nodes,
    evaluate_node,
)
from tasks.engine.artifact import ArtifactKeys
from tasks.engine.node import Node
from tasks.engine.stage import Stage
from tasks.exam_nodes import exam_nodes, exclude_node, keys_of_exams, reserve_nodes
from tasks.held_out_nodes import held_out_nodes
from tasks.label_nodes import label_nodes
from tasks.reward_nodes import reward_nodes
from tasks.stages.adaptive_sample import ADAPTIVE_SAMPLE, AdaptiveSampleSpec
from tasks.stages.adopt import ADOPT
from tasks.stages.annotate import ANNOTATE
from tasks.stages.audit import AUDIT
from tasks.stages.benchmark import BENCHMARK
from tasks.stages.dataset_sample import DATASET_SAMPLE, DatasetSampleSpec
from tasks.stages.divergence import DIVERGENCE
from tasks.stages.evaluate import EVALUATE
from tasks.stages.exam_questions import QUESTIONS
from tasks.stages.exclude import EXCLUDE
from tasks.stages.harness import HARNESS
from tasks.stages.ingest import INGEST, IngestSpec
from tasks.stages.judge import JUDGE
from tasks.stages.likelihood import LIKELIHOOD
from tasks.stages.outputs import OUTPUTS
from tasks.stages.pair import PAIR, pair_spec
from tasks.stages.promote import PROMOTE
from tasks.stages.promotion_gate import (
    BENCHMARK_INPUT,
    EXAM_PROMPTS,
    FIRST_DIVERGENCE,
    FIRST_RESULTS,
    PromoteSpec,
)
from tasks.stages.reward import REWARD
from tasks.stages.sample import SAMPLE, SampleSpec
from tasks.stages.score import SCORE, ScoreSpec
from tasks.stages.select import SELECT, ImplicitGapSpec, SelectSpec, select_settings
from tasks.stages.train import TRAIN, TrainSpec
from tasks.training.reference import REFERENCE

STAGES: dict[str, Stage[Any]] = {
    stage.name: stage
    for stage in (
        INGEST,
        EXCLUDE,
        SAMPLE,
        SCORE,
        SELECT,
        ANNOTATE,
        PAIR,
        TRAIN,
        DIVERGENCE,
        EVALUATE,
        LIKELIHOOD,
        HARNESS,
        QUESTIONS,
        OUTPUTS,
        JUDGE,
        BENCHMARK,
        REWARD,
        ADOPT,
        AUDIT,
        PROMOTE,
    )
}
"""The stages, in order."""

CACHES = (REFERENCE.name,)
"""Additional artifacts of stages, which no run record names."""


def plan_nodes(config: PipelineConfig) -> dict[str, Node]:
    """All nodes of a pinned configuration by name, in execution order."""
    ingest, own_exam, reserve = _ingest(config), exam_nodes(config), reserve_nodes(config)
    exam = own_exam[0] if own_exam else ingest
    questions = question_nodes(config)
    exams = keys_of_exams(questions, own_exam, reserve)
    exclude = exclude_node(config, ingest, exams)
    first = [] if config.sample.adaptive is None else _first_round(config, ingest)
    sample = _second_round(config, ingest, first) if first else _sample(config, ingest)
    scores = _scores(config, ingest, sample, first)
    select = _select(config, ingest, sample, scores, exclude)
    asked = annotate_nodes(config, select)
    pair = _pair(config, ingest, sample, scores, select, exclude)
    if asked:
        pair = replace(pair, inputs={**pair.inputs, "labels": asked[0].keys})
    held_out = held_out_nodes(config, exam) if config.evaluate.margins else []
    train = _train(config, sample, pair, held_out)
    challenger = f"artifact:{train.keys.root}#{train.keys.root}"
    challenger_answers = answers_node(config, "answers-challenger", exam, challenger)
    opponent_answers = answers_node(config, "answers-opponent", exam, config.evaluate.opponent)
    evaluate = evaluate_node(
        config, EVALUATE.name, exam, challenger=challenger_answers, opponent=opponent_answers
    )
    divergence = divergence_nodes(config, exam, challenger)
    against_first = against_first_nodes(config, exam, challenger_answers)
    benchmarks = benchmark_nodes(config, questions, exam, challenger)
    promote = _promote(config, exam, train, evaluate, against_first, divergence, benchmarks)
    nodes = (
        ingest, *label_nodes(config), *own_exam, *reserve, *questions.values(),
        *([exclude] if exclude else []),
        *first, sample, *scores, select, *asked, pair, *held_out, train,
        opponent_answers, challenger_answers, *divergence,
        evaluate, *against_first, *benchmarks,
        *reward_nodes(config, ingest, exclude, exams), promote, *audit_nodes(config, reserve),
    )  # fmt: skip
    return {node.name: node for node in nodes}


def train_keys(config: PipelineConfig) -> ArtifactKeys:
    """The keys of the model that a configuration trains. They do not depend on the opponent."""
    unopposed = config.evaluate.model_copy(update={"opponent": "nobody#nobody"})
    alone = config.model_copy(update={"evaluate": unopposed, "benchmark_models": ()})
    return plan_nodes(alone)["train"].keys


def reward_keys(config: PipelineConfig) -> ArtifactKeys:
    """The keys of the reward model that a configuration trains, which has `reward_training`.

    They depend neither on the model that would be replaced nor on the reward models that score.
    """
    ingest, questions = _ingest(config), question_nodes(config)
    exams = keys_of_exams(questions, exam_nodes(config), reserve_nodes(config))
    nodes = reward_nodes(config, ingest, exclude_node(config, ingest, exams), exams)
    return next(node.keys for node in nodes if node.stage is REWARD)


def _ingest(config: PipelineConfig) -> Node:
    similarity = config.ingest.near_duplicate_similarity
    spec = IngestSpec(
        source=config.ingest.source,
        source_name=file_name_of(config.ingest.source),
        format=config.ingest.format,
        columns=config.ingest.columns,
        source_field=config.ingest.source_field,
        join_labels=config.ingest.join_labels,
        eval_fraction=0.0 if config.evaluate.prompts else config.ingest.eval_fraction,
        near_duplicate_similarity=similarity,
        decontaminate_against=config.ingest.decontaminate_against,
        decontaminate_ngram_words=config.ingest.decontaminate_ngram_words,
        with_answers=config.sample.engine == "dataset",
        withdrawn=config.ingest.withdrawn,
        strict_below_words=0 if similarity is None else config.ingest.strict_below_words,
    )
    return Node("ingest", INGEST, spec, {})


def _exclusions(exclude: Node | None) -> dict[str, ArtifactKeys]:
    return {} if exclude is None else {"exclusions": exclude.keys}


def _sample(config: PipelineConfig, ingest: Node) -> Node:
    settings = config.sample
    if settings.engine == "dataset":
        spec = DatasetSampleSpec(policy=config.policy)
        return Node("sample", DATASET_SAMPLE, spec, sampling_inputs(config.policy, ingest.keys))
    return Node(
        "sample",
        SAMPLE,
        SampleSpec(
            policy=config.policy,
            settings=settings.sampler_settings,
            num_responses=settings.num_responses,
            seed=settings.seed,
            split="train",
        ),
        sampling_inputs(config.policy, ingest.keys),
    )


def _first_round(config: PipelineConfig, ingest: Node) -> list[Node]:
    """The first responses to every prompt, and their scores by all models but those that only label
    (they score the responses of the second round).
    """
    assert config.sample.adaptive is not None
    few = config.sample.model_copy(
        update={"num_responses": config.sample.adaptive.first_responses, "adaptive": None}
    )
    sample = replace(
        _sample(config.model_copy(update={"sample": few}), ingest), name="first-sample"
    )
    roles = config.model_roles
    early = {f"score-{name}" for name in (*roles.selecting, *roles.implicit)}
    scores = [node for node in _scores(config, ingest, sample, ()) if node.name in early]
    return [sample, *(replace(node, name=f"first-{node.name}") for node in scores)]


def _second_round(config: PipelineConfig, ingest: Node, first: list[Node]) -> Node:
    """Responses of both rounds: the first round's, and the remaining ones of promising prompts."""
    assert config.sample.adaptive is not None
    plain, select = _sample(config, ingest), config.select
    spec = AdaptiveSampleSpec(
        **plain.spec.model_dump(),
        first_responses=config.sample.adaptive.first_responses,
        second_round_share=config.sample.adaptive.second_round_share,
        reward_models=config.model_roles.selecting,
        rewards=select.reward_settings,
        combination=select.combination,
    )
    inputs = {**plain.inputs, "responses": first[0].keys}
    scored = {node.name: node.keys for node in first}
    inputs |= {f"scores-{name}": scored[f"first-score-{name}"] for name in spec.reward_models}
    return Node("sample", ADAPTIVE_SAMPLE, spec, inputs)


def _scores(
    config: PipelineConfig, ingest: Node, sample: Node, first: Sequence[Node]
) -> list[Node]:
    """One node per reward model. Responses that `first` scored are not scored again."""
    scored = {node.name: node.keys for node in first}
    nodes = []
    for model in config.score.reward_models:
        name, inputs = f"score-{model.name}", {"prompts": ingest.keys, "responses": sample.keys}
        if f"first-{name}" in scored:
            inputs["scored"] = scored[f"first-{name}"]
        nodes.append(Node(name, SCORE, ScoreSpec(reward_model=model), inputs))
    return nodes


def _select(
    config: PipelineConfig, ingest: Node, sample: Node, scores: list[Node], exclude: Node | None
) -> Node:
    roles, names, gap = config.model_roles, config.model_roles.selecting, None
    if roles.implicit:
        names += (*roles.implicit, *roles.labelling)
        measuring, *further = roles.implicit
        pairs = pair_spec(config.pair, config.select.reward_settings, roles.labelling).settings
        gap = ImplicitGapSpec(
            reward_model=measuring,
            # Annotated answers have no implicit reward: all gaps are those of sampled ones.
            pairs=pairs.model_copy(update={"own_labels": False}),
            further_models=tuple(further),
            pair_models=None if roles.labelling == roles.selecting else roles.labelling,
        )
    spec = SelectSpec(
        settings=select_settings(config.select), reward_models=roles.selecting, implicit_gap=gap
    )
    inputs = {"prompts": ingest.keys, **_answer_inputs(config, sample, scores, names)}
    return Node("select", SELECT, spec, inputs | _exclusions(exclude))


def _pair(
    config: PipelineConfig,
    ingest: Node,
    sample: Node,
    scores: list[Node],
    select: Node,
    exclude: Node | None,
) -> Node:
    spec = pair_spec(config.pair, config.select.reward_settings, config.model_roles.labelling)
    inputs = {"prompts": ingest.keys, "selection": select.keys}
    if spec.rewards is not None:
        inputs |= _answer_inputs(config, sample, scores, spec.reward_models)
        inputs |= _exclusions(exclude)  # so that reward scales are those of the selection
    return Node("pair", PAIR, spec, inputs)


def _answer_inputs(
    config: PipelineConfig, sample: Node, scores: list[Node], reward_models: Collection[str]
) -> dict[str, ArtifactKeys]:
    """The responses and the scores of these reward models."""
    by_model = zip(config.score.reward_models, scores, strict=True)
    wanted = {model.name: node for model, node in by_model if model.name in reward_models}
    return {
        "responses": sample.keys,
        **{f"scores-{name}": node.keys for name, node in wanted.items()},
    }


def _train(config: PipelineConfig, sample: Node, pair: Node, held_out: Sequence[Node]) -> Node:
    spec = TrainSpec(policy=config.policy, settings=config.train)
    inputs = {"pairs": pair.keys, "responses": sample.keys}
    if held_out:
        inputs |= {"held_out_pairs": held_out[-1].keys, "held_out_responses": held_out[0].keys}
    return Node("train", TRAIN, spec, inputs)


def _promote(
    config: PipelineConfig,
    exam: Node,
    train: Node,
    evaluate: Node,
    against_first: Sequence[Node],
    divergence: Sequence[Node],
    benchmarks: Sequence[Node],
) -> Node:
    spec = PromoteSpec(
        gate=config.promote,
        strategy=config.select.strategy,
        budget=_budget(config),
        opponent=config.evaluate.opponent,
        first=config.first_model if against_first else None,
        stand_ins=stand_ins(config),
    )
    names = {score_name(each.name): each.name for each in config.benchmarks}
    scores = {
        f"{BENCHMARK_INPUT}{names[node.name]}": node.keys
        for node in benchmarks
        if node.name in names
    }
    inputs = {"results": evaluate.keys, "model": train.keys, **scores}
    if config.promote.alpha_budget is not None:
        inputs[EXAM_PROMPTS] = exam.keys
    if against_first:
        inputs[FIRST_RESULTS] = against_first[-1].keys
    if config.promote.max_total_divergence is not None:
        inputs[FIRST_DIVERGENCE] = divergence[-1].keys
    return Node("promote", PROMOTE, spec, inputs)


def _budget(config: PipelineConfig) -> str:
    ((kind, amount),) = config.select.budget.model_dump(exclude_none=True).items()
    return f"{kind}={amount}"
