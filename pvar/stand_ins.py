"""What of a configuration stands in for a real model: fakes, and lexicons that nobody chose.

They are for trying out the workflow. A result that rests on one says so: in the log, in the report
and in the note of the gate's decision.

Whether a preset names a key is lost when a configuration is stored or sent to a worker, so it is
noted when it is first read (`runtime.unnamed`). A key that was given another value since is named.
"""

from collections.abc import Iterator

from pvar.benchmark_config import JudgedBenchmark, LmEvalBenchmark
from pvar.config import PipelineConfig
from pvar.judge_config import AfinnJudge, JudgeConfig
from pvar.reward_config import FakeReward, RewardModelConfig, VaderReward
from pvar.runtime_config import JUDGE_KEY, REWARD_KEY


def stand_ins(config: PipelineConfig) -> tuple[str, ...]:
    """One clause for each: what it does, and the key."""
    return tuple(_found(config))


def _found(config: PipelineConfig) -> Iterator[str]:
    if config.sample.engine == "fake":
        yield "the responses are random words (sample.engine is fake)"
    if config.evaluate.answers.engine == "fake":
        yield "the judged answers are random words (evaluate.answers.engine is fake)"
    models, unnamed = config.score.reward_models, config.runtime.unnamed
    if REWARD_KEY in unnamed and models == (VaderReward(),):
        yield (
            f"the rewards are those of VADER, a sentiment lexicon ({REWARD_KEY} is not set: name a "
            "reward model)"
        )
    for row, model in enumerate(models):
        yield from _fake_reward(f"{REWARD_KEY}.{row}", model)
    judge = config.evaluate.judge
    if JUDGE_KEY in unnamed and judge == AfinnJudge():
        yield (
            f"the verdicts are those of AFINN, a sentiment lexicon ({JUDGE_KEY} is not set: name a "
            "judge)"
        )
    yield from _fake_judge(JUDGE_KEY, judge)
    for row, benchmark in enumerate(config.benchmarks):
        if isinstance(benchmark, JudgedBenchmark):
            yield from _fake_judge(f"benchmarks.{row}.judge", benchmark.judge)
        elif isinstance(benchmark, LmEvalBenchmark) and benchmark.backend == "fake":
            yield f"the scores of a benchmark are hashes (benchmarks.{row}.backend is fake)"


def _fake_reward(key: str, model: RewardModelConfig) -> Iterator[str]:
    if isinstance(model, FakeReward):
        yield f"rewards are hashes of the texts ({key} is fake)"


def _fake_judge(key: str, judge: JudgeConfig) -> Iterator[str]:
    if judge.kind == "fake":
        yield f"verdicts are hashes of the texts ({key} is fake)"
    elif judge.kind == "reward_model":
        yield from _fake_reward(f"{key}.reward_model", judge.reward_model)
