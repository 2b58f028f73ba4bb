"""`make gpu-check` in small, on the CPU: what it finds, what it leaves out, and its exit code."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from infra.engines.transformers_sampler import load_transformers_sampler
from tests.gpu import scoring, training
from tests.gpu.bench import SHAPES, Bench
from tests.gpu.card import published_peak
from tests.gpu.check import CHECKS, Machine, exit_code, memory_row, report, run_all, run_check
from tests.gpu.engines import check_sampler
from tests.gpu.rows import Check, Found, LeftOut, Row

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

ON_A_CPU = Machine("a machine", "cpu", "tiny", None)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(SHAPES["tiny"], tmp_path_factory.mktemp("models"), "cpu", 0)


@pytest.mark.parametrize(
    ("check", "figure"),
    [
        (scoring.classifier, "correlation of both 0.99"),
        (training.reference, "nats a token"),
        (training.lora_step, "trained weights float32"),
    ],
)
def test_a_check_measures_and_leaves_no_memory(bench: Bench, check: object, figure: str) -> None:
    (found,) = (each for each in CHECKS if each.run is check)
    row = run_check(found, bench)
    assert (row.outcome, row.reason) == ("ok", "")
    assert any(figure in each for each in row.figures)
    assert all("of the peak" in each for each in row.figures[:1])
    assert memory_row([row], None).outcome == "ok"


def test_an_engine_that_computes_something_else_is_found(bench: Bench) -> None:
    """Here another model: all but the prompts' shapes is wrong."""
    found = check_sampler(
        bench,
        lambda settings: load_transformers_sampler(bench.policy(1), settings, 128),
        ("float32",),
    )
    assert [problem.partition(" is ")[0] for problem in found.problems] == [
        "float32: a token",
        "float32: drawn tokens do not have the model's probabilities",
    ]


def test_tensors_that_stay_are_found(bench: Bench) -> None:
    kept: list[torch.Tensor] = []

    def keep(_: Bench) -> Found:
        kept.append(torch.zeros(25_000_000))
        return Found(["kept"])

    row = run_check(Check("keeps", (), keep), bench)
    assert row.left_mb == pytest.approx(100, abs=1)
    found = memory_row([Row("before", "ok", left_mb=0.0), row], None)
    assert (found.outcome, found.reason) == ("failed", "keeps left 100 MB")


def test_memory_of_the_gpu_that_stays_taken_is_found() -> None:
    """The driver's count, which has vLLM's processes: 5 GB above the start after the second."""
    rows = [Row("one", "ok", left_mb=0.0, reserved_mb=1500.0)]
    assert memory_row(rows, 1000.0).outcome == "ok"
    rows.append(Row("two", "ok", left_mb=0.0, reserved_mb=6000.0))
    assert memory_row(rows, 1000.0).reason == "5000 MB of the GPU were still taken after two"


def test_a_missing_package_is_named_and_its_check_left_out(bench: Bench) -> None:
    row = run_check(Check("needy", ("torch", "no_such_package"), lambda _: Found([])), bench)
    assert (row.outcome, row.reason) == ("left out", "needs no_such_package (not installed)")
    assert exit_code([row]) == 0


def test_what_the_machine_cannot_do_is_left_out(bench: Bench) -> None:
    def cannot(_: Bench) -> Found:
        raise LeftOut("needs two GPUs")

    assert run_check(Check("two", (), cannot), bench) == Row(
        "two", "left out", (), "needs two GPUs"
    )


def test_a_failure_is_a_row_and_the_exit_code(bench: Bench) -> None:
    def broken(_: Bench) -> Found:
        raise ValueError("not\nthis | that")

    row = run_check(Check("broken", (), broken), bench)
    wrong = run_check(Check("wrong", (), lambda _: Found(["1 nat"], ["too far"])), bench)
    rows = [row, wrong, Row("fine", "ok", ["a < b", "c"])]
    assert [each.outcome for each in rows] == ["failed", "failed", "ok"]
    assert exit_code(rows) == exit_code(rows[1:]) == 1
    assert exit_code(rows[2:]) == 0
    text = report(ON_A_CPU, rows, "a command")
    assert "on a CPU, not on a GPU" in text
    assert "| broken | failed |  | ValueError: not this \\| that | 0.0 |  |" in text
    assert "| wrong | failed | 1 nat | too far | 0.0 |  |" in text
    assert "| fine | ok | a &lt; b<br>c |  |  |  |" in text


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Row]:
    """Of two checks, the first of which ends its process."""
    names = ["no such check", "train dpo, LoRA, DeepSpeed"]
    return run_all(names, "tiny", tmp_path, time.monotonic() + 1e6)


def test_a_check_that_ends_its_process_leaves_the_others(rows: Iterator[Row]) -> None:
    first, second = rows
    assert (first.name, first.outcome) == ("no such check", "failed")
    assert "its process ended with 1: KeyError: 'no such check'" in first.reason
    assert (second.name, second.outcome) == ("train dpo, LoRA, DeepSpeed", "left out")


def test_no_check_begins_when_the_time_is_over(tmp_path: Path) -> None:
    (row,) = run_all(["matrix products"], "tiny", tmp_path, time.monotonic())
    assert (row.outcome, row.reason) == ("left out", "not begun in --minutes")


def test_the_names_of_checks_differ() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS) > 20


@pytest.mark.parametrize(
    ("card", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165),
    ],
)
def test_the_published_peak_is_that_of_the_card(card: str, tera: float) -> None:
    """Dense bfloat16 by the data sheets; an L40S is no L4, and an A100 no A10."""
    assert published_peak(card) == tera * 1e12


def test_an_unknown_card_has_no_published_peak() -> None:
    assert published_peak("NVIDIA T1000") is None
