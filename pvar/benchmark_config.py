"""Configuration of the benchmarks that both models of a run take: one class per kind.

Nothing of a benchmark's data is shipped. docs/benchmarks.md says where each file is to be had, and
under which licence.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pvar.config_model import ConfigModel, Name
from pvar.evaluation.style import Control
from pvar.judge_config import JudgeConfig
from pvar.number_format import NumberFormatChoice
from pvar.references import DataReference, FileReference, FolderReference, ModelReference
from pvar.sampler_config import SamplerSettings

BENCHMARK_ANSWERS = SamplerSettings(temperature=0.7, max_new_tokens=2048)


class LengthCalibration(ConfigModel):
    """The two tables of AlpacaEval 2's length control, or a folder that contains both files."""

    instruction_difficulty: FileReference
    """instruction_difficulty.csv: a path or s3:// address."""
    df_gamed: FileReference
    """df_gamed.csv: a path or s3:// address."""

    @model_validator(mode="before")
    @classmethod
    def _from_folder(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        folder = given.rstrip("/")
        return {name: f"{folder}/{name}.csv" for name in ("instruction_difficulty", "df_gamed")}


class AlpacaEvalBenchmark(ConfigModel):
    """AlpacaEval 2: each answer is compared once with the baseline's, in the published order."""

    kind: Literal["alpaca_eval"] = "alpaca_eval"
    name: Name = "alpaca_eval"
    """Name of the benchmark in artifacts, metrics and the report."""
    questions: DataReference
    """The evaluation set: rows with `instruction`, and optionally `dataset` and `index`."""
    baseline_outputs: DataReference
    """The baseline's answers: rows with `instruction`, `output` and `generator`."""
    calibration: LengthCalibration | None = None
    """Tables of the length control, or the folder that contains both. `null` leaves the
    length-controlled win rate out."""
    judge: JudgeConfig
    """The judge. The leaderboard's is of kind alpaca_eval with model gpt-4-1106-preview and the
    published template."""
    judge_epoch: int | None = Field(default=None, ge=1)
    """Number of the judge's epoch: a new one begins when the judge is found to answer differently
    than before. `null` is the current one, and a lower number shows earlier results."""
    answers: SamplerSettings = BENCHMARK_ANSWERS
    """How the models generate their answers."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the answers and of the bootstrap."""


class ArenaHardBenchmark(ConfigModel):
    """Arena-Hard: each answer plays two games against the baseline's, one in each order."""

    kind: Literal["arena_hard"] = "arena_hard"
    name: Name = "arena_hard"
    """Name of the benchmark in artifacts, metrics and the report."""
    version: Literal["v0.1", "v2.0"] = "v2.0"
    """Rules of v0.1 (2024) or v2.0."""
    questions: DataReference
    """question.jsonl: rows with `uid` or `question_id`, and `prompt` or `turns`."""
    baseline_answers: tuple[DataReference, ...] = Field(min_length=1)
    """model_answer/*.jsonl of the baseline. v2.0 has one baseline per category. A category without
    a baseline's answers is not graded."""
    categories: tuple[str, ...] = ()
    """Categories to grade. Empty means all."""
    style_control: tuple[Control, ...] = ()
    """Style features that the style-controlled score controls for. Empty leaves it out."""
    judge: JudgeConfig
    """The judge. The leaderboard's is of kind arena_hard with the published instructions."""
    creative_instructions: str | None = None
    """System prompt for v2.0's category creative_writing, if the judge is of kind arena_hard.
    `null` uses the built-in one, which does not ask for an own answer first."""
    judge_epoch: int | None = Field(default=None, ge=1)
    """Number of the judge's epoch: a new one begins when the judge is found to answer differently
    than before. `null` is the current one, and a lower number shows earlier results."""
    answers: SamplerSettings = BENCHMARK_ANSWERS
    """How the models generate their answers."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the answers and of the bootstrap."""

    @model_validator(mode="after")
    def _versions_agree(self) -> Self:
        if self.judge.kind == "arena_hard" and self.judge.version != self.version:
            raise ValueError(
                f"benchmark {self.name} is of version {self.version}, but its judge reads verdicts "
                f"by the rules of {self.judge.version}; set the judge's version to {self.version}"
            )
        return self


class LmEvalSettings(ConfigModel):
    """How lm-evaluation-harness runs its tasks. These settings determine a model's results."""

    tasks: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(min_length=1)
    """Tasks, groups or tags of lm-evaluation-harness, as `lm-eval ls tasks` lists them."""
    include_path: FolderReference | None = None
    """A local folder of your own task files (YAML, and the data files and Python files that they
    name). Its tasks replace tasks of the same name. The digest of its files is part of the
    identity."""
    num_fewshot: int | None = Field(default=None, ge=0, le=100)
    """Examples in each prompt. `null` uses each task's own number. A task that fixes it at 0 keeps
    0."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first questions of each task, this many. `null` uses all."""
    backend: Literal["transformers", "vllm", "fake"] = "transformers"
    """What runs the model: `transformers` or `vllm` in process, or `fake` for trying out the
    workflow (made-up results, any task name)."""
    apply_chat_template: bool = True
    """Format the prompts with the model's chat template. `false` is for models without one."""
    max_length_tokens: int | None = Field(default=None, ge=8)
    """Maximum length of prompt and answer, in tokens. Longer prompts lose their beginning. `null`
    uses the model's context length."""
    dtype: NumberFormatChoice = "auto"
    """Number format of the weights. `auto` uses bfloat16 if the hardware supports it natively.
    Ignored by the backend `fake`."""

    @field_validator("tasks")
    @classmethod
    def _tasks_differ(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        if repeated := sorted({task for task in tasks if tasks.count(task) > 1}):
            raise ValueError(f"tasks has {', '.join(repeated)} more than once; name each task once")
        return tasks


class LmEvalBenchmark(LmEvalSettings):
    """Ability by EleutherAI's lm-evaluation-harness: fractions of correct answers, by task."""

    kind: Literal["lm_eval"] = "lm_eval"
    name: Name = "lm_eval"
    """Name of the benchmark in the report and in the artifacts' nodes."""
    metrics: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()
    """Metrics to compare, the most wanted first, as `acc` or with the filter, as
    `exact_match,flexible-extract`. A task that has none of them is compared by acc_norm, else acc,
    else exact_match, else its first metric in [0, 1]."""
    allow_code_execution: bool = False
    """Run tasks that execute code: code written by the model (HumanEval, MBPP) or metrics whose
    code is downloaded. It runs without a sandbox, with the rights of the stage's process."""

    @property
    def harness_settings(self) -> LmEvalSettings:
        """The settings that determine a model's results."""
        shared = set(LmEvalSettings.model_fields)
        return LmEvalSettings.model_validate(self.model_dump(include=shared))


class LabelAgreementBenchmark(ConfigModel):
    """How often a model prefers the answer that is labelled as chosen, on held-out pairs."""

    kind: Literal["label_agreement"] = "label_agreement"
    name: Name = "label_agreement"
    """Name of the benchmark in artifacts and in the report."""
    pairs: DataReference | None = None
    """Labelled pairs that are not trained on: rows with `prompt`, `chosen` and `rejected`. `null`
    uses those of the held-out prompts of ingest.source."""
    max_length_tokens: int = Field(default=2048, ge=8)
    """Maximum length of prompt plus answer, in tokens. Pairs with a longer sequence are left out
    and counted."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format in which log-probabilities are computed. `auto` uses bfloat16 if the hardware
    supports it natively."""
    against_first: bool = False
    """Also compare the trained model with the first one (`policy_if_none`, or else `policy`)."""


JudgedBenchmark = AlpacaEvalBenchmark | ArenaHardBenchmark
"""Benchmarks of questions, a baseline's answers and a judge."""

BenchmarkConfig = Annotated[
    JudgedBenchmark | LmEvalBenchmark | LabelAgreementBenchmark,
    Field(discriminator="kind"),
]


class BenchmarkedModel(ConfigModel):
    """A further model that takes the benchmarks: a model, or answers that were made elsewhere."""

    name: Name
    """Name of the model in artifacts and tables."""
    model: ModelReference | None = None
    """The model; `champion` is the promoted one, or the starting policy if none is promoted."""
    outputs: DataReference | None = None
    """A file of answers in the benchmark's own form, instead of a model."""
    benchmarks: tuple[Name, ...] = ()
    """Names of the benchmarks that the model takes. Empty means all."""

    def takes(self, benchmark: str) -> bool:
        """Whether the model takes the benchmark of that name."""
        return not self.benchmarks or benchmark in self.benchmarks

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.model is None) == (self.outputs is None):
            raise ValueError(
                f"benchmark model {self.name}: give either a model or a file of outputs"
            )
        return self


class BenchmarkGate(ConfigModel):
    """What the gate requires of a benchmark."""

    name: Name
    """Name of the benchmark."""
    min_difference_lower: float | None = Field(default=None, ge=-100, le=100)
    """The lower bound of the difference, challenger minus opponent, must be at least this many
    percentage points. 0 requires that the challenger is not worse. As with max_loss, an opponent
    whose score is not above what may be lost fails the gate."""
    max_loss: float | None = Field(default=None, ge=0, le=100)
    """The same as a loss: 2 allows a loss of 2 percentage points. Give one of the two. An opponent
    whose score is not above the allowed loss fails the gate: no model could lose more."""

    @property
    def bound(self) -> float:
        """The least lower bound of the difference, in percentage points."""
        if self.max_loss is not None:
            return 0 - self.max_loss  # not the unary minus, which makes 0 a -0.0
        assert self.min_difference_lower is not None  # by _has_one_bound
        return self.min_difference_lower

    @model_validator(mode="after")
    def _has_one_bound(self) -> Self:
        if (self.min_difference_lower is None) == (self.max_loss is None):
            raise ValueError(
                f"promote.benchmarks: {self.name} needs either min_difference_lower or max_loss"
            )
        return self
