"""Whether models fit into memory, by a rough bound: the weights, and what training adds to them.

    sampling, scoring, judging   parameters × bytes of the number format
    LoRA                         the same, of the frozen base
    training all weights         parameters × 16: weight, gradient and AdamW's two moments, float32

Activations, caches and the libraries come on top and are not known beforehand. So a bound that
exceeds the memory means that the stage cannot work, and one that is close to it is a warning. A
model of unknown size is not judged.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from infra.machine_memory import Memory
from infra.model_size import ModelSize
from pvar.number_format import NumberFormat, NumberFormatChoice
from pvar.references import Pinned, find_references
from pvar.reward_config import RewardModelConfig, reward_format
from pvar.runtime_config import RuntimeConfig
from tasks.engine.node import Node
from tasks.stages.adopt import AdoptSpec
from tasks.stages.audit import AskedJudge, AuditSpec
from tasks.stages.dataset_sample import DatasetSampleSpec
from tasks.stages.divergence import DivergenceSpec
from tasks.stages.evaluate import EvaluateSpec
from tasks.stages.harness import HarnessSpec
from tasks.stages.judge_spec import JudgeSpec
from tasks.stages.likelihood import LikelihoodSpec
from tasks.stages.reward import RewardSpec
from tasks.stages.sample import SampleSpec
from tasks.stages.score import ScoreSpec
from tasks.stages.train import TrainSpec

TRAINING_BYTES = 16
"""Of a trained parameter."""

BYTES: dict[NumberFormat, int] = {"float32": 4, "bfloat16": 2, "float16": 2}

TIGHT = 1.2
"""With less than this many times the bound, activations may not fit."""

GB = 10**9

Use = Literal["tokenizer", "loaded", "vllm", "trained", "base of LoRA"]

FormatOf = Callable[[NumberFormatChoice, bool], NumberFormat]
"""The number format that a choice means on this machine; the second argument: whether it learns."""


class UsedModel(NamedTuple):
    """A model that a node loads."""

    reference: str
    use: Use
    bytes_per_parameter: int
    """0 if its weights are not loaded."""


class MachineMemory(NamedTuple):
    """Where stages run here."""

    memory: Memory | None
    gpus: list[int]
    """Bytes of each GPU."""


class Fit(NamedTuple):
    """Whether something fits."""

    verdict: Literal["fits", "tight", "impossible"]
    what: str
    """Who needs it: names of nodes, or of a folder."""
    figures: str
    remedy: str

    @property
    def sentence(self) -> str:
        """The figures, and what to change."""
        return f"{self.figures}; {self.remedy}"


def used_models(node: Node, format_of: FormatOf) -> Iterator[UsedModel]:
    """The models that a node loads, in what format."""
    match node.spec:
        case DatasetSampleSpec(policy=policy):
            yield UsedModel(policy, "tokenizer", 0)
        case SampleSpec(policy=policy, settings=settings):
            if settings.engine == "openai":
                yield UsedModel(policy, "tokenizer", 0)
            elif settings.engine != "fake":
                use: Use = "vllm" if settings.engine == "vllm" else "loaded"
                yield UsedModel(policy, use, BYTES[format_of(settings.dtype, False)])
        case HarnessSpec(policy=policy, settings=settings) if settings.backend != "fake":
            use = "vllm" if settings.backend == "vllm" else "loaded"
            yield UsedModel(policy, use, BYTES[format_of(settings.dtype, False)])
        case ScoreSpec(reward_model=reward_model):
            yield from _of_reward_model(reward_model, format_of)
        case (
            EvaluateSpec(judge=judge)
            | JudgeSpec(judge=judge)
            | AuditSpec(judge=AskedJudge(judge=judge))
        ) if judge.kind == "reward_model":
            yield from _of_reward_model(judge.reward_model, format_of)
        case LikelihoodSpec(policy=policy, dtype=dtype):
            yield UsedModel(policy, "loaded", BYTES[format_of(dtype, True)])
        case DivergenceSpec(policy=policy, reference=reference, dtype=dtype):
            for each in (policy, reference):
                yield UsedModel(each, "loaded", BYTES[format_of(dtype, True)])
        case TrainSpec(policy=policy, settings=settings) if settings.lora is not None:
            yield UsedModel(policy, "base of LoRA", BYTES[format_of(settings.precision, True)])
        case TrainSpec(policy=policy):
            yield UsedModel(policy, "trained", TRAINING_BYTES)
        case RewardSpec(model=model):
            yield UsedModel(model, "trained", TRAINING_BYTES)
        case AdoptSpec(opponent=opponent):
            made = node.inputs["model"].root
            for each in (opponent, f"artifact:{made}#{made}"):
                yield UsedModel(each, "loaded", BYTES[format_of("auto", False)])


def _of_reward_model(settings: RewardModelConfig, format_of: FormatOf) -> Iterator[UsedModel]:
    choice = reward_format(settings)
    if choice is not None:
        for reference in find_references(settings):
            yield UsedModel(reference.text, "loaded", BYTES[format_of(choice, False)])


def judge_memory(
    used: Iterable[tuple[str, UsedModel, ModelSize | None]],
    machine: MachineMemory,
    runtime: RuntimeConfig,
) -> list[Fit]:
    """Whether the models that nodes load fit, each by itself: they are loaded one after the other.

    `used` has names of nodes with their models. What several nodes load is judged once.
    """
    nodes: dict[tuple[UsedModel, int], list[str]] = {}
    for name, model, size in used:
        if size is not None and size.num_parameters and model.bytes_per_parameter:
            nodes.setdefault((model, size.num_parameters), []).append(name)
    return [
        fit
        for (model, num_parameters), names in nodes.items()
        for fit in _judge(", ".join(dict.fromkeys(names)), model, num_parameters, machine, runtime)
    ]


def _judge(
    names: str,
    model: UsedModel,
    num_parameters: int,
    machine: MachineMemory,
    runtime: RuntimeConfig,
) -> Iterator[Fit]:
    need = num_parameters * model.bytes_per_parameter
    what = f"{_what(model, num_parameters)}: at least {gigabytes(need)}"
    remedy = _remedy(model, is_on_gpu=bool(machine.gpus))
    if machine.gpus:
        share, has = _share_of_gpu(model.use, need, machine.gpus, runtime)
        yield Fit(_verdict(share, has, has), names, f"{what}{_on_gpu(share, need, has)}", remedy)
    if machine.memory is None or (machine.gpus and model.use == "vllm"):
        return
    if machine.gpus:  # the weights come to the GPU by way of main memory
        need = num_parameters * (4 if model.use == "trained" else model.bytes_per_parameter)
        what = f"{_what(model, num_parameters)}: at least {gigabytes(need)} while it is loaded"
    elif model.use in ("trained", "base of LoRA") and runtime.num_processes > 1:
        need *= 1 if runtime.sharding else runtime.num_processes
        what = f"{what} in each of {runtime.num_processes} processes"
    total, free = machine.memory
    here = f"the memory here is {gigabytes(total)}, of which {gigabytes(free)} are free"
    verdict = _verdict(need, total, free)
    if verdict == "impossible" and machine.gpus and model.use != "trained":
        verdict = "tight"  # safetensors are mapped: pages that are on the GPU are given up
    yield Fit(verdict, names, f"{what}, and {here}", remedy)


def _verdict(need: float, total: float, free: float) -> Literal["fits", "tight", "impossible"]:
    if need > total:
        return "impossible"
    return "tight" if need * TIGHT > free else "fits"


def _share_of_gpu(
    use: Use, need: int, gpus: list[int], runtime: RuntimeConfig
) -> tuple[float, float]:
    """Bytes that one GPU must hold, and bytes that it has for them."""
    if use == "vllm":
        used = gpus[: runtime.vllm.tensor_parallel_size]
        return need / runtime.vllm.tensor_parallel_size, min(used) * runtime.vllm.gpu_memory_share
    if use in ("trained", "base of LoRA"):
        used = gpus[: runtime.num_processes]
        return need / (runtime.num_processes if runtime.sharding else 1), min(used)
    return need, gpus[0]


def _on_gpu(share: float, need: int, has: float) -> str:
    part = "" if share == need else f", {gigabytes(share)} on each GPU"
    return f"{part}, and a GPU here has {gigabytes(has)} for it"


def _what(model: UsedModel, num_parameters: int) -> str:
    location = Pinned.parse(model.reference).location
    billions = f"{num_parameters / 1e9:.3g} billion parameters"
    each = f"{model.bytes_per_parameter} bytes each"
    match model.use:
        case "trained":
            return f"training all weights of {location} ({billions}, {each} with AdamW)"
        case "base of LoRA":
            return f"the frozen weights of {location} for LoRA ({billions}, {each})"
        case _:
            return f"the weights of {location} ({billions}, {each})"


def _remedy(model: UsedModel, *, is_on_gpu: bool) -> str:
    elsewhere = "run the stage where there is more memory (runtime.placement)"
    match model.use:
        case "trained" if is_on_gpu:
            return (
                "set train.lora, spread the weights over GPUs with runtime.sharding and "
                f"runtime.num_processes, take a smaller model, or {elsewhere}"
            )
        case "trained":
            return f"set train.lora, take a smaller model, or {elsewhere}"
        case "vllm":
            return "raise runtime.vllm.tensor_parallel_size, take a smaller model, or " + elsewhere
        case _:
            return f"take a smaller model, or {elsewhere}"


def gigabytes(num_bytes: float) -> str:
    """A size for reading."""
    amount = num_bytes / GB
    return f"{amount:.0f} GB" if amount >= 100 else f"{amount:.3g} GB"
