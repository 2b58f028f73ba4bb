"""The number format is resolved once per artifact; later shards, workers and readers follow it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pvar.artifacts import Recipe
from pvar.config import RuntimeConfig, SamplerSettings
from pvar.errors import StageError
from pvar.number_format import Hardware, NumberFormat, NumberFormatChoice, resolve
from pvar.ports import Ports
from tasks.artifact import ArtifactKeys
from tasks.stage import run_stage
from tasks.training import reference, run
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import Workflow, start_workflow

GPU = Hardware("a GPU", frozenset({"bfloat16", "float16"}))
LAPTOP = Hardware("a laptop", frozenset())

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Stopped(Exception):
    """A worker that dies before its first shard."""


@dataclass(frozen=True)
class On:
    """Ports of a machine with other hardware; `loaded` gets the format of each sampler."""

    ports: Ports
    hardware: Hardware
    loaded: list[NumberFormatChoice]
    dies: bool = False

    def number_format(self, choice: NumberFormatChoice, *, learns: bool) -> NumberFormat:
        return resolve(choice, self.hardware, learns=learns)

    def sampler(self, settings: SamplerSettings, *rest: Any) -> Any:
        self.loaded.append(settings.dtype)
        if self.dies:
            raise Stopped
        return self.ports.sampler(settings, *rest)

    def model_folder(self, location: str) -> Path:
        if self.dies and not location.startswith("artifact:"):
            raise Stopped
        return self.ports.model_folder(location)

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


def run_on(flow: Workflow, name: str, ports: On) -> Recipe:
    """Run a node on those ports; its recipe."""
    node = flow.nodes[name]
    job = replace(flow.job(name), ports=ports)
    try:
        run_stage(node.stage, node.recipe, job)
    except Stopped:
        assert ports.dies
    return recipe_of(flow, node.keys)


def recipe_of(flow: Workflow, keys: ArtifactKeys) -> Recipe:
    return Recipe.model_validate_json(flow.store.read(keys.recipe))


@pytest.mark.slow
def test_who_begins_an_artifact_decides_and_another_machine_follows(tmp_path: Path) -> None:
    flow = start(tmp_path, engine="transformers")
    flow.make("ingest")
    loaded: list[NumberFormatChoice] = []
    begun = run_on(flow, "sample", On(flow.wiring, GPU, loaded, dies=False))
    assert begun.number_format == "bfloat16"
    assert begun.config["settings"]["dtype"] == "auto"  # type: ignore[index,call-overload]
    for key in [info.key for info in flow.store.list("sample/")]:
        if key.endswith(("manifest.json", "/00002.json")):
            flow.store.delete(key)
    again = run_on(flow, "sample", On(flow.wiring, LAPTOP, loaded))
    assert again == begun
    assert loaded == ["bfloat16", "bfloat16"]


def test_a_server_or_a_fake_has_no_format(tmp_path: Path) -> None:
    flow = start_workflow(tmp_path)
    flow.make("ingest", "sample", "score-vader")
    for name in ("ingest", "sample", "score-vader"):
        assert recipe_of(flow, flow.nodes[name].keys).number_format is None


def trained_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Precisions of the trainings to come, which are not run."""
    seen: list[str] = []

    def note(plan: run.TrainingPlan, watcher: object) -> None:
        seen.append(plan.settings.precision)
        raise Stopped

    monkeypatch.setattr("tasks.train.run_training", note)
    return seen


@pytest.mark.slow
def test_a_training_computes_in_the_format_of_its_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = start(tmp_path)
    flow.make("ingest", "sample", "score-vader", "select")
    seen = trained_in(monkeypatch)
    for hardware, learning_rate in ((LAPTOP, 1e-4), (GPU, 2e-4)):
        flow = start(tmp_path, learning_rate=learning_rate)
        node = flow.nodes["train"]
        job = replace(flow.job("train"), ports=On(flow.wiring, hardware, []))
        with pytest.raises(Stopped):
            run_stage(node.stage, node.recipe, job)
        assert recipe_of(flow, node.keys).number_format == "float32"
    assert seen == ["float32", "float32"]  # the second on hardware where auto is bfloat16
    # SimPO subtracts nothing, so there the hardware decides.
    flow = start(tmp_path, method="simpo", simpo_gamma=0.5)
    node = flow.nodes["train"]
    job = replace(flow.job("train"), ports=On(flow.wiring, GPU, []))
    with pytest.raises(Stopped):
        run_stage(node.stage, node.recipe, job)
    assert recipe_of(flow, node.keys).number_format == "bfloat16"


@pytest.mark.slow
def test_a_reference_in_another_format_is_not_subtracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = start(tmp_path)
    flow.make("ingest", "sample", "score-vader", "select")
    trained_in(monkeypatch)
    node = flow.nodes["train"]
    job = replace(flow.job("train"), ports=On(flow.wiring, LAPTOP, []))
    with pytest.raises(Stopped):
        run_stage(node.stage, node.recipe, job)
    for key in [info.key for info in flow.store.list("reference/")]:
        flow.store.delete(key)
    spec = reference.reference_spec(job.spec.policy, job.spec.policy_location, job.spec.settings)
    begun = reference.reference_format(replace(job, ports=On(flow.wiring, GPU, [])), spec)
    assert begun == "bfloat16"
    with pytest.raises(StageError, match=r"is in bfloat16 and .* was begun in float32"):
        run_stage(node.stage, node.recipe, job)


def test_runtime_holds_no_format() -> None:
    """It is identity or the recipe's record, never a setting of the machine."""
    assert not {"dtype", "precision", "number_format"} & set(RuntimeConfig.model_fields)
