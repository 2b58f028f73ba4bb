"""The number format is resolved once per artifact; later shards, workers and readers follow it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from infra.judges.fake_judge import FakePairJudge
from infra.rewards.fake_scorer import FakeScorer
from pvar.artifacts import Recipe
from pvar.errors import StageError
from pvar.judge_config import JudgeConfig, RewardModelJudge
from pvar.number_format import Hardware, NumberFormat, NumberFormatChoice, resolve
from pvar.ports import Ports
from pvar.records import Prompt, Response
from pvar.reward_config import ClassifierReward, RewardModelConfig
from pvar.sampler_config import SamplerSettings
from tasks.engine.artifact import ArtifactKeys
from tasks.engine.stage import Job, run_stage
from tasks.stages.evaluate import EVALUATE, EvaluateSpec
from tasks.stages.ingest import PROMPTS
from tasks.stages.sample import RESPONSES
from tasks.stages.score import SCORE, ScoreSpec
from tasks.training import reference, training_run
from tests.artifacts import StageBench
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import Workflow, open_wiring, start_workflow

GPU = Hardware("a GPU", frozenset({"bfloat16", "float16"}))
LAPTOP = Hardware("a laptop", frozenset())

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@dataclass(frozen=True)
class On:
    """Ports of a machine with other hardware; `loaded` gets the formats of what is loaded there."""

    ports: Ports
    hardware: Hardware
    loaded: list[NumberFormatChoice] = field(default_factory=list)

    def number_format(self, choice: NumberFormatChoice, *, learns: bool) -> NumberFormat:
        return resolve(choice, self.hardware, learns=learns)

    def sampler(self, settings: SamplerSettings, *rest: Any) -> Any:
        self.loaded.append(settings.dtype)
        return self.ports.sampler(settings, *rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ports, name)


def start(tmp_path: Path, *, engine: str = "fake", **train: Any) -> Workflow:
    return start_workflow(
        tmp_path,
        **{
            "policy": str(save_language_model(tmp_path / "policy")),
            "sample.engine": engine,
            "train": {"pairs_per_step": 4} | train,
            "runtime.pairs_per_device": 4,
        },
    )


def job_on(flow: Workflow, name: str, hardware: Hardware) -> Job[Any]:
    return replace(flow.job(name), ports=On(flow.wiring, hardware))


def recipe_of(flow: Workflow, keys: ArtifactKeys) -> Recipe:
    return Recipe.model_validate_json(flow.store.read(keys.recipe))


@pytest.mark.slow
def test_who_begins_an_artifact_decides_and_another_machine_follows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flow = start(tmp_path, engine="transformers")
    flow.make("ingest")
    node = flow.nodes["sample"]
    begins, follows = (job_on(flow, "sample", hardware) for hardware in (GPU, LAPTOP))
    begins_with = run_stage(node.stage, node.recipe, begins).artifact
    assert begins_with.manifest.summary["number_format"] == "bfloat16"
    assert "emulates" not in caplog.text
    begun = recipe_of(flow, node.keys)
    assert begun.number_format == "bfloat16"
    assert begun.config["settings"]["dtype"] == "auto"  # type: ignore[index,call-overload]
    for lost in (node.keys.manifest, node.keys.record(2)):
        flow.store.delete(lost)
    assert run_stage(node.stage, node.recipe, follows).shards_made == 1
    assert "bfloat16 is on record for this artifact, and this machine emulates it" in caplog.text
    assert recipe_of(flow, node.keys) == begun
    assert [job.ports.loaded for job in (begins, follows)] == [["bfloat16"], ["bfloat16"]]  # type: ignore[attr-defined]


def test_a_server_or_a_fake_has_no_format(tmp_path: Path) -> None:
    flow = start_workflow(tmp_path)
    flow.make("ingest", "sample", "score-vader")
    for name in ("ingest", "sample", "score-vader"):
        assert recipe_of(flow, flow.nodes[name].keys).number_format is None


CLASSIFIER = ClassifierReward(name="r", model="somewhere#sha256-r")


@pytest.mark.parametrize(("hardware", "expected"), [(GPU, "bfloat16"), (LAPTOP, "float32")])
def test_reward_models_that_score_or_judge_are_loaded_in_the_recorded_format(
    tmp_path: Path, hardware: Hardware, expected: NumberFormat
) -> None:
    bench = StageBench(open_wiring(tmp_path), tmp_path)
    loaded: list[NumberFormatChoice] = []

    def scorer(settings: RewardModelConfig, *_: object) -> FakeScorer:
        assert isinstance(settings, ClassifierReward)
        loaded.append(settings.dtype)
        return FakeScorer("r", 0)

    def judge(settings: JudgeConfig, *_: object) -> FakePairJudge:
        assert isinstance(settings, RewardModelJudge)
        scorer(settings.reward_model)
        return FakePairJudge()

    prompts = bench.put("ingest", PROMPTS, [Prompt("p", (), "eval", "x")], Prompt)
    ours, theirs = (
        bench.put("sample", RESPONSES, [Response("p", name, 0, name, 1, "stop")], Response)
        for name in ("ours", "theirs")
    )
    ports = {
        "scorer": scorer,
        "judge": judge,
        "number_format": On(bench.ports, hardware).number_format,
        "model_folder": lambda _: tmp_path,
    }
    score_spec = ScoreSpec(reward_model=CLASSIFIER)
    scores = bench.run(SCORE, score_spec, {"prompts": prompts, "responses": ours}, **ports)
    evaluate_spec = EvaluateSpec(
        judge=RewardModelJudge(reward_model=CLASSIFIER),
        orders="both",
        confidence=0.95,
        seed=0,
        required_coverage=0.0,
    )
    sides = {"prompts": prompts, "challenger": ours, "opponent": theirs}
    verdicts = bench.run(EVALUATE, evaluate_spec, sides, **ports)
    for artifact in (scores, verdicts):
        recipe = Recipe.model_validate_json(artifact.store.read(artifact.keys.recipe))
        assert recipe.number_format == expected
    assert loaded == [expected, expected]


class Stopped(Exception):
    """A training that is not run."""


@pytest.fixture
def trained_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Precisions of the trainings to come, each of which ends before its first step."""
    seen: list[str] = []

    def note(plan: training_run.TrainingPlan, watcher: object) -> None:
        seen.append(plan.settings.precision)
        raise Stopped

    monkeypatch.setattr("tasks.training.job_watcher.run_training", note)
    return seen


def begin_training(flow: Workflow, hardware: Hardware) -> NumberFormat | None:
    """Up to the first step; the recorded format."""
    node = flow.nodes["train"]
    with pytest.raises(Stopped):
        run_stage(node.stage, node.recipe, job_on(flow, "train", hardware))
    return recipe_of(flow, node.keys).number_format


@pytest.mark.slow
def test_a_training_computes_in_the_format_of_its_reference(
    tmp_path: Path, trained_in: list[str]
) -> None:
    flow = start(tmp_path)
    flow.make("ingest", "sample", "score-vader", "select", "pair")
    assert begin_training(start(tmp_path, learning_rate=1e-4), LAPTOP) == "float32"
    # On hardware where auto is bfloat16, with the reference of the first.
    assert begin_training(start(tmp_path, learning_rate=2e-4), GPU) == "float32"
    # SimPO subtracts nothing, so there the hardware decides.
    assert begin_training(start(tmp_path, method="simpo", simpo_gamma=0.5), GPU) == "bfloat16"
    assert trained_in == ["float32", "float32", "bfloat16"]


@pytest.mark.slow
def test_a_reference_in_another_format_is_not_subtracted(
    tmp_path: Path, trained_in: list[str]
) -> None:
    flow = start(tmp_path)
    flow.make("ingest", "sample", "score-vader", "select", "pair")
    assert begin_training(flow, LAPTOP) == "float32"
    for key in [info.key for info in flow.store.list("reference/")]:
        flow.store.delete(key)
    job, node = job_on(flow, "train", GPU), flow.nodes["train"]
    spec = reference.reference_spec(job.spec.policy, job.spec.settings)
    assert reference.reference_format(job, spec) == "bfloat16"
    with pytest.raises(StageError, match=r"number format bfloat16, but .* was begun in float32"):
        run_stage(node.stage, node.recipe, job)
    assert trained_in == ["float32"]  # the second was refused before it began
