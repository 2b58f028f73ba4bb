"""Configuration of the benchmarks that both models of a run take: one class per kind.

Nothing of a benchmark's data is shipped. docs/benchmarks.md says where each file is to be had, and
under which licence.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pvar.config_model import ConfigModel, Name
from pvar.evaluation.style import Control
from pvar.judge_config import JudgeConfig
from pvar.references import DataReference, ModelReference
from pvar.sampler_config import SamplerSettings

BENCHMARK_ANSWERS = SamplerSettings(temperature=0.7, max_new_tokens=2048)


class LengthCalibration(ConfigModel):
    """The two tables of AlpacaEval 2's length control, or a folder that contains both files."""

    instruction_difficulty: DataReference
    """instruction_difficulty.csv: a path or s3:// address."""
    df_gamed: DataReference
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


JudgedBenchmark = AlpacaEvalBenchmark | ArenaHardBenchmark
"""Benchmarks of questions, a baseline's answers and a judge."""

BenchmarkConfig = Annotated[
    AlpacaEvalBenchmark | ArenaHardBenchmark | LabelAgreementBenchmark,
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
    min_difference_lower: float = Field(ge=-100, le=100)
    """The lower bound of the difference, challenger minus opponent, must be at least this many
    percentage points. 0 requires that the challenger is not worse; −2 allows a loss of 2 points."""
