"""What a configuration needs of this machine, checked before anything slow starts.

Local files and folders that the configuration names, reward functions in them, the address and key
of a judge's server, and lm-evaluation-harness. Data in S3 and on the Hub, and models, are checked
when a run pins them. What only a stage needs is not checked if that stage runs elsewhere
(`runtime.placement`).
"""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import NamedTuple

from infra.judges.access import JudgeAccess, refuse_unusable_access
from infra.lm_eval_harness import refuse_missing_harness
from infra.pinned_folder import refuse_unusable_folder
from infra.rewards.function_scorer import refuse_missing_module, refuse_unusable_function
from infra.rewards.http_scorer import RewardAccess, refuse_unusable_server
from infra.sources import is_local, refuse_unreadable_file, refuse_unreadable_rows
from pvar.benchmark_config import BenchmarkConfig, JudgedBenchmark, LmEvalBenchmark
from pvar.config import PipelineConfig
from pvar.errors import InputError, PvarError
from pvar.judge_config import AlpacaEvalJudge, ArenaHardJudge, JudgeConfig
from pvar.placement import INLINE, PlacementConfig
from pvar.references import Reference, find_references, is_pinned
from pvar.reward_config import HttpReward, PythonReward, RewardModelConfig


class Precondition(NamedTuple):
    """One thing that must be there."""

    key: str
    """The key that asks for it: `benchmarks.0.questions`."""
    what: str
    check: Callable[[], object]
    """Raises PvarError if it is missing."""

    def problem(self) -> str | None:
        """What is wrong and what to do; None if all is well."""
        try:
            self.check()
        except PvarError as error:
            return str(error)
        return None


def inline_stages(config: PipelineConfig) -> frozenset[str]:
    """Names of the stages that run in the pipeline's own process."""
    placement = config.runtime.placement
    names = PlacementConfig.model_fields
    return frozenset(name for name in names if placement.of(name).pool == INLINE)


def preconditions(config: PipelineConfig, stages: Collection[str]) -> Iterator[Precondition]:
    """What the configuration needs here if these stages run on this machine."""
    for reference in find_references(config):
        if not is_pinned(reference.text) and (check := _check_of(reference)) is not None:
            yield Precondition(reference.path, reference.text, check)
    for row, model in enumerate(config.score.reward_models):
        yield from _of_reward_model(f"score.reward_models.{row}", model, "score" in stages)
    yield from _of_judge("evaluate.judge", config.evaluate.judge, "evaluate" in stages)
    for row, benchmark in enumerate(config.benchmarks):
        yield from _of_benchmark(f"benchmarks.{row}", benchmark, stages)


def refuse_missing(config: PipelineConfig, stages: Collection[str]) -> None:
    """Raise InputError that names everything that these stages need and that is missing."""
    found = ((each.key, each.problem()) for each in preconditions(config, stages))
    problems = [f"{key}: {problem}" for key, problem in found if problem is not None]
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise InputError(f"{len(problems)} things are missing:{lines}")


def _check_of(reference: Reference) -> Callable[[], object] | None:
    """The check of a local file or folder; None for what is checked when it is pinned."""
    text = reference.text
    match reference.kind:
        case "data":
            return partial(refuse_unreadable_rows, text) if is_local(text) else None
        case "file":
            return None if text.startswith("s3:") else partial(refuse_unreadable_file, text)
        case "folder":
            return partial(refuse_unusable_folder, text)
        case "model":
            return None


def _of_benchmark(
    key: str, benchmark: BenchmarkConfig, stages: Collection[str]
) -> Iterator[Precondition]:
    if isinstance(benchmark, JudgedBenchmark):
        yield from _of_judge(f"{key}.judge", benchmark.judge, "judge" in stages)
    is_run = isinstance(benchmark, LmEvalBenchmark) and benchmark.backend != "fake"
    if is_run and "harness" in stages:
        yield Precondition(key, "lm-evaluation-harness", refuse_missing_harness)


def _of_judge(key: str, judge: JudgeConfig, is_here: bool) -> Iterator[Precondition]:
    if isinstance(judge, AlpacaEvalJudge | ArenaHardJudge) and is_here:
        what = f"server of the judge {judge.model}"
        yield Precondition(key, what, lambda: refuse_unusable_access(JudgeAccess()))
    if judge.kind == "reward_model":
        yield from _of_reward_model(f"{key}.reward_model", judge.reward_model, is_here, judges=True)


def _of_reward_model(
    key: str, model: RewardModelConfig, is_here: bool, *, judges: bool = False
) -> Iterator[Precondition]:
    """A server is asked, and a function imported, if that is needed here: only the machine where
    it is needed may have the address, or the packages."""
    if isinstance(model, HttpReward) and is_here:
        what = f"server of the reward model {model.model}"
        yield Precondition(key, what, lambda: refuse_unusable_server(model, RewardAccess()))
    if isinstance(model, PythonReward) and not is_pinned(model.folder):
        check = (
            partial(refuse_unusable_function, is_judge=judges) if is_here else refuse_missing_module
        )
        yield Precondition(f"{key}.function", model.function, partial(check, model))
