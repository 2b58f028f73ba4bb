"""A comparison of selections: trained for real, on answers and scores that are made once."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import yaml

from flows.comparison import compare
from flows.complete_studies import complete_study
from flows.garbage_collection import plan_sweep
from flows.study_processes import PartEnd
from flows.study_record import StudyRecord
from flows.wiring import Wiring, connect
from pvar.config import PipelineConfig
from pvar.errors import StageError
from pvar.ports import Store
from pvar.study_config import StudyConfig
from tasks.engine.node import Node
from tests.services.prefect_server import PrefectServer
from tests.services.processes import wait_until
from tests.study_parts import parts_in_this_process
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import fake_settings, write_prompts

pytestmark = [
    pytest.mark.slow,
    # Raised inside libraries.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def artifacts(store: Store, stage: str) -> int:
    return sum(info.key.endswith("/manifest.json") for info in store.list(f"{stage}/"))


@pytest.fixture
def pipeline(
    server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> PipelineConfig:
    """Real training of a tiny model on fake answers, in a home of its own."""
    monkeypatch.setenv("PVAR_HOME", str(tmp_path))
    monkeypatch.setenv("PVAR_MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    settings = fake_settings(
        write_prompts(tmp_path / "prompts.jsonl"),
        policy=str(save_language_model(tmp_path / "policy", seed=1)),
        train={"learning_rate": 0.01, "pairs_per_step": 4, "precision": "float32"},
        evaluate={"judge": {"kind": "fake"}, "answers": {"engine": "fake", "max_new_tokens": 12}},
    )
    return PipelineConfig.model_validate(settings)


def test_each_arm_is_trained_beside_the_control_on_shared_answers(
    pipeline: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.comparison.run_parts", parts_in_this_process)
    with_margins = pipeline.evaluate.model_copy(update={"margins": True})
    with_sources = pipeline.ingest.model_copy(update={"source_field": "from"})
    pipeline = pipeline.model_copy(update={"evaluate": with_margins, "ingest": with_sources})
    prompts = tmp_path / "prompts.jsonl"
    rows = [json.loads(line) for line in prompts.read_text().splitlines()]
    sourced = [row | {"from": ("ours", "theirs")[place % 2]} for place, row in enumerate(rows)]
    prompts.write_text("".join(f"{json.dumps(row)}\n" for row in sourced))
    page = compare(StudyConfig(pipeline=pipeline, seeds=(3,)))

    table = [line for line in page.splitlines() if line.startswith("| ")]
    of_arms = ["| arm", "| random", "| top"]
    of_sources = ["| source", "| ours", "| theirs"]
    assert [line.split(" | ")[0] for line in table] == [*of_arms, *of_sources, *of_arms]
    assert "**top: not enough trainings, " in page
    assert "11 of 11 prompts judged for every training. Intervals of differences are over" in page
    wiring = connect()
    store = wiring.store
    made = {
        stage: artifacts(store, stage) for stage in ("ingest", "score", "select", "pair", "train")
    }
    # One more of each for the held-out pairs, which both arms share.
    assert made == {"ingest": 1, "score": 2, "select": 3, "pair": 3, "train": 2}
    assert artifacts(store, "sample") == 5  # for training, of the opponent, of two challengers
    (key,) = [info.key for info in store.list("comparisons/") if info.key.count("/") == 1]
    record = StudyRecord.model_validate_json(store.read(key))
    results = {
        info.key.rpartition("/")[2]: store.read(info.key).decode()
        for info in store.list(f"comparisons/{record.run}/")
    }
    assert results["certificate.md"] == page
    certificate = json.loads(results["certificate.json"])
    assert certificate["verdicts"] == {"top": "not enough trainings"}
    assert {name for name in results if "held_out" in name} == {
        "held_out_margins.svg",
        "held_out_margins_by_pvar.svg",
    }
    margins = certificate["held_out_margins"]
    assert [row["cell"] for row in margins] == ["random", "top"]
    numbers = [[curve["num_pairs"] for curve in row["curves"].values()] for row in margins]
    assert numbers[0] == numbers[1]
    assert sum(numbers[0][1:]) == numbers[0][0] > 2  # all have a PVar
    for row in margins:
        start, *_, end = row["curves"]["all"]["mean"]
        assert start == 0
        assert abs(end) > 0.01
    rows = [json.loads(line) for line in results["outcomes.jsonl"].splitlines()]
    assert len(rows) == 2 * 11
    assert {row["arm"] for row in rows} == {"random", "top"}
    assert {row["source"] for row in rows} == {"ours", "theirs"}
    assert set(certificate["pool"]["mean_by_source"]) == {"ours", "theirs"}
    by_source = certificate["arms"][1]["by_source"].values()
    assert sum(each["num_prompts"] for each in by_source) == 11
    named = {node.artifact for node in record.nodes}
    stages = ("ingest", "sample", "score", "select", "pair", "train", "evaluate")
    assert len(named) == sum(artifacts(store, stage) for stage in stages)
    assert plan_sweep(wiring, None).plan.artifacts == ()
    assert list((tmp_path / "work").iterdir()) == []
    assert wiring.tracking.client.search_registered_models() == []

    def seen(**changes: object) -> str | None:
        """What a repeat shows without making anything; settings of `runtime` may differ."""
        other = pipeline.model_copy(update={"runtime": PipelineConfig().runtime})
        study = {"pipeline": other, "seeds": (3,), "at_once": 2} | changes
        return complete_study(StudyConfig.model_validate(study), wiring)

    assert seen() == record.run
    assert seen(seeds=(3, 4)) is None
    assert seen(seeds=(4,)) is None
    (evaluated, _) = [node.artifact for node in record.nodes if node.name == "evaluate"]
    store.delete(f"{evaluated}/manifest.json")
    assert seen() is None


def test_the_stages_of_all_arms_run_on_their_pools(
    pipeline: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is handed to the pools; that a worker takes it is tested with the pools themselves."""
    handed_over: list[str] = []

    def take(node: Node, config: PipelineConfig, wiring: Wiring, *, parent_run: str | None) -> None:
        handed_over.append(f"{node.name} on {config.runtime.placement.of(node.stage.name).pool}")
        raise StageError("the pool has no worker")

    def parts(run: str, labels: Sequence[str], *, at_once: int) -> Iterator[PartEnd]:
        for label in labels:
            try:
                yield from parts_in_this_process(run, [label], at_once=at_once)
            except StageError as error:
                yield PartEnd(label, str(error), 1.0)

    monkeypatch.setattr("flows.comparison.run_parts", parts)
    monkeypatch.setattr("flows.pipeline.run_placed", take)
    placed = pipeline.model_dump(mode="json")
    placed["runtime"]["placement"]["select"] = {"pool": "gpus"}
    study = StudyConfig(pipeline=PipelineConfig.model_validate(placed), seeds=(0,))
    with pytest.raises(StageError, match=r"2 of 2 trainings failed.*the pool has no worker"):
        compare(study)
    assert handed_over == ["select on gpus", "select on gpus"]  # of the control, and of the arm


def test_a_training_that_fails_leaves_the_others(
    pipeline: PipelineConfig,
) -> None:
    """No pair of one arm is short enough; both trainings run at once."""
    arms = [
        {"name": "random", "settings": {"select.strategy": "random"}},
        {"name": "torn", "settings": {"train.max_length_tokens": 12}},
    ]
    study = StudyConfig.model_validate(
        {"pipeline": pipeline, "arms": arms, "seeds": (0,), "at_once": 2}
    )
    with pytest.raises(StageError, match=r"^1 of 2 trainings failed, first torn/0: .*none of"):
        compare(study)
    store = connect().store
    (key,) = [info.key for info in store.list("comparisons/") if info.key.count("/") == 1]
    record = StudyRecord.model_validate_json(store.read(key))
    done = [each.label for each in record.trainings if each.state == "done"]
    assert done == ["random/0"]
    assert artifacts(store, "train") == 1
    page = store.read(f"comparisons/{record.run}/certificate.md").decode()
    assert "- torn/0: " in page
    assert [line.split(" | ")[1] for line in page.splitlines() if line.startswith("| random")] == [
        "1 of 1"
    ]


def test_a_study_that_is_stopped_keeps_what_it_found(
    pipeline: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the first training, as by Ctrl-C."""

    def one_training(run: str, parts: Sequence[str], *, at_once: int) -> Iterator[PartEnd]:
        yield from parts_in_this_process(run, parts[:1], at_once=at_once)
        if len(parts) > 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("flows.comparison.run_parts", one_training)
    with pytest.raises(KeyboardInterrupt):
        compare(StudyConfig(pipeline=pipeline, seeds=(0,)))
    store = connect().store
    (page,) = [
        store.read(info.key).decode()
        for info in store.list("comparisons/")
        if info.key.endswith("/certificate.md")
    ]
    assert "| random | 1 of 1 |" in page

    asked: list[str] = []

    def note(run: str, parts: Sequence[str], *, at_once: int) -> Iterator[PartEnd]:
        asked.extend(parts)
        yield from parts_in_this_process(run, parts, at_once=at_once)

    monkeypatch.setattr("flows.comparison.run_parts", note)
    page = compare(StudyConfig(pipeline=pipeline, seeds=(0,)))
    assert asked == ["shared", "top/0"]
    assert "| random | 1 of 1 |" in page
    assert "| top | 1 of 1 |" in page
    again = compare(StudyConfig(pipeline=pipeline, seeds=(0,)))
    assert asked == ["shared", "top/0"]
    assert [line for line in again.splitlines() if line.startswith("| ")] == [
        line for line in page.splitlines() if line.startswith("| ")
    ]


def test_a_killed_study_leaves_no_process_and_goes_on(
    pipeline: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kill -9` after the first training; the same study then makes what is missing."""
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump({"pipeline": pipeline.model_dump(mode="json"), "seeds": [0]}))
    command = [sys.executable, "-m", "flows.cli", "compare", str(study)]
    store = connect().store
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until(lambda: artifacts(store, "train") > 0, "the first training")
        members = psutil.Process(process.pid).children()
    finally:
        process.kill()
        process.wait()
    assert members
    wait_until(lambda: not any(each.is_running() for each in members), "the end of its processes")
    before = {info.key for info in store.list("train/") if info.key.endswith("/manifest.json")}

    monkeypatch.setattr("flows.comparison.run_parts", parts_in_this_process)
    page = compare(StudyConfig(pipeline=pipeline, seeds=(0,)))
    assert "| random | 1 of 1 |" in page
    assert "| top | 1 of 1 |" in page
    after = {info.key for info in store.list("train/") if info.key.endswith("/manifest.json")}
    assert len(after) == 2
    assert before <= after
