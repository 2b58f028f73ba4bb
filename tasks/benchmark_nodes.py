"""The nodes of the benchmarks: questions, answers, judgments and scores.

    questions-NAME ─┬─ answers-NAME-ROLE ── judge-NAME-ROLE ─┬─ benchmark-NAME
                    └─ (one pair of nodes per model) ────────┘

Challenger and opponent are scored together, so that their difference is in the artifact. Each
further model has a node of its own, `benchmark-NAME-MODEL`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, assert_never

from pvar.benchmark_config import (
    AlpacaEvalBenchmark,
    ArenaHardBenchmark,
    BenchmarkConfig,
    BenchmarkedModel,
    JudgedBenchmark,
    LabelAgreementBenchmark,
    LmEvalBenchmark,
)
from pvar.config import PipelineConfig
from pvar.evaluation.alpaca_eval_score import LEADERBOARD_JUDGE_MODEL
from pvar.judge_config import JudgeConfig
from pvar.references import Pinned
from tasks.engine.artifact import ArtifactKeys
from tasks.engine.node import Node
from tasks.stages.benchmark import (
    BENCHMARK,
    CHALLENGER,
    OPPONENT,
    BenchmarkSpec,
    JudgedScoring,
)
from tasks.stages.benchmark_alpaca_eval import AlpacaEvalScoring
from tasks.stages.benchmark_arena_hard import ArenaHardScoring
from tasks.stages.benchmark_inputs import ScoredModel
from tasks.stages.benchmark_label_agreement import (
    FIRST_ROLE,
    LIKELIHOOD_INPUT,
    REFERENCE_ROLE,
    LabelAgreementScoring,
)
from tasks.stages.benchmark_lm_eval import HARNESS_INPUT, LmEvalScoring
from tasks.stages.exam_files import AlpacaEvalQuestions, ArenaHardQuestions, JudgedQuestions
from tasks.stages.exam_questions import QUESTIONS, LabelledPairsQuestions, QuestionsSpec
from tasks.stages.harness import HARNESS, HarnessSpec
from tasks.stages.judge import JUDGE
from tasks.stages.judge_epoch import FIRST_EPOCH
from tasks.stages.judge_spec import JudgeSpec
from tasks.stages.likelihood import LIKELIHOOD, likelihood_spec
from tasks.stages.outputs import OUTPUTS, OutputsSpec
from tasks.stages.sample import SAMPLE, SampleSpec


@dataclass(frozen=True)
class Taker:
    """A model that takes the benchmarks."""

    role: str
    name: str
    policy: str | None
    """Pinned reference of the model; None if its answers were made elsewhere."""
    outputs: str | None = None
    """Pinned reference of a file of answers."""


def question_nodes(config: PipelineConfig) -> dict[str, Node]:
    """The node of each benchmark's own questions, by the benchmark's name."""
    return {
        benchmark.name: Node(
            f"questions-{benchmark.name}", QUESTIONS, _questions_spec(questions, config), {}
        )
        for benchmark in config.benchmarks
        if (questions := _questions_of(benchmark)) is not None
    }


def _questions_spec(
    questions: JudgedQuestions | LabelledPairsQuestions, config: PipelineConfig
) -> QuestionsSpec:
    """Published questions are not data that somebody withdraws."""
    is_own = isinstance(questions, LabelledPairsQuestions)
    return QuestionsSpec(benchmark=questions, withdrawn=config.evaluate.withdrawn if is_own else ())


def benchmark_nodes(
    config: PipelineConfig, questions: Mapping[str, Node], exam: Node, challenger: str
) -> list[Node]:
    """The nodes that follow the questions, in execution order.

    `exam` has the held-out prompts, for benchmarks without questions of their own.
    """
    both = [
        Taker(CHALLENGER, model_name(challenger, config), challenger),
        Taker(OPPONENT, model_name(config.evaluate.opponent, config), config.evaluate.opponent),
    ]
    nodes: list[Node] = []
    for benchmark in config.benchmarks:
        asked = questions.get(benchmark.name, exam)
        if isinstance(benchmark, LabelAgreementBenchmark):
            first = [_first_taker(config)] if benchmark.against_first else []
            nodes += _label_agreement(benchmark, asked, [*both, *first], config)
            continue
        if isinstance(benchmark, LmEvalBenchmark):
            nodes += _lm_eval(benchmark, both, config, score_name(benchmark.name))
            for model in config.benchmark_models:
                if model.takes(benchmark.name) and model.model is not None:
                    name = score_name(benchmark.name, model.name)
                    nodes += _lm_eval(benchmark, [_taker(model)], config, name)
            continue
        nodes += _taken(benchmark, asked, both, config, score_name(benchmark.name))
        for model in config.benchmark_models:
            if not model.takes(benchmark.name):
                continue
            name = score_name(benchmark.name, model.name)
            nodes += _taken(benchmark, asked, [_taker(model)], config, name)
    return nodes


def score_name(benchmark: str, model: str | None = None) -> str:
    """Name of the node that scores challenger and opponent, or a further model."""
    return f"benchmark-{benchmark}" if model is None else f"benchmark-{benchmark}-{model}"


def model_name(policy: str, config: PipelineConfig) -> str:
    """A readable name of a pinned model, for results and exported files."""
    location, digest = Pinned.parse(policy)
    if digest.startswith("train/"):
        return f"{config.promote.model_name}-{digest.removeprefix('train/')[:8]}"
    name = location.removeprefix("bundled:").rstrip("/").rpartition("/")[2]
    return name.partition("@")[0] or "model"


def sampling_inputs(policy: str, prompts: ArtifactKeys) -> dict[str, ArtifactKeys]:
    """The prompts, and the train artifact of the policy if it is in this store."""
    return {"prompts": prompts, **policy_input(policy)}


def policy_input(policy: str) -> dict[str, ArtifactKeys]:
    """The train artifact of the policy if it is in this store; else nothing."""
    location, artifact = Pinned.parse(policy)
    if not location.startswith("artifact:"):
        return {}
    stage, _, digest = artifact.partition("/")
    return {"policy": ArtifactKeys(stage, digest)}


def _first_taker(config: PipelineConfig) -> Taker:
    return Taker(FIRST_ROLE, model_name(config.first_model, config), config.first_model)


def _taker(model: BenchmarkedModel) -> Taker:
    return Taker(model.name, model.name, model.model, model.outputs)


def _questions_of(
    benchmark: BenchmarkConfig,
) -> JudgedQuestions | LabelledPairsQuestions | None:
    """What the benchmark asks; None if it uses the run's own held-out prompts."""
    match benchmark:
        case LmEvalBenchmark():
            return None
        case LabelAgreementBenchmark():
            if benchmark.pairs is None:
                return None
            return LabelledPairsQuestions(kind=benchmark.kind, pairs=benchmark.pairs)
        case AlpacaEvalBenchmark():
            return AlpacaEvalQuestions(
                kind=benchmark.kind,
                questions=benchmark.questions,
                baseline_outputs=benchmark.baseline_outputs,
            )
        case ArenaHardBenchmark():
            return ArenaHardQuestions(
                kind=benchmark.kind,
                version=benchmark.version,
                questions=benchmark.questions,
                baseline_answers=benchmark.baseline_answers,
                categories=benchmark.categories,
            )
        case unknown:
            assert_never(unknown)


def _label_agreement(
    benchmark: LabelAgreementBenchmark, prompts: Node, takers: list[Taker], config: PipelineConfig
) -> list[Node]:
    """Likelihoods under these models and the starting policy, and the node that compares them."""
    policies = {taker.role: taker.policy or "" for taker in takers}
    nodes = [
        Node(
            f"likelihood-{benchmark.name}-{role}",
            LIKELIHOOD,
            likelihood_spec(benchmark, policy),
            sampling_inputs(policy, prompts.keys),
        )
        for role, policy in {**policies, REFERENCE_ROLE: config.policy}.items()
    ]
    inputs = {f"{LIKELIHOOD_INPUT}{node.name.rpartition('-')[2]}": node.keys for node in nodes}
    spec = BenchmarkSpec(
        scoring=LabelAgreementScoring(
            kind=benchmark.kind, beta=config.train.beta, seed=config.evaluate.seed
        ),
        models=_scored(takers),
    )
    return [*nodes, Node(score_name(benchmark.name), BENCHMARK, spec, inputs)]


def _lm_eval(
    benchmark: LmEvalBenchmark, takers: list[Taker], config: PipelineConfig, name: str
) -> list[Node]:
    """The harness's results of each model, and the node that compares them."""
    nodes = []
    for taker in takers:
        policy = taker.policy or ""
        spec = HarnessSpec(
            policy=policy,
            settings=benchmark.harness_settings,
            allow_code_execution=benchmark.allow_code_execution,
        )
        inputs = policy_input(policy)
        nodes.append(Node(f"harness-{benchmark.name}-{taker.role}", HARNESS, spec, inputs))
    scored = BenchmarkSpec(
        scoring=LmEvalScoring(
            kind=benchmark.kind, metrics=benchmark.metrics, seed=config.evaluate.seed
        ),
        models=_scored(takers),
    )
    inputs = {
        f"{HARNESS_INPUT}{taker.role}": node.keys for taker, node in zip(takers, nodes, strict=True)
    }
    return [*nodes, Node(name, BENCHMARK, scored, inputs)]


def _scored(takers: list[Taker]) -> tuple[ScoredModel, ...]:
    return tuple(ScoredModel(role=taker.role, name=taker.name) for taker in takers)


def _taken(
    benchmark: JudgedBenchmark,
    questions: Node,
    takers: list[Taker],
    config: PipelineConfig,
    name: str,
) -> list[Node]:
    """Answers and judgments of these models, and the node that scores them."""
    nodes: list[Node] = []
    inputs = {"questions": questions.keys}
    for taker in takers:
        answers = _answers(benchmark, questions, taker)
        judgments = Node(
            f"judge-{benchmark.name}-{taker.role}",
            JUDGE,
            _judge_spec(benchmark, config),
            {"questions": questions.keys, "answers": answers.keys},
        )
        inputs[f"answers-{taker.role}"] = answers.keys
        inputs[f"judgments-{taker.role}"] = judgments.keys
        nodes += [answers, judgments]
    spec = BenchmarkSpec(scoring=_scoring_of(benchmark), models=_scored(takers))
    return [*nodes, Node(name, BENCHMARK, spec, inputs)]


def _answers(benchmark: JudgedBenchmark, questions: Node, taker: Taker) -> Node:
    name = f"answers-{benchmark.name}-{taker.role}"
    if taker.policy is None:
        assert taker.outputs is not None
        outputs = OutputsSpec(kind=benchmark.kind, outputs=taker.outputs, name=taker.name)
        return Node(name, OUTPUTS, outputs, {"prompts": questions.keys})
    spec = SampleSpec(
        policy=taker.policy,
        settings=benchmark.answers,
        num_responses=1,
        seed=benchmark.seed,
        split="eval",
    )
    return Node(name, SAMPLE, spec, sampling_inputs(taker.policy, questions.keys))


def _judge_spec(benchmark: JudgedBenchmark, config: PipelineConfig) -> JudgeSpec:
    own = benchmark.creative_instructions if isinstance(benchmark, ArenaHardBenchmark) else None
    return JudgeSpec(
        judge=benchmark.judge,
        orders=_orders(benchmark),
        creative_instructions=own,
        epoch=benchmark.judge_epoch or FIRST_EPOCH,
        required_coverage=config.promote.min_coverage,
    )


def _orders(benchmark: JudgedBenchmark) -> Literal["both", "seeded"]:
    """Whether the judge sees each pair of answers in both orders, or once in the published one."""
    match benchmark:
        case AlpacaEvalBenchmark():
            return "seeded"
        case ArenaHardBenchmark():
            return "both"
        case unknown:
            assert_never(unknown)


def _scoring_of(benchmark: JudgedBenchmark) -> JudgedScoring:
    match benchmark:
        case AlpacaEvalBenchmark():
            return _alpaca_eval_scoring(benchmark)
        case ArenaHardBenchmark():
            return _arena_hard_scoring(benchmark)
        case unknown:
            assert_never(unknown)


def _alpaca_eval_scoring(benchmark: AlpacaEvalBenchmark) -> AlpacaEvalScoring:
    return AlpacaEvalScoring(
        kind=benchmark.kind,
        calibration=benchmark.calibration,
        judge=judge_name(benchmark.judge),
        has_leaderboard_judge=_is_leaderboards(benchmark.judge),
        seed=benchmark.seed,
    )


def _arena_hard_scoring(benchmark: ArenaHardBenchmark) -> ArenaHardScoring:
    return ArenaHardScoring(
        kind=benchmark.kind,
        version=benchmark.version,
        style_control=benchmark.style_control,
        judge=judge_name(benchmark.judge),
        reads_labels=benchmark.judge.kind == "arena_hard",
        seed=benchmark.seed,
    )


def _is_leaderboards(judge: JudgeConfig) -> bool:
    """Whether it is AlpacaEval's own model, with a template (the published one is not shipped)."""
    return (
        judge.kind == "alpaca_eval"
        and judge.model == LEADERBOARD_JUDGE_MODEL
        and judge.template is not None
    )


def judge_of(benchmark: BenchmarkConfig) -> str | None:
    """Name of the benchmark's judge; None if it has none."""
    return judge_name(benchmark.judge) if isinstance(benchmark, JudgedBenchmark) else None


def judge_name(judge: JudgeConfig) -> str:
    """Name of a judge in results and exported files: its model on the server, or its kind."""
    match judge.kind:
        case "alpaca_eval" | "arena_hard":
            return judge.model
        case _:
            return judge.kind
