"""Packages that the stages of a configuration import, as far as an installation may lack them."""

from collections.abc import Collection, Iterator
from importlib.util import find_spec
from typing import Literal, NamedTuple

from pvar.benchmark_config import LabelAgreementBenchmark, LmEvalBenchmark
from pvar.config import PipelineConfig
from pvar.errors import ConfigError
from pvar.judge_config import JudgeConfig
from pvar.reward_config import ClassifierReward, RewardModelConfig, reward_format
from pvar.vllm_config import VLLM_SETUP

MODELS = ("torch", "transformers")
TRAINING = (*MODELS, "trl", "accelerate")
TOKENIZER = ("transformers",)
VLLM = ("vllm",)

MODELS_SETUP = "run: pip install 'pvar[pipeline]' (in a checkout: make setup)"


class NeededPackages(NamedTuple):
    """What a key of the configuration needs."""

    key: str
    packages: tuple[str, ...]


def needed_packages(config: PipelineConfig, stages: Collection[str]) -> Iterator[NeededPackages]:
    """What each key needs if these stages run on this machine."""
    for key, packages, stage in _needs(config):
        if packages and stage in stages:
            yield NeededPackages(key, packages)


def refuse_missing_packages(needed: NeededPackages) -> None:
    """Raise ConfigError that names the packages that are not installed. Nothing is imported."""
    missing = [name for name in needed.packages if find_spec(name) is None]
    if missing == ["vllm"]:
        raise ConfigError(f"vLLM is not installed; {VLLM_SETUP}; or use engine transformers")
    if missing == ["deepspeed"]:
        raise ConfigError("deepspeed is not installed; run: pip install deepspeed")
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ConfigError(f"{', '.join(missing)} {verb} not installed; {MODELS_SETUP}")


def _needs(config: PipelineConfig) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Key, packages and stage."""
    yield "sample.engine", _of_engine(config.sample.engine), "sample"
    yield "evaluate.answers.engine", _of_engine(config.evaluate.answers.engine), "sample"
    for row, model in enumerate(config.score.reward_models):
        yield f"score.reward_models.{row}", _of_reward(model, config), "score"
    adapter = () if config.train.lora is None else ("peft",)
    yield "train", (*TRAINING, *adapter), "train"
    if config.runtime.sharding == "deepspeed":
        yield "runtime.sharding", ("deepspeed",), "train"
    yield "evaluate.judge", _of_judge(config.evaluate.judge, config), "evaluate"
    if config.evaluate.divergence:
        yield "evaluate.divergence", MODELS, "divergence"
    if config.reward_training is not None:
        yield "reward_training", TRAINING, "reward"
        yield "reward_training", _of_classifier(config), "adopt"
    if config.label_audit is not None:
        if config.label_audit.champion:
            yield "label_audit", MODELS, "likelihood"
        if config.label_audit.max_judged:
            yield "label_audit", _of_judge(config.evaluate.judge, config), "audit"
    for row, benchmark in enumerate(config.benchmarks):
        key = f"benchmarks.{row}"
        match benchmark:
            case LmEvalBenchmark():
                yield f"{key}.backend", _of_engine(benchmark.backend), "harness"
            case LabelAgreementBenchmark():
                yield key, MODELS, "likelihood"
            case _:
                yield f"{key}.answers.engine", _of_engine(benchmark.answers.engine), "sample"
                yield f"{key}.judge", _of_judge(benchmark.judge, config), "judge"


def _of_engine(
    engine: Literal["transformers", "vllm", "openai", "dataset", "fake"],
) -> tuple[str, ...]:
    match engine:
        case "transformers":
            return MODELS
        case "vllm":
            return VLLM
        case "openai" | "dataset":
            return TOKENIZER
        case "fake":
            return ()


def _of_reward(model: RewardModelConfig, config: PipelineConfig) -> tuple[str, ...]:
    if isinstance(model, ClassifierReward):
        return _of_classifier(config)
    return () if reward_format(model) is None else MODELS


def _of_classifier(config: PipelineConfig) -> tuple[str, ...]:
    return VLLM if config.runtime.scoring_backend == "vllm" else MODELS


def _of_judge(judge: JudgeConfig, config: PipelineConfig) -> tuple[str, ...]:
    return _of_reward(judge.reward_model, config) if judge.kind == "reward_model" else ()
