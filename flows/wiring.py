"""Wiring: creates the adapters of `infra` from the settings and passes them to stages as ports."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import assert_never

from infra.accelerate import launch_file
from infra.hardware import read_hardware
from infra.models import fetch_model
from infra.registry import MlflowRegistry
from infra.settings import Settings
from infra.sources import source_file, source_rows
from infra.store import open_store
from infra.tracking import Tracking
from pvar.benchmark_config import LmEvalSettings
from pvar.judge_config import AlpacaEvalJudge, ArenaHardJudge, JudgeConfig
from pvar.number_format import NumberFormat, NumberFormatChoice, resolve
from pvar.ports import Harness, Judge, Sampler, Scorer, Store
from pvar.records import BadRow, Row
from pvar.references import Pinned, without_locations
from pvar.reward_config import ClassifierReward, ComputedReward
from pvar.runtime_config import RuntimeConfig
from pvar.sampler_config import SamplerSettings
from tasks.engine.artifact import open_artifact
from tasks.engine.local_copies import hold_copies
from tasks.stages.train import MODEL


def utc_now() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Wiring:
    """The ports of `pvar.ports`, implemented with this machine's settings."""

    settings: Settings
    store: Store
    tracking: Tracking
    registry: MlflowRegistry
    clock: Callable[[], datetime] = utc_now
    """The time for decisions about retraining: simulated in a backtest."""

    def source_rows(self, reference: str) -> Iterator[Row | BadRow]:
        """Rows of a pinned data reference."""
        return source_rows(reference, self.settings.home / "sources")

    def source_file(self, reference: str) -> Path:
        """Local copy of a pinned reference to a file."""
        return source_file(reference, self.settings.home / "sources")

    def number_format(self, choice: NumberFormatChoice, *, learns: bool) -> NumberFormat:
        """The number format that a choice means on this machine."""
        return choice if choice != "auto" else resolve(choice, read_hardware(), learns=learns)

    @property
    def models(self) -> Path:
        """Folder of the local copies of models."""
        return self.settings.home / "models"

    def model_folder(self, reference: str) -> Path:
        """Folder of a pinned model reference. It is kept until this process ends."""
        location, models = Pinned.parse(reference).location, self.models
        hold_copies(models)
        if location.startswith("artifact:"):
            stage, _, digest = location.removeprefix("artifact:").partition("/")
            return open_artifact(self.store, stage, digest, models).folder(MODEL)
        registry = self.registry
        uri = self.settings.mlflow_tracking_uri
        return fetch_model(reference, models, registry.resolve, registry.download, uri)

    def launch_file(self, sharding: str) -> Path:
        """Accelerate's configuration of that name."""
        return launch_file(sharding)

    def sampler(
        self, settings: SamplerSettings, policy: str, folder: Path | None, runtime: RuntimeConfig
    ) -> Sampler:
        """The engine that the settings name."""
        match settings.engine:
            case "transformers":
                from infra.engines.transformers_sampler import load_transformers_sampler

                assert folder is not None
                return load_transformers_sampler(folder, settings, runtime.sequences_per_batch)
            case "fake":
                from infra.engines.fake_sampler import FakeSampler

                return FakeSampler(settings.max_prompt_tokens, settings.max_new_tokens)
            case "vllm":
                from infra.engines.vllm_sampler import load_vllm_sampler

                assert folder is not None
                return load_vllm_sampler(folder, settings, runtime)
            case "openai":
                from infra.engines.openai_sampler import open_openai_sampler
                from infra.judges.access import SamplerAccess

                assert folder is not None
                limit = runtime.sampler_max_in_flight
                return open_openai_sampler(folder, policy, settings, limit, SamplerAccess())

    def scorer(
        self, settings: ComputedReward, folders: Mapping[str, Path], runtime: RuntimeConfig
    ) -> Scorer:
        """The reward model that the settings name."""
        match settings.kind:
            case "vader":
                from infra.rewards.vader import VaderScorer

                return VaderScorer(settings.scale)
            case "fake":
                from infra.rewards.fake_scorer import FakeScorer

                return FakeScorer(settings.name, settings.missing_share)
            case "implicit":
                from infra.rewards.implicit import load_implicit_scorer

                return load_implicit_scorer(
                    folders["policy"],
                    folders["reference"],
                    settings.beta,
                    runtime.score_tokens_per_batch,
                    settings.max_length_tokens,
                )
            case "python":
                from infra.rewards.function_scorer import open_function

                return open_function(settings)
            case "http":
                from infra.rewards.http_scorer import RewardAccess, open_http_scorer

                return open_http_scorer(settings, runtime.reward_max_in_flight, RewardAccess())
            case "classifier":
                return _classifier(folders["model"], settings, runtime)
            case unknown:
                assert_never(unknown)

    def judge(
        self, settings: JudgeConfig, folders: Mapping[str, Path], runtime: RuntimeConfig
    ) -> Judge:
        """The judge that the settings name."""
        match settings.kind:
            case "afinn":
                from infra.judges.lexicon_judge import LexiconJudge

                return LexiconJudge(settings.scale)
            case "fake":
                from infra.judges.fake_judge import FakePairJudge

                return FakePairJudge(settings.missing_share)
            case "reward_model":
                from infra.judges.reward_model_judge import RewardPairJudge

                model = settings.reward_model
                own = {name.removeprefix("reward_model."): at for name, at in folders.items()}
                identity = without_locations(model).model_dump()
                return RewardPairJudge(self.scorer(model, own, runtime), identity, settings.scale)
            case "alpaca_eval" | "arena_hard":
                return _server_judge(settings, runtime, self.store)
            case unknown:
                assert_never(unknown)

    def harness(
        self,
        settings: LmEvalSettings,
        policy: str,
        folder: Path | None,
        runtime: RuntimeConfig,
        *,
        allow_code_execution: bool,
        scratch: Path,
    ) -> Harness:
        """lm-evaluation-harness on the backend that the settings name."""
        if settings.backend == "fake":
            from infra.fake_harness import FakeHarness

            return FakeHarness(policy, settings.limit)
        from infra.lm_eval_harness import open_lm_eval

        assert folder is not None
        return open_lm_eval(
            folder, settings, runtime, allow_code_execution=allow_code_execution, scratch=scratch
        )


def _classifier(folder: Path, settings: ClassifierReward, runtime: RuntimeConfig) -> Scorer:
    if runtime.scoring_backend == "vllm":
        from infra.rewards.vllm_classifier import load_vllm_classifier

        return load_vllm_classifier(folder, settings, runtime)
    from infra.rewards.classifier import load_classifier_scorer

    return load_classifier_scorer(folder, settings, runtime.score_tokens_per_batch)


def _server_judge(
    settings: AlpacaEvalJudge | ArenaHardJudge, runtime: RuntimeConfig, store: Store
) -> Judge:
    """A language model on an OpenAI-compatible server."""
    from infra.judges.access import JudgeAccess
    from infra.judges.batch_judge import BatchJudge
    from infra.judges.openai_judge import OpenAIJudge, Prices
    from infra.judges.questions import AlpacaEval, ArenaHard, Questions
    from infra.judges.retry_policy import RetryPolicy
    from pvar.evaluation.alpaca_eval_judge import DEFAULT_TEMPLATE
    from pvar.evaluation.arena_hard_judge import OWN_ANSWER_FIRST, JudgeTemplate

    questions: Questions
    if settings.kind == "alpaca_eval":
        questions = AlpacaEval(settings.template or DEFAULT_TEMPLATE)
    else:
        template = JudgeTemplate(settings.instructions) if settings.instructions else None
        questions = ArenaHard(
            settings.version,
            settings.max_tokens,
            settings.temperature,
            template or OWN_ANSWER_FIRST,
        )
    price = runtime.price_of_judge(settings.model)
    prices = (
        Prices(price.usd_per_million_prompt_tokens, price.usd_per_million_completion_tokens)
        if price
        else None
    )
    retry_policy = RetryPolicy(
        runtime.judge_timeout_seconds, runtime.judge_max_attempts, back_off_seconds=1.0
    )
    if runtime.judge_mode == "batch":
        return BatchJudge(
            settings.model,
            questions,
            JudgeAccess(),
            retry_policy,
            store,
            prices=prices,
            max_usd=runtime.judge_max_usd,
            first_pause_seconds=runtime.judge_poll_seconds,
        )
    return OpenAIJudge(
        settings.model,
        questions,
        JudgeAccess(),
        runtime.judge_max_in_flight,
        retry_policy,
        prices,
    )


def connect(settings: Settings | None = None) -> Wiring:
    """Create the adapters for the settings, without contacting any server."""
    settings = settings or Settings()
    store = open_store(settings.store_uri)
    tracking = Tracking(settings.mlflow_tracking_uri, store.uri)
    return Wiring(settings, store, tracking, MlflowRegistry(tracking, store))
