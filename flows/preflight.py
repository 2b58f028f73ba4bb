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

from flows.free_disk import judge_disk
from flows.model_memory import Fit, MachineMemory, UsedModel, judge_memory, used_models
from flows.pinning import pin
from flows.placed_stages import is_complete
from flows.wiring import Wiring
from infra.machine_memory import read_gpu_memory, read_memory
from infra.model_size import ModelSize, find_size
from infra.preconditions import Problem, find_problems, inline_stages, refuse
from infra.sources import is_local, refuse_unreadable_file, refuse_unreadable_rows
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, IncompleteError, InputError, PvarError
from pvar.number_format import NumberFormat, NumberFormatChoice
from pvar.placement import INLINE
from pvar.references import Pinned, find_references, is_pinned, replace_references
from tasks.engine.artifact import open_artifact
from tasks.engine.node import Node
from tasks.graph import plan_nodes
from tasks.stages.reward import REWARD
from tasks.stages.train import TRAIN

logger = logging.getLogger(__name__)

SAVED_BYTES = 2
"""Of a parameter of a model in the store: bfloat16."""


def pin_or_report(config: PipelineConfig, wiring: Wiring) -> PipelineConfig:
    """The pinned configuration. If a reference cannot be pinned, the error also names all else
    that is missing."""
    try:
        return pin(config, wiring)
    except PvarError as error:
        others = [
            each
            for each in find_problems(config, inline_stages(config))
            if str(each.error) not in str(error)
        ]
        if not others:
            raise
        refuse([Problem("", error), *others])
        raise


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
    problems = find_problems(config, {node.stage.name for node in nodes})
    problems += _missing_files(nodes)
    fits, missing = judge_resources(config, nodes, wiring)
    for fit in fits:
        if fit.verdict == "tight":
            logger.warning("%s may be short of memory or disk: %s", fit.what, fit.sentence)
        if fit.verdict == "impossible":
            problems.append(Problem(fit.what, ConfigError(fit.sentence)))
    return [*problems, *missing]


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
                used.append((node.name, model, sizes.of(model.reference)))
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
        config, lambda each: each.text if is_pinned(each.text) else f"{each.text}#unknown"
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
