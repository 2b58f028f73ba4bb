"""The checks before the first stage of a run: what any of its stages will need, in one report.

What is complete already needs nothing any more. Of the other stages, those of this process are
checked here, and those on work pools by the workers that will run them (`flows/placed_checks.py`).

    files, packages, addresses, keys   infra/preconditions.py
    memory, disk                       rough bounds: an error only for what cannot work
"""

import logging
from collections.abc import Collection, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from flows.free_disk import SAVED_BYTES, judge_disk
from flows.model_memory import Fit, MachineMemory, UsedModel, judge_memory, used_models
from flows.pinning import pin
from flows.placed_stages import is_complete
from flows.wiring import Wiring
from infra.machine_memory import read_gpu_memory, read_memory
from infra.model_size import ModelSize, find_size
from infra.preconditions import Problem, find_problems, inline_stages, lacks_something, refuse
from infra.sources import is_local, refuse_unreadable_file, refuse_unreadable_rows
from pvar.benchmark_config import JudgedBenchmark
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, IncompleteError, InputError, PvarError
from pvar.number_format import NumberFormat, NumberFormatChoice
from pvar.placement import INLINE
from pvar.references import Pinned, find_references, is_pinned, replace_references
from tasks.engine.artifact import open_artifact
from tasks.engine.node import Node
from tasks.graph import plan_nodes
from tasks.stages.dataset_sample import DatasetSampleSpec
from tasks.stages.reward import REWARD
from tasks.stages.sample import SampleSpec
from tasks.stages.score import ScoreSpec
from tasks.stages.train import TRAIN

logger = logging.getLogger(__name__)


def refuse_early(config: PipelineConfig, wiring: Wiring) -> None:
    """A quick look before slow things start: if something is missing on this machine, raise one
    error for everything that is, unless only complete artifacts need it. Else no server is asked.
    """
    here = inline_stages(config)
    if lacks_something(config, here):
        pinned = pin_for(config, here, wiring)
        refuse_unmakeable_here(pinned, plan_nodes(pinned).values(), wiring)


def refuse_unmakeable(config: PipelineConfig, nodes: Iterable[Node], wiring: Wiring) -> None:
    """Raise one error for everything that those of these nodes which are incomplete need of this
    machine and lack."""
    refuse(problems_here(config, [each for each in nodes if not is_complete(each, wiring)], wiring))


def refuse_unmakeable_here(config: PipelineConfig, nodes: Iterable[Node], wiring: Wiring) -> None:
    """The same for those of the nodes whose stages are not placed on a work pool."""
    here = inline_stages(config)
    refuse_unmakeable(config, [node for node in nodes if node.stage.name in here], wiring)


def pin_or_report(config: PipelineConfig, wiring: Wiring) -> PipelineConfig:
    """The pinned configuration. If a reference cannot be pinned, the error also names all else
    that is missing. If nothing else is, it keeps its kind: by it retraining counts the attempt.
    """
    try:
        return pin(config, wiring)
    except PvarError as error:
        found, is_all = _with_others(error, config, inline_stages(config))
        if is_all:
            raise
        refuse(found)
        raise


def pin_for(config: PipelineConfig, stages: Collection[str], wiring: Wiring) -> PipelineConfig:
    """The same for a command that runs these stages: the error also names the key, if it is
    known."""
    try:
        return pin(config, wiring)
    except PvarError as error:
        found, is_all = _with_others(error, config, stages)
        if is_all and not found[0].key:
            raise
        refuse(found)
        raise


def _with_others(
    error: PvarError, config: PipelineConfig, stages: Collection[str]
) -> tuple[list[Problem], bool]:
    """What is missing, with the key of an error of pinning where it is known; and whether the error
    is all of it."""
    problems = find_problems(config, stages)
    if any(str(each.error) in str(error) for each in problems):
        return problems, len(problems) == 1
    return [Problem("", error), *problems], not problems


def check_before_start(config: PipelineConfig, wiring: Wiring) -> None:
    """Raise one error for everything that the incomplete stages of a pinned configuration need and
    that is missing, here and on the pools where they are placed. What is tight is logged."""
    nodes = [node for node in plan_nodes(config).values() if not is_complete(node, wiring)]
    pool_of = {node.name: config.runtime.placement.of(node.stage.name).pool for node in nodes}
    here = [node for node in nodes if pool_of[node.name] == INLINE]
    problems = problems_here(config, here, wiring)
    if placed := [node for node in nodes if pool_of[node.name] != INLINE]:
        from flows.placed_checks import problems_elsewhere

        problems += problems_elsewhere(config, placed, wiring)
    refuse(problems)


def problems_here(config: PipelineConfig, nodes: Collection[Node], wiring: Wiring) -> list[Problem]:
    """What these nodes of a pinned configuration need of this machine and lack. What is tight is
    logged."""
    stages = {node.stage.name for node in nodes}
    problems = find_problems(config, stages, unneeded=list(_unneeded(config, nodes)))
    problems += _missing_files(nodes)
    fits, missing = judge_resources(config, nodes, wiring)
    for fit in fits:
        if fit.verdict == "tight":
            logger.warning("%s may be short of memory or disk: %s", fit.what, fit.sentence)
        if fit.verdict == "impossible":
            problems.append(Problem(fit.what, ConfigError(fit.sentence)))
    return [*problems, *missing]


def _unneeded(config: PipelineConfig, nodes: Iterable[Node]) -> Iterator[str]:
    """Keys that other nodes of the same stages need: engines, and reward models."""
    engines: set[str] = set()
    scored: set[str] = set()
    for node in nodes:
        match node.spec:
            case SampleSpec(settings=settings):
                engines.add(settings.engine)
            case DatasetSampleSpec():
                engines.add("dataset")
            case ScoreSpec(reward_model=model):
                scored.add(model.name)
    answers = [
        ("sample", config.sample.engine),
        ("evaluate.answers", config.evaluate.answers.engine),
    ]
    for row, benchmark in enumerate(config.benchmarks):
        if isinstance(benchmark, JudgedBenchmark):
            answers.append((f"benchmarks.{row}.answers", benchmark.answers.engine))
    yield from (key for key, engine in answers if engine not in engines)
    for row, reward_model in enumerate(config.score.reward_models):
        if reward_model.name not in scored:
            yield f"score.reward_models.{row}"


def judge_resources(
    config: PipelineConfig, nodes: Iterable[Node], wiring: Wiring
) -> tuple[list[Fit], list[Problem]]:
    """Memory and disk for these nodes, and models that are not on this machine."""
    if find_spec("torch") is None:  # no stage that loads models can run here
        return [], []
    sizes = _Sizes(config, wiring)

    def format_of(choice: NumberFormatChoice, learns: bool) -> NumberFormat:
        return wiring.number_format(choice, learns=learns)

    used: list[tuple[str, UsedModel, ModelSize | None]] = []
    problems: list[Problem] = []
    for node in nodes:
        for model in used_models(node, format_of):
            try:
                used.append((node.name, sizes.named(model), sizes.of(model.reference)))
            except PvarError as error:
                problems.append(Problem(node.name, error))
    if all(size is None for _, _, size in used):
        return [], problems
    machine = MachineMemory(read_memory(), read_gpu_memory())
    fits = judge_memory(used, machine, config.runtime)
    return [*fits, *judge_disk(used, wiring.settings)], problems


def as_if_pinned(config: PipelineConfig) -> PipelineConfig:
    """The configuration with made-up digests, for its plan where nothing may be asked."""
    return replace_references(
        config, lambda each: each.text if is_pinned(each.text) else f"{each.text}#{each.text}"
    )


class _Sizes:
    """Sizes of models, each found once. Models that the run makes are as large as their starts."""

    def __init__(self, config: PipelineConfig, wiring: Wiring) -> None:
        self._wiring = wiring
        self._found: dict[str, ModelSize | None] = {}
        self._starts: dict[str, str] = {}
        for node in plan_nodes(config).values():
            if node.stage.name == TRAIN.name:
                self._starts[node.keys.root] = config.policy
            if node.stage.name == REWARD.name and config.reward_training is not None:
                self._starts[node.keys.root] = config.reward_training.model

    def of(self, reference: str) -> ModelSize | None:
        digest = Pinned.parse(reference).digest
        if digest in self._starts:
            made_from = self.of(self._starts[digest])
            return made_from and ModelSize(made_from.num_parameters)
        if reference not in self._found:
            self._found[reference] = self._find(reference)
        return self._found[reference]

    def named(self, model: UsedModel) -> UsedModel:
        """The same model; one that the run makes by its stage: as if pinned, its digest is
        another than that of the run."""
        location, digest = Pinned.parse(model.reference)
        if digest not in self._starts:
            return model
        stage = location.removeprefix("artifact:").partition("/")[0]
        return model._replace(reference=f"the model of {stage}#{digest}")

    def _find(self, reference: str) -> ModelSize | None:
        location = Pinned.parse(reference).location
        if location.startswith("artifact:"):
            return self._saved(location.removeprefix("artifact:"))
        settings = self._wiring.settings
        return find_size(reference, self._wiring.models, settings.mlflow_tracking_uri)

    def _saved(self, root: str) -> ModelSize | None:
        """The size of a model in the store, from its files'."""
        stage, _, digest = root.partition("/")
        try:
            artifact = open_artifact(self._wiring.store, stage, digest, self._wiring.models)
        except IncompleteError:
            return None
        sizes = [
            file.num_bytes
            for shard in artifact.manifest.shards
            for file in shard.files
            if file.name.endswith(".safetensors") and not file.name.startswith("adapter")
        ]
        return ModelSize(sum(sizes) // SAVED_BYTES) if sizes else None


def _missing_files(nodes: Iterable[Node]) -> Iterator[Problem]:
    """Local files and folders of these nodes that are not on this machine. Where the run was
    pinned they are there; another machine may not have them."""
    seen: set[str] = set()
    for node in nodes:
        for each in find_references(node.spec):
            location = Pinned.parse(each.text).location
            if each.text in seen or each.kind == "model" or not is_local(location):
                continue
            seen.add(each.text)
            try:
                match each.kind:
                    case "data":
                        refuse_unreadable_rows(location)
                    case "file":
                        refuse_unreadable_file(location)
                    case "folder" if not Path(location).is_dir():
                        raise InputError(f"{location}: no such folder on this machine")
            except PvarError as error:
                yield Problem(node.name, error)
