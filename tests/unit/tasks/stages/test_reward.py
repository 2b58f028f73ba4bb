"""Stages reward and adopt: labels in, a reward model that passed its gate or was refused, out."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pvar.exclusion import Exclusion
from pvar.ports import RegisteredVersion
from pvar.records import Message, Prompt
from pvar.reward_gate import LabelMargin
from pvar.reward_training import RewardGateConfig, RewardTrainConfig, is_held_out_label
from tasks.engine.artifact import Artifact, ArtifactKeys
from tasks.stages.adopt import (
    ADOPT,
    LABEL_MARGINS,
    NOTHING_TRAINED,
    AdoptionRecord,
    AdoptSpec,
    failed_gate,
    read_adoption,
)
from tasks.stages.exclude import EXCLUDED
from tasks.stages.ingest import PROMPTS
from tasks.stages.promote import GATE_TAG
from tasks.stages.reward import REWARD, RewardSpec
from tasks.stages.reward_labels import EARLIER, EARLIER_EXCLUSIONS, read_labels
from tasks.stages.train import MODEL
from tests.artifacts import StageBench, opened
from tests.unit.infra.tiny_models import save_classifier
from tests.workflow import open_wiring

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

HELD_OUT = 0.4
START = "start#start"
WORDS = ("river", "lamp", "seven", "quiet", "market", "stone", "evening", "paper", "train", "salt")


class Registry:
    """A registry in memory."""

    def __init__(self) -> None:
        self.versions: list[RegisteredVersion] = []
        self.tags: list[Mapping[str, str]] = []
        self.current: RegisteredVersion | None = None

    def register(
        self, model_name: str, folder: Path, artifact: str, tags: Mapping[str, str]
    ) -> RegisteredVersion:
        assert (folder / "model.safetensors").exists()
        for number, version in enumerate(self.versions):
            if version.artifact == artifact:
                self.tags[number] = tags
                return version
        number = len(self.versions) + 1
        version = RegisteredVersion(model_name, number, artifact, tags["pvar.opponent"])
        self.versions.append(version)
        self.tags.append(tags)
        return version

    def champion(self, model_name: str) -> RegisteredVersion | None:
        return self.current

    def promote(
        self, version: RegisteredVersion, *, instead_of: RegisteredVersion | None, reason: str
    ) -> None:
        assert instead_of == self.current
        self.current = version


def ids(start: str, *, held_out: bool) -> Iterator[str]:
    """Prompt ids of one side of the split."""
    number = 0
    while True:
        name = f"{start} {number}"
        if is_held_out_label(name, HELD_OUT) == held_out:
            yield name
        number += 1


def labels(start: str, num_training: int, num_held_out: int, *, flipped: float) -> list[Prompt]:
    """Labelled prompts: answers that end with an exclamation mark are preferred.

    Of a share `flipped` of both sides of the split the labels are wrong.
    """
    rng = np.random.default_rng(len(start))
    rows = []
    for held_out, count in ((False, num_training), (True, num_held_out)):
        for number, name in zip(range(count), ids(start, held_out=held_out), strict=False):
            good, bad = (f"{' '.join(rng.choice(WORDS, 3))}{end}" for end in "!?")
            if number < round(flipped * count):
                good, bad = bad, good
            messages = (Message("user", name),)
            rows.append(Prompt(name, messages, "train", f"source of {start}", good, bad))
    return rows


class Training:
    """The two stages over a store, with a registry and models by reference."""

    def __init__(self, folder: Path, start: Path) -> None:
        self.bench = StageBench(open_wiring(folder), folder)
        self.registry = Registry()
        self.folders = {START: start}

    def put(self, prompts: Sequence[Prompt]) -> ArtifactKeys:
        return self.bench.put("ingest", PROMPTS, prompts, Prompt)

    def reward(self, inputs: Mapping[str, ArtifactKeys], **train: Any) -> Artifact:
        spec = RewardSpec(
            model=START,
            settings=RewardTrainConfig(**{"learning_rate": 3e-3, "num_epochs": 4, **train}),
            held_out_fraction=HELD_OUT,
        )
        return self.bench.run(REWARD, spec, inputs, model_folder=self.folders.__getitem__)

    def adopt(
        self,
        reward: Artifact,
        inputs: Mapping[str, ArtifactKeys],
        opponent: str = START,
        **changes: Any,
    ) -> Artifact:
        spec = AdoptSpec(
            gate=RewardGateConfig(max_accuracy_loss=0.3),
            model_name="rewards",
            opponent=opponent,
            held_out_fraction=HELD_OUT,
            max_length_tokens=2048,
            reward_scale=1.0,
            confidence=0.95,
            seed=0,
        ).model_copy(update=changes)
        return self.bench.run(
            ADOPT,
            spec,
            {"model": reward.keys, **inputs},
            registry=self.registry,
            model_folder=self.folders.__getitem__,
        )

    def reference(self, reward: Artifact) -> str:
        """The reward model of an artifact, as a later run names it."""
        name = f"artifact:{reward.keys.root}#{reward.keys.root}"
        self.folders[name] = reward.folder(MODEL)
        return name


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("start"), seed=1)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory, start: Path) -> Training:
    return Training(tmp_path_factory.mktemp("training"), start)


@pytest.fixture(scope="module")
def first(training: Training) -> tuple[ArtifactKeys, Artifact, Artifact]:
    """A first batch of clean labels: prompts, reward model, and the decision on it."""
    prompts = training.put(labels("first", 48, 24, flipped=0))
    reward = training.reward({"prompts": prompts})
    return prompts, reward, training.adopt(reward, {"prompts": prompts})


def record_of(adopted: Artifact) -> AdoptionRecord:
    return read_adoption(adopted)


@pytest.mark.slow
def test_a_model_that_learned_the_labels_becomes_the_champion(
    training: Training, first: tuple[ArtifactKeys, Artifact, Artifact]
) -> None:
    _, reward, adopted = first
    record = record_of(adopted)
    assert reward.manifest.summary["num_pairs"] == 48
    assert reward.manifest.summary["num_new_labels"] == 48
    # Held-out labels alone: 24 of 24 right would have a lower end of 0.025^(1/24) = 0.86.
    margins = adopted.rows(LABEL_MARGINS, LabelMargin)
    assert len(margins) == 24
    assert {margin.source for margin in margins} == {"source of first"}
    accuracy = record.figures["accuracy"]
    assert accuracy is not None
    assert accuracy == pytest.approx(
        sum(row.margin is not None and row.margin > 0 for row in margins) / 24
    )
    assert accuracy > 0.9
    assert (record.passed, record.reasons) == (True, ())
    assert record.note == "no earlier labels to compare on"
    version = training.registry.versions[0]
    assert (version.artifact, record.version) == (reward.keys.root, 1)
    assert training.registry.tags[0][GATE_TAG] == "passed"
    assert training.registry.tags[0]["pvar.num_new"] == "24"
    assert training.registry.tags[0]["pvar.results"] == adopted.keys.root  # so gc keeps it


@pytest.mark.slow
def test_a_batch_of_which_two_fifths_are_flipped_is_refused(
    training: Training, first: tuple[ArtifactKeys, Artifact, Artifact]
) -> None:
    earlier, champion, _ = first
    training.registry.current = training.registry.versions[0]
    poisoned = training.put(labels("poisoned", 40, 40, flipped=0.4))
    inputs = {"prompts": poisoned, EARLIER: earlier}
    reward = training.reward(inputs)
    assert reward.manifest.summary["num_pairs"] == 88
    record = record_of(training.adopt(reward, inputs, training.reference(champion)))
    assert not record.passed
    checks = {name: passed for name, _, _, passed in record.checks}
    assert checks["accuracy_lower"] is False
    assert any("labels may be wrong, or too few" in reason for reason in record.reasons)
    assert record.figures["earlier.num_labels"] == 24
    # It is registered, without the alias.
    assert training.registry.current == training.registry.versions[0]
    assert training.registry.versions[-1].artifact == reward.keys.root
    assert training.registry.tags[-1][GATE_TAG] == "failed"


@pytest.mark.slow
def test_a_model_replaces_only_the_champion_that_it_was_compared_with(
    training: Training, first: tuple[ArtifactKeys, Artifact, Artifact]
) -> None:
    prompts, reward, _ = first
    before = training.registry.current
    training.registry.current = RegisteredVersion("rewards", 9, "reward/0123456789abcdef")
    try:
        record = record_of(training.adopt(reward, {"prompts": prompts}, seed=1))
        assert training.registry.current.version == 9
    finally:
        training.registry.current = before
    assert (record.passed, record.previous_version) == (False, 9)
    assert all(passed for _, _, _, passed in record.checks)
    assert not failed_gate(record)  # nothing is wrong with its labels
    (reason,) = record.reasons
    assert "was compared with start, but the champion of rewards is version 9" in reason


def test_without_labels_nothing_is_trained_or_registered(tmp_path: Path, start: Path) -> None:
    training = Training(tmp_path, start)
    plain = [row._replace(chosen=None, rejected=None) for row in labels("x", 3, 3, flipped=0)]
    inputs = {"prompts": training.put(plain), EARLIER: training.put(labels("y", 2, 2, flipped=0))}
    record = record_of(training.adopt(training.reward(inputs), inputs))
    assert (record.passed, record.version, record.reasons) == (False, None, (NOTHING_TRAINED,))
    assert training.registry.versions == []


def test_labels_that_are_all_too_long_are_not_called_missing(tmp_path: Path, start: Path) -> None:
    training = Training(tmp_path, start)
    inputs = {"prompts": training.put(labels("x", 6, 2, flipped=0))}
    model = training.reward(inputs, max_length_tokens=8)
    record = record_of(training.adopt(model, inputs))
    (reason,) = record.reasons
    assert reason.startswith("no reward model was trained: none of 6 labels can be trained on")
    assert "'too_long': 6" in reason
    assert record.version is None


def test_labels_of_exams_are_left_out_and_the_rest_is_split_for_good(
    tmp_path: Path, start: Path
) -> None:
    bench = StageBench(open_wiring(tmp_path), tmp_path)
    one, two, three, test = labels("new", 3, 1, flipped=0)
    held_out_for_evaluation = labels("eval", 1, 0, flipped=0)[0]._replace(split="eval")
    question = labels("question", 1, 0, flipped=0)[0]._replace(accepted_answers=("4",))
    same, before = one, labels("old", 1, 0, flipped=0)[0]
    other_way = two._replace(chosen=two.rejected, rejected=two.chosen)
    in_exam = labels("gone", 1, 0, flipped=0)[0]
    asked = held_out_for_evaluation._replace(split="train")  # an earlier batch had it as well

    def excluded(*prompts: Prompt) -> ArtifactKeys:
        rows = [Exclusion(each.prompt_id, "exam", "", "same_text", "") for each in prompts]
        return bench.put("exclude", EXCLUDED, rows, Exclusion)

    new = sorted([one, two, three, test, held_out_for_evaluation, question])
    inputs = {
        "prompts": bench.put("ingest", PROMPTS, new, Prompt),
        "exclusions": excluded(three),
        EARLIER: bench.put("ingest", PROMPTS, [same, before, other_way, in_exam, asked], Prompt),
        EARLIER_EXCLUSIONS: excluded(in_exam),
    }
    found = read_labels(
        {name: opened(bench.ports.store, keys, tmp_path) for name, keys in inputs.items()},
        HELD_OUT,
    )
    # The label of `two` was corrected.
    assert [(label.prompt, label.is_earlier) for label in found.training] == [
        (same, True), (before, True), (two, False),
    ]  # fmt: skip
    assert [(label.prompt, label.is_earlier) for label in found.held_out] == [(test, False)]
    assert found.num_new == 1
