"""What is checked before the first stage, here and by the workers of placed stages."""

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml

from flows import placed_checks, preflight
from flows.benchmark_table import BenchmarkTable
from flows.benchmarking import benchmark
from flows.cli import main
from flows.comparison import compare
from flows.exit_codes import DONE, ERROR
from flows.free_disk import judge_disk
from flows.model_memory import MachineMemory, UsedModel, judge_memory
from flows.placed_checks import StageCheck, check_worker, problems_elsewhere
from flows.placed_stages import PlacedRun, StageDeployment
from flows.preflight import (
    as_if_pinned,
    check_before_start,
    judge_resources,
    pin_or_report,
    refuse_early,
)
from infra.machine_memory import Memory
from infra.model_size import ModelSize
from infra.presets import load_config, preset_names
from infra.settings import Settings
from pvar.config import PipelineConfig
from pvar.errors import (
    ConfigError,
    InputError,
    MissingError,
    PvarError,
    TrackingError,
    UnavailableError,
)
from pvar.round_rules import RoundsResult
from pvar.runtime_config import RuntimeConfig
from pvar.study_config import StudyConfig
from tasks.graph import plan_nodes
from tests.benchmark_files import arena_hard_files
from tests.workflow import Workflow, fake_settings, start_workflow, write_prompts

GB = 10**9
POLICY = "org/policy#org/policy"
SERVER_JUDGE = {"kind": "alpaca_eval", "model": "gpt-4-1106-preview"}


def verdicts(
    model: UsedModel, num_parameters: int, machine: MachineMemory, **runtime: Any
) -> list[tuple[str, str]]:
    """Verdict and sentence of each memory that the model needs."""
    used = [("train", model, ModelSize(num_parameters))]
    fits = judge_memory(used, machine, RuntimeConfig.model_validate(runtime))
    return [(fit.verdict, fit.sentence) for fit in fits]


LAPTOP = MachineMemory(Memory(16 * GB, 12 * GB), [])
TRAINED = UsedModel(POLICY, "trained", 16)


@pytest.mark.parametrize(
    ("num_parameters", "verdict"),
    [
        (int(0.6 * GB), "fits"),  # 9.6 GB, with a fifth more 11.5 of 12 free
        (int(0.7 * GB), "tight"),  # 11.2 GB, with a fifth more 13.4
        (int(1.1 * GB), "impossible"),  # 17.6 GB of 16
    ],
)
def test_training_all_weights_takes_16_bytes_a_parameter(num_parameters: int, verdict: str) -> None:
    ((found, sentence),) = verdicts(TRAINED, num_parameters, LAPTOP)
    assert found == verdict
    assert sentence.startswith("training all weights of org/policy (")
    assert "the memory here is 16 GB, of which 12 GB are free; set train.lora," in sentence


def test_processes_without_sharding_each_hold_a_copy() -> None:
    model = UsedModel(POLICY, "base of LoRA", 2)
    assert verdicts(model, 4 * GB, LAPTOP)[0][0] == "fits"
    assert verdicts(model, 4 * GB, LAPTOP, num_processes=4)[0][0] == "impossible"


def test_on_gpus_each_holds_its_part_and_main_memory_the_weights_while_they_are_loaded() -> None:
    gpus = MachineMemory(Memory(64 * GB, 60 * GB), [80 * GB] * 8)
    (on_gpu, said), (in_memory, _) = verdicts(TRAINED, 8 * GB, gpus)  # 128 GB of 80; 32 GB of 64
    assert (on_gpu, in_memory) == ("impossible", "fits")
    assert said == (
        "training all weights of org/policy (8 billion parameters, 16 bytes each with AdamW): at "
        "least 128 GB, and a GPU here has 80 GB for it; set train.lora, spread the weights over "
        "GPUs with runtime.sharding and runtime.num_processes, take a smaller model, or run the "
        "stage where there is more memory (runtime.placement)"
    )
    sharded = {"num_processes": 8, "sharding": "fsdp", "pairs_per_device": 1}
    assert [found for found, _ in verdicts(TRAINED, 8 * GB, gpus, **sharded)] == ["fits", "fits"]


def test_a_model_that_is_only_loaded_may_exceed_the_main_memory_beside_a_gpu() -> None:
    """Its files are mapped. To be trained, it is converted to float32 in main memory."""
    colab = MachineMemory(Memory(13 * GB, 12 * GB), [80 * GB])
    for use, num_bytes, expected in (
        ("loaded", 2, "tight"),
        ("base of LoRA", 2, "tight"),
        ("trained", 16, "impossible"),
    ):
        _, (in_memory, _) = verdicts(UsedModel(POLICY, use, num_bytes), 7 * GB, colab)  # 14, 28 GB
        assert in_memory == expected


def test_vllm_may_use_a_share_of_each_of_its_gpus() -> None:
    model = UsedModel(POLICY, "vllm", 2)
    gpus = MachineMemory(Memory(8 * GB, 8 * GB), [24 * GB, 24 * GB])
    ((found, said),) = verdicts(model, 11 * GB, gpus)  # 22 GB of 21.6
    assert (found, "a GPU here has 21.6 GB" in said) == ("impossible", True)
    assert "raise runtime.vllm.tensor_parallel_size" in said
    assert verdicts(model, 8 * GB, gpus, vllm={"tensor_parallel_size": 2})[0][0] == "fits"


@pytest.mark.parametrize("size", [None, ModelSize(None, 10)])
def test_what_is_unknown_is_not_judged(size: ModelSize | None) -> None:
    assert judge_memory([("sample", TRAINED, size)], LAPTOP, RuntimeConfig()) == []
    assert (
        judge_memory([("train", TRAINED, ModelSize(GB))], MachineMemory(None, []), RuntimeConfig())
        == []
    )


def test_a_model_that_several_nodes_load_is_judged_once() -> None:
    loaded = UsedModel(POLICY, "loaded", 2)
    used = [(name, loaded, ModelSize(GB)) for name in ("sample", "answers-opponent")]
    (fit,) = judge_memory(used, LAPTOP, RuntimeConfig())
    assert fit.what == "sample, answers-opponent"


def test_the_disk_must_hold_downloads_and_the_trained_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1e9 parameters: 2 GB to download, the model twice (home and store), checkpoints of 12 GB."""
    settings = Settings(home=tmp_path / "home", store_uri=(tmp_path / "store").as_uri())
    monkeypatch.setattr("flows.free_disk.hub_cache", lambda: tmp_path / "hub")
    used = [("train", TRAINED, ModelSize(GB, download_bytes=2 * GB))]

    def verdict(free: float) -> str:
        usage = SimpleNamespace(free=free * GB)
        monkeypatch.setattr("flows.free_disk.shutil.disk_usage", lambda _: usage)
        (fit,) = judge_disk(used, settings)
        assert fit.figures.startswith(
            "at least 6 GB are written (downloading org/policy 2 GB, the model of train 4 GB), "
            "and up to 24 GB of checkpoints, and "
        )
        return fit.verdict

    assert [verdict(free) for free in (5.9, 6.1, 29.9, 30.1)] == [
        *("impossible", "tight", "tight", "fits"),
    ]
    (fit,) = judge_disk([*used, *used], settings)  # the store keeps both, as in a study
    assert fit.figures.startswith(
        "at least 8 GB are written (downloading org/policy 2 GB, the model of train 6 GB), "
        "and up to 24 GB of checkpoints, and "
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 1 GB of memory and no GPU."""
    monkeypatch.setattr(preflight, "read_memory", lambda: Memory(GB, GB))
    monkeypatch.setattr(preflight, "read_gpu_memory", list)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_one_report_has_what_is_missing_and_what_does_not_fit(
    home: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PVAR_JUDGE_BASE_URL", raising=False)
    monkeypatch.delenv("PVAR_JUDGE_API_KEY", raising=False)
    flow = start_workflow(home, **{"evaluate.judge": SERVER_JUDGE})
    with pytest.raises(InputError) as refused:
        check_before_start(flow.config, flow.wiring)
    head, judge, train = str(refused.value).splitlines()
    assert head == "2 things are missing:"
    assert judge.startswith("  evaluate.judge: OpenAI's server needs a key; set PVAR_JUDGE_API_KEY")
    assert train.startswith(
        "  train: training all weights of bundled:smollm2-135m-instruct (0.135 billion parameters,"
    )


def test_what_is_tight_is_a_warning(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(preflight, "read_memory", lambda: Memory(4 * GB, 2 * GB))
    monkeypatch.setattr(preflight, "read_gpu_memory", list)
    flow = start_workflow(home)
    check_before_start(flow.config, flow.wiring)
    assert "train may be short of memory or disk: training all weights" in caplog.text


def test_what_is_complete_needs_nothing(
    home: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = start_workflow(home, **{"evaluate.judge": SERVER_JUDGE})
    monkeypatch.setattr(preflight, "is_complete", lambda node, _: node.name != "ingest")
    check_before_start(flow.config, flow.wiring)


def test_what_only_complete_nodes_need_is_not_looked_for(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy's server and that of a reward model are gone; later nodes of their stages run."""
    for name in ("PVAR_SAMPLER_BASE_URL", "PVAR_SAMPLER_API_KEY", "PVAR_REWARD_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    served = {"kind": "http", "name": "served", "model": "org/rm", "api": "vllm_score"}
    flow = start_workflow(
        home,
        **{
            "sample.engine": "openai",
            "score.reward_models": [served, {"kind": "vader", "name": "vader"}],
        },
    )
    done = {"sample", "score-served"}
    monkeypatch.setattr(preflight, "is_complete", lambda node, _: node.name in done)
    check_before_start(flow.config, flow.wiring)
    refuse_early(flow.config, flow.wiring)
    done.remove("score-served")
    with pytest.raises(InputError, match=r"score\.reward_models\.0"):
        check_before_start(flow.config, flow.wiring)
    done.clear()
    for refuse in (check_before_start, refuse_early):
        with pytest.raises(InputError, match=r"2 things are missing:\n  sample\.engine: OpenAI's"):
            refuse(flow.config, flow.wiring)


class RecordedError(Exception):
    """The check is over: the run would begin."""


@pytest.fixture
def recorded(home: Path, monkeypatch: pytest.MonkeyPatch) -> type[RecordedError]:
    def begin(*_: object) -> str:
        raise RecordedError

    monkeypatch.setenv("PVAR_HOME", str(home))
    monkeypatch.setattr("infra.tracking.Tracking.start_run", begin)
    return RecordedError


def test_a_study_that_does_not_fit_is_refused_before_it_is_recorded(
    home: Path, small: None, recorded: type[RecordedError]
) -> None:
    """Training takes 2.2 GB of 1. What is placed elsewhere needs nothing here."""
    flow = start_workflow(home)
    with pytest.raises(InputError, match="train: training all weights of bundled:smollm2-135m"):
        compare.fn(StudyConfig(pipeline=flow.config, seeds=(0, 1)))
    assert not list(flow.store.list("comparisons/"))
    with pytest.raises(recorded):
        compare.fn(StudyConfig(pipeline=placed(home, train="gpus").config, seeds=(0, 1)))


def test_benchmarks_that_do_not_fit_are_refused_before_they_are_recorded(
    home: Path, small: None, recorded: type[RecordedError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answering takes 0.54 GB of 1, and the training of the same configuration is not done."""
    home.mkdir()
    answers = {"engine": "transformers", "max_new_tokens": 12, "dtype": "float32"}
    files = arena_hard_files(home, judge={"kind": "fake"}, answers=answers)
    flow = start_workflow(home, benchmarks=[files])
    model = [flow.config.policy]
    with pytest.raises(recorded):
        benchmark.fn(flow.config, models=model)
    assert len(list(flow.store.list("benchmarks/"))) == 1
    monkeypatch.setattr(preflight, "read_memory", lambda: Memory(GB // 2, GB // 2))
    with pytest.raises(InputError, match="the weights of bundled:smollm2-135m-instruct"):
        benchmark.fn(flow.config, models=model)
    assert len(list(flow.store.list("benchmarks/"))) == 1


@pytest.mark.parametrize(
    ("command", "look", "found"),
    [
        ("compare", "flows.complete_studies.complete_study", "compare-1"),
        ("benchmark", "flows.benchmark_table.complete_table", BenchmarkTable(run="r", rows=())),
        (
            "rounds",
            "flows.round_record.ended_rounds",
            RoundsResult(name="pvar", model_name="pvar", rounds=()),
        ),
    ],
)
def test_what_is_complete_is_shown_while_a_server_is_down(
    command: str, look: str, found: object, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the server is asked as soon as anything has to be made."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("PVAR_JUDGE_BASE_URL", f"http://127.0.0.1:{port}/v1")
    monkeypatch.setenv("PVAR_HOME", str(home))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    home.mkdir()
    tree = fake_settings(write_prompts(home / "prompts.jsonl"))
    tree["benchmarks"] = [
        {
            "kind": "arena_hard",
            "questions": str(home / "prompts.jsonl"),
            "baseline_answers": [str(home / "prompts.jsonl")],
            "judge": {"kind": "arena_hard", "model": "gpt-4-1106-preview"},
        }
    ]
    if command != "benchmark":
        tree["evaluate"] |= {"judge": SERVER_JUDGE, "opponent": "champion"}
    (home / "my.yaml").write_text(yaml.safe_dump(tree))
    words = [command, "--preset", str(home / "my.yaml")]
    if command == "compare":
        words += ["--strategy", "top", "--seeds", "2", "--json"]
        store = home / "store" / "comparisons" / "compare-1"
        store.mkdir(parents=True)
        (store / "certificate.json").write_text('{"verdict": "helps"}')
    monkeypatch.setattr(look, lambda *_: found)
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == DONE
    monkeypatch.setattr(look, lambda *_: None)
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == ERROR


def test_a_reference_that_cannot_be_pinned_is_reported_with_all_else(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PVAR_JUDGE_BASE_URL", raising=False)
    monkeypatch.delenv("PVAR_JUDGE_API_KEY", raising=False)
    flow = start_workflow(home)
    source = home / "none.jsonl"
    with_judge = PipelineConfig.model_validate(
        fake_settings(source, **{"evaluate.judge": SERVER_JUDGE})
    )
    with pytest.raises(InputError) as refused:
        pin_or_report(with_judge, flow.wiring)
    assert str(refused.value).count("none.jsonl") == 1
    assert "evaluate.judge" in str(refused.value)

    def lost(*_: object) -> PipelineConfig:
        raise TrackingError("MLflow does not answer")

    monkeypatch.setattr(preflight, "pin", lost)
    with pytest.raises(TrackingError):  # alone, it stays what it is
        pin_or_report(flow.config, flow.wiring)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_has_a_plan_and_models_of_known_use(
    name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "find_size", lambda *_: ModelSize(8 * GB))
    monkeypatch.setattr(preflight, "read_memory", lambda: Memory(900 * GB, 900 * GB))
    monkeypatch.setattr(preflight, "read_gpu_memory", lambda: [24 * GB])
    config = as_if_pinned(load_config(name))
    flow = start_workflow(home)
    fits, problems = judge_resources(config, plan_nodes(config).values(), flow.wiring)
    assert problems == []
    judged = {name for fit in fits for name in fit.what.split(", ")}
    assert {"sample", "train", "answers-challenger"} <= judged


# Placed stages


def placed(home: Path, **pools: str) -> Workflow:
    placement = {stage: {"pool": pool} for stage, pool in pools.items()}
    return start_workflow(home, **{"runtime.placement": placement})


class Server:
    """Deployments on work pools, and runs that end as they are told."""

    def __init__(self, job_variables: Mapping[str, Mapping[str, str]], **ends: PlacedRun) -> None:
        self.job_variables = job_variables
        self.ends = ends
        self.started: dict[UUID, tuple[StageDeployment, StageCheck]] = {}
        self.cancelled: list[UUID] = []

    def find(self, _: object, deployment: StageDeployment) -> SimpleNamespace:
        if str(deployment) not in self.job_variables:
            raise ConfigError(f"no deployment {deployment}")
        return SimpleNamespace(
            work_pool_name=f"pvar-{deployment.pool}",
            job_variables=self.job_variables[str(deployment)],
        )

    def start(
        self, deployment: StageDeployment, name: str, key: str, parameters: dict[str, Any]
    ) -> UUID:
        run = uuid4()
        self.started[run] = (deployment, StageCheck.model_validate(parameters["check"]))
        return run

    def look(self, _: object, runs: list[UUID]) -> list[PlacedRun]:
        return [self.ends[self.started[run][0].pool]._replace(id=run) for run in runs]


COMPLETED = PlacedRun(uuid4(), "check", "Completed", "", True, True, True, True, False)
SCHEDULED = PlacedRun(uuid4(), "check", "Late", "", False, False, False, False, False)


def failed(message: str) -> PlacedRun:
    return COMPLETED._replace(
        state="Failed", message=f"{placed_checks.RAISED}{message}", is_completed=False
    )


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Server], None]:
    def stand_in(server: Server) -> None:
        monkeypatch.setattr(placed_checks, "connected_client", nullcontext)
        monkeypatch.setattr(placed_checks, "find_deployment", server.find)
        monkeypatch.setattr(placed_checks, "start_run", server.start)
        monkeypatch.setattr(placed_checks, "look_at_runs", server.look)
        monkeypatch.setattr(placed_checks, "cancel_runs", server.cancelled.extend)
        monkeypatch.setattr(placed_checks, "POLL_SECONDS", 0.0)
        monkeypatch.setattr(placed_checks, "UNTAKEN_SECONDS", 0.01)

    return stand_in


def test_each_image_is_asked_once_for_all_of_its_stages(
    home: Path, use: Callable[[Server], None]
) -> None:
    flow = placed(home, sample="docker", score="docker", train="docker", pair="mars")
    flow.store.write("checks/of-a-killed-one.json", b"{}")
    os.utime(home / "store/checks/of-a-killed-one.json", (0, 0))
    train, sample = {"image": "pvar:train"}, {"image": "pvar:sample"}
    server = Server(
        {"score/score-docker": train, "train/train-docker": train, "sample/sample-docker": sample},
        docker=COMPLETED,
    )
    use(server)
    nodes = [node for node in flow.nodes.values() if node.stage.name in ("pair", "sample", "score")]
    problems = problems_elsewhere(flow.config, [*nodes, flow.nodes["train"]], flow.wiring)
    assert [(each.key, str(each.error)) for each in problems] == [
        ("runtime.placement.pair", "no deployment pair/pair-mars")
    ]
    asked = {check.nodes for _, check in server.started.values()}
    assert asked == {
        ("sample", "answers-opponent", "answers-challenger"),
        ("score-vader", "train"),
    }
    assert set(server.cancelled) == set(server.started)  # those that are over stay over
    assert not list(flow.store.list("checks/"))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("MissingError: sample.engine: vLLM is not installed", MissingError),
        ("UnavailableError: the server does not answer", UnavailableError),
    ],
)
def test_what_a_worker_lacks_stops_the_run(
    message: str, kind: type[PvarError], home: Path, use: Callable[[Server], None]
) -> None:
    flow = placed(home, sample="docker")
    use(Server({"sample/sample-docker": {}}, docker=failed(message)))
    with pytest.raises(kind) as refused:
        check_before_start(flow.config, flow.wiring)
    assert str(refused.value) == (
        f"pool docker (sample, answers-opponent, answers-challenger): {message}"
    )


def test_a_pool_without_a_worker_is_not_waited_for(
    home: Path, use: Callable[[Server], None], caplog: pytest.LogCaptureFixture
) -> None:
    flow = placed(home, sample="docker")
    server = Server({"sample/sample-docker": {}}, docker=SCHEDULED)
    use(server)
    check_before_start(flow.config, flow.wiring)
    assert "no worker took the check" in caplog.text
    assert "prefect worker start --pool pvar-docker" in caplog.text
    assert set(server.cancelled) == set(server.started)


def test_a_worker_with_another_store_and_without_the_files_says_so(
    home: Path,
) -> None:
    flow = start_workflow(home)
    mlflow: Any = SimpleNamespace(experiment="1")
    worker = replace(flow.wiring, tracking=mlflow)
    flow.store.write("checks/1.json", b"{}")
    names = tuple(flow.nodes)
    check_worker(flow.config, StageCheck(nodes=names, object="checks/1.json"), worker)
    (home / "prompts.jsonl").unlink()  # as on a machine that never had it
    with pytest.raises(InputError) as refused:
        check_worker(flow.config, StageCheck(nodes=names, object="checks/2.json"), worker)
    assert "give the worker the same PVAR_STORE_URI" in str(refused.value)
    assert "prompts.jsonl: no such file" in str(refused.value)
