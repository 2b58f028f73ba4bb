"""What a configuration needs of this machine, checked before anything slow starts.

Local files and folders that the configuration names, reward functions in them, packages, addresses
and keys of servers, and whether the servers answer. Data in S3, data sets of the Hub and registered
models are checked when a run pins them. What only a stage needs is not checked if that stage runs
elsewhere (`runtime.placement`).

Memory and disk are in `flows/preflight.py`, because they depend on what is complete already.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import NamedTuple, assert_never

from infra.judges.access import (
    JudgeAccess,
    SamplerAccess,
    ServerAccess,
    refuse_unreachable,
    refuse_unusable_access,
)
from infra.lm_eval_harness import refuse_missing_harness
from infra.models import is_hub_model, is_model_path, pin_model, refuse_unusable_model
from infra.needed_packages import NeededPackages, needed_packages, refuse_missing_packages
from infra.outages import is_outage
from infra.pinned_folder import refuse_unusable_folder
from infra.rewards.function_scorer import refuse_missing_module, refuse_unusable_function
from infra.rewards.http_scorer import RewardAccess, refuse_unusable_server
from infra.sources import is_local, refuse_unreadable_file, refuse_unreadable_rows
from pvar.benchmark_config import BenchmarkConfig, JudgedBenchmark, LmEvalBenchmark
from pvar.config import PipelineConfig
from pvar.errors import MissingError, PvarError, UnavailableError
from pvar.judge_config import JudgeConfig
from pvar.placement import INLINE, PlacementConfig
from pvar.ports import RegisteredVersion
from pvar.references import Reference, find_references, is_pinned
from pvar.reward_config import RewardModelConfig
from pvar.sampler_config import SamplerSettings


class Precondition(NamedTuple):
    """One thing that must be there."""

    key: str
    """The key that asks for it: `benchmarks.0.questions`."""
    what: str
    check: Callable[[], object]
    """Raises PvarError if it is missing."""
    asks: bool = False
    """Whether the check sends requests or starts a process, which takes longer than a look."""

    def error(self) -> PvarError | None:
        """What is wrong and what to do; None if all is well."""
        try:
            self.check()
        except PvarError as error:
            return error
        return None

    def problem(self) -> str | None:
        """The message of `error`."""
        error = self.error()
        return None if error is None else str(error)


class Problem(NamedTuple):
    """Something that is missing."""

    key: str
    error: PvarError


def inline_stages(config: PipelineConfig) -> frozenset[str]:
    """Names of the stages that run in the pipeline's own process."""
    placement = config.runtime.placement
    names = PlacementConfig.model_fields
    return frozenset(name for name in names if placement.of(name).pool == INLINE)


def preconditions(config: PipelineConfig, stages: Collection[str]) -> Iterator[Precondition]:
    """What the configuration needs here if these stages run on this machine."""
    for reference in find_references(config):
        if not is_pinned(reference.text):
            yield from _of_reference(reference)
    for needed in needed_packages(config, stages):
        yield _of_packages(needed)
    if config.sample.engine != "dataset":
        yield from _of_sampler("sample", config.sample.sampler_settings, stages)
    yield from _of_sampler("evaluate.answers", config.evaluate.answers, stages)
    for row, model in enumerate(config.score.reward_models):
        yield from _of_reward_model(f"score.reward_models.{row}", model, "score" in stages)
    judging = {"evaluate"}
    if config.label_audit is not None and config.label_audit.max_judged:
        judging.add("audit")
    is_here = not judging.isdisjoint(stages)
    yield from _of_judge("evaluate.judge", config.evaluate.judge, is_here)
    for row, benchmark in enumerate(config.benchmarks):
        yield from _of_benchmark(f"benchmarks.{row}", benchmark, stages)


def lacks_something(config: PipelineConfig, stages: Collection[str]) -> bool:
    """Whether anything that these stages need is missing, as far as a look shows: no server is
    asked."""
    return any(not each.asks and each.error() for each in preconditions(config, stages))


def find_problems(
    config: PipelineConfig,
    stages: Collection[str],
    *,
    ask: bool = True,
    unneeded: Collection[str] = (),
) -> list[Problem]:
    """Everything that these stages need and that is missing.

    Without `ask` servers are asked only if something else is missing, so that one report has it
    all. Keys in `unneeded`, and those below them, are left out.
    """
    needed = [
        each
        for each in preconditions(config, stages)
        if not any(f"{each.key}.".startswith(f"{key}.") for key in unneeded)
    ]
    found = _problems(each for each in needed if not each.asks)
    if ask or found:
        faulty = {problem.key for problem in found}  # there is nothing to ask
        found += _problems(each for each in needed if each.asks and each.key not in faulty)
    order = {each.key: row for row, each in reversed(list(enumerate(needed)))}
    return sorted(found, key=lambda problem: order[problem.key])


def refuse_missing(config: PipelineConfig, stages: Collection[str], *, ask: bool = True) -> None:
    """Raise an error that names everything that these stages need and that is missing."""
    refuse(find_problems(config, stages, ask=ask))


def refuse(problems: Sequence[Problem]) -> None:
    """Raise one error for all problems: UnavailableError if all of them pass by themselves, and
    MissingError if something must be done."""
    if not problems:
        return
    is_down = all(_is_down(each.error) for each in problems)
    kind = UnavailableError if is_down else MissingError
    lines = [f"{key}: {error}" if key else str(error) for key, error in problems]
    if len(lines) == 1:
        raise kind(lines[0]) from problems[0].error
    listed = "".join(f"\n  {line}" for line in lines)
    raise kind(f"{len(lines)} things are missing:{listed}")


def _is_down(error: PvarError) -> bool:
    """Whether something does not answer that may answer later, without a change here."""
    return is_outage(error) and not isinstance(error, MissingError)


def _problems(needed: Iterator[Precondition]) -> list[Problem]:
    found = ((each.key, each.error()) for each in needed)
    return [Problem(key, error) for key, error in found if error is not None]


def _of_reference(reference: Reference) -> Iterator[Precondition]:
    """A local file or folder, or a model of the Hub; others are checked when they are pinned."""
    path, text = reference.path, reference.text
    match reference.kind:
        case "data" if is_local(text):
            yield Precondition(path, text, partial(refuse_unreadable_rows, text))
        case "file" if not text.startswith("s3:"):
            yield Precondition(path, text, partial(refuse_unreadable_file, text))
        case "folder":
            yield Precondition(path, text, partial(refuse_unusable_folder, text))
        case "model" if is_model_path(text):
            yield Precondition(path, text, partial(refuse_unusable_model, text))
        case "model" if is_hub_model(text):
            yield Precondition(path, text, partial(pin_model, text, _not_registered), asks=True)


def _not_registered(reference: str) -> RegisteredVersion:
    raise AssertionError(f"{reference} is of the Hub")


def _of_packages(needed: NeededPackages) -> Precondition:
    names = ", ".join(needed.packages)
    return Precondition(needed.key, names, partial(refuse_missing_packages, needed))


def _of_server(key: str, what: str, access: ServerAccess) -> Iterator[Precondition]:
    """The address and key of a server. If these are usable, the server is asked."""
    yield Precondition(key, what, partial(refuse_unusable_access, access))
    yield Precondition(key, f"{what}: it answers", partial(refuse_unreachable, access), asks=True)


def _of_sampler(
    key: str, settings: SamplerSettings, stages: Collection[str]
) -> Iterator[Precondition]:
    if settings.engine == "openai" and "sample" in stages:
        yield from _of_server(f"{key}.engine", "server of the policy", SamplerAccess())


def _of_benchmark(
    key: str, benchmark: BenchmarkConfig, stages: Collection[str]
) -> Iterator[Precondition]:
    if isinstance(benchmark, JudgedBenchmark):
        yield from _of_judge(f"{key}.judge", benchmark.judge, "judge" in stages)
        yield from _of_sampler(f"{key}.answers", benchmark.answers, stages)
    is_run = isinstance(benchmark, LmEvalBenchmark) and benchmark.backend != "fake"
    if is_run and "harness" in stages:
        yield Precondition(key, "lm-evaluation-harness", refuse_missing_harness)


def _of_judge(key: str, judge: JudgeConfig, is_here: bool) -> Iterator[Precondition]:
    match judge.kind:
        case "alpaca_eval" | "arena_hard":
            if is_here:
                yield from _of_server(key, f"server of the judge {judge.model}", JudgeAccess())
        case "reward_model":
            model = judge.reward_model
            yield from _of_reward_model(f"{key}.reward_model", model, is_here, judges=True)
        case "afinn" | "fake":
            pass
        case unknown:
            assert_never(unknown)


def _of_reward_model(
    key: str, model: RewardModelConfig, is_here: bool, *, judges: bool = False
) -> Iterator[Precondition]:
    """A server is asked, and a function imported, if that is needed here: only the machine where
    it is needed may have the address, or the packages."""
    match model.kind:
        case "http":
            if is_here:
                what = f"server of the reward model {model.model}"
                check_server = partial(refuse_unusable_server, model, RewardAccess())
                yield Precondition(key, what, check_server, asks=True)
        case "python":
            key, what = f"{key}.function", model.function
            if not is_pinned(model.folder):
                yield Precondition(key, what, partial(refuse_missing_module, model))
            if is_here:
                check = partial(refuse_unusable_function, model, is_judge=judges)
                yield Precondition(key, f"{what}: imported", check, asks=True)
        case "vader" | "classifier" | "implicit" | "dataset" | "fake":
            pass
        case unknown:
            assert_never(unknown)
