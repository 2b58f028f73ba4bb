"""`make gpu-check`: does everything hold on this machine's GPU, and how fast is it? (docs/gpu.md)

python -m tests.gpu.check [--size tiny|1b|8b] [--only PART] [--output gpu-check.md]

The checks run one after the other in one process, as stages do, and memory is measured after each.
After one that failed, or that ended its process or its time, the others go on in a new process. The
exit code is 1 if one failed.
"""

import argparse
import dataclasses
import gc
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from tests.gpu import engines, scoring, training
from tests.gpu.bench import SHAPES, Bench, readable
from tests.gpu.card import describe
from tests.gpu.rows import Check, Found, LeftOut, Row, failure, table

CHECK_SECONDS = 240
"""Limit of one check."""

MAX_LEFT_MB = 64
"""Tensors that a check may leave behind (torch's own workspaces are not among them)."""

MAX_RESERVED_MB = 2048
"""Memory of the GPU that may be taken after a check and was not before the first: CUDA's own."""

POLL_SECONDS = 0.1

MODELS = ("torch", "transformers")
TRAINERS = (*MODELS, "peft", "accelerate", "trl", "datasets", "pyarrow")
VLLM = (*MODELS, "vllm")

MACHINE = "machine.json"
ROWS = "rows.jsonl"
BEGUN = "begun"
LOG = "log.txt"


def matrices(bench: Bench) -> Found:
    """Products of square matrices: the peak that shares are of."""
    peak = bench.peak
    known = "no published peak: shares are of what was measured"
    if peak.published is not None:
        share = peak.measured / peak.published
        known = f"{share:.0%} of the published {readable(peak.published)}"
    figures = [f"bfloat16 {readable(peak.measured)} ({known}), float32 {readable(peak.float32)}"]
    return Found(figures)


CHECKS = (
    Check("matrix products", ("torch",), matrices),
    Check("engine transformers", MODELS, engines.transformers_engine),
    Check("scorer classifier, one logit", MODELS, scoring.classifier),
    Check("scorer classifier, gated", MODELS, scoring.gated),
    Check("scorer implicit", MODELS, scoring.implicit),
    Check("judge reward_model", MODELS, scoring.judge),
    Check("reference of training", MODELS, training.reference),
    Check("gradients", MODELS, training.gradients),
    Check("LoRA without TRL", (*MODELS, "peft"), training.lora_step),
    Check("train dpo, LoRA", TRAINERS, training.lora_dpo),
    Check("train dpo, all weights", TRAINERS, training.full_dpo),
    *(
        Check(f"train {name}, LoRA", TRAINERS, training.method(name))
        for name in ("ipo", "kto", "simpo", "orpo")
    ),
    Check("train reward model, all weights", TRAINERS, training.reward_model),
    Check("train dpo, LoRA, data parallel", TRAINERS, training.data_parallel),
    Check("train dpo, all weights, FSDP", TRAINERS, training.sharded("fsdp", is_full=True)),
    Check("train dpo, LoRA, FSDP", TRAINERS, training.sharded("fsdp", is_full=False)),
    Check(
        "train dpo, all weights, DeepSpeed",
        (*TRAINERS, "deepspeed"),
        training.sharded("deepspeed", is_full=True),
    ),
    Check(
        "train dpo, LoRA, DeepSpeed",
        (*TRAINERS, "deepspeed"),
        training.sharded("deepspeed", is_full=False),
    ),
    Check("engine vllm", VLLM, engines.vllm_engine),
    Check("scorer classifier on vllm", VLLM, scoring.vllm_classifier),
    Check("engine openai on vLLM's server", (*VLLM, "openai"), engines.server_engine),
)

MEMORY = "memory freed between checks"


class Machine(NamedTuple):
    """What the figures belong to."""

    description: str
    """Hardware and versions."""
    device: str
    size: str
    reserved_mb: float | None
    """Memory of the GPU that was taken before the first check; None on a CPU."""


def read_machine(folder: Path) -> Machine:
    """As a process of checks wrote it; one that could not even start wrote none."""
    path = folder / MACHINE
    if not path.exists():
        return Machine("unknown, no process of checks could start", "unknown", "unknown", None)
    return Machine(**json.loads(path.read_text()))


def open_bench(size: str | None, folder: Path) -> Bench:
    """This machine's; without torch every check is left out, and so nothing is asked of it."""
    num_gpus = 0
    if find_spec("torch") is not None:
        import torch

        num_gpus = torch.cuda.device_count()
    device = "cuda" if num_gpus else "cpu"
    return Bench(SHAPES[size or ("1b" if num_gpus else "tiny")], folder, device, num_gpus)


def run_check(check: Check, bench: Bench) -> Row:
    """The check's row, whatever it raises."""
    if missing := [name for name in check.needs if find_spec(name) is None]:
        return Row(check.name, "left out", reason=f"needs {', '.join(missing)} (not installed)")
    memory = Memory(bench.device)
    began = time.perf_counter()
    try:
        found = check.run(bench)
    except LeftOut as reason:
        return Row(check.name, "left out", reason=str(reason))
    except Exception as error:  # noqa: BLE001  the row says it, and the others go on
        return failure(check.name, error, seconds=time.perf_counter() - began)
    seconds = time.perf_counter() - began
    peak_gb, left_mb = memory.peak_gb(), memory.left_mb()
    outcome: Any = "failed" if found.problems else "ok"
    reason, reserved = "; ".join(found.problems), memory.reserved_mb()
    return Row(check.name, outcome, found.figures, reason, seconds, peak_gb, left_mb, reserved)


class Memory:
    """Memory before a check, and what is there after it."""

    def __init__(self, device: str) -> None:
        self._on_gpu = device == "cuda"
        self._before = _tensor_bytes()
        if self._on_gpu:
            import torch

            torch.cuda.init()
            torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> float | None:
        """Of torch's tensors on the GPU, in this process."""
        if not self._on_gpu:
            return None
        import torch

        return torch.cuda.max_memory_allocated() / 1e9

    def left_mb(self) -> float:
        """Tensors that are still there, after what stages do between them."""
        from tasks.engine.gpu_memory import free_gpu_memory

        free_gpu_memory()
        gc.collect()
        return (_tensor_bytes() - self._before) / 1e6

    def reserved_mb(self) -> float | None:
        """Memory of the GPU that is not free, by its driver; of all processes."""
        if not self._on_gpu:
            return None
        import torch

        free, total = torch.cuda.mem_get_info()
        return (total - free) / 1e6


def _tensor_bytes() -> int:
    """Of all tensors of this process."""
    torch = sys.modules.get("torch")
    if torch is None:
        return 0
    sizes = {}
    for each in gc.get_objects():
        if issubclass(type(each), torch.Tensor) and each.device.type in ("cpu", "cuda"):
            with suppress(RuntimeError, NotImplementedError):  # kinds without a storage
                storage = each.untyped_storage()
                sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def memory_row(rows: Sequence[Row], reserved_before: float | None) -> Row:
    """What the checks left behind, at most."""
    known = [(row.left_mb, row.name) for row in rows if row.left_mb is not None]
    if not known:
        return Row(MEMORY, "left out", reason="no check was measured")
    left, name = max(known)
    figures = [f"tensors left by a check: at most {left:.1f} MB ({name})"]
    problems = [f"{name} left {left:.0f} MB"] if left > MAX_LEFT_MB else []
    taken = [(row.reserved_mb, row.name) for row in rows if row.reserved_mb is not None]
    if taken and reserved_before is not None:
        most, name = max(taken)
        more = most - reserved_before
        figures.append(f"the driver's count: at most {more:.0f} MB above the start ({name})")
        if more > MAX_RESERVED_MB:
            problems.append(f"{more:.0f} MB of the GPU were still taken after {name}")
    return Row(MEMORY, "failed" if problems else "ok", figures, "; ".join(problems))


def work(names: Sequence[str], size: str | None, folder: Path, end: float) -> None:
    """Run the checks in this process up to the first that fails, or to `end`; rows go to a file."""
    checks = {check.name: check for check in CHECKS}
    chosen = [checks[name] for name in names]
    bench = open_bench(size, folder)
    if not (folder / MACHINE).exists():
        reserved = Memory(bench.device).reserved_mb()
        machine = Machine(describe(), bench.device, bench.shape.name, reserved)
        (folder / MACHINE).write_text(json.dumps(machine._asdict()))
    for check in chosen:
        if time.monotonic() >= end:
            return
        (folder / BEGUN).write_text(check.name)
        row = run_check(check, bench)
        with (folder / ROWS).open("a") as file:
            file.write(json.dumps(dataclasses.asdict(row)) + "\n")
        if row.outcome == "failed":
            return


def run_all(names: Sequence[str], size: str | None, folder: Path, end: float) -> Iterator[Row]:
    """Each check's row as it comes. After `end`, by the machine's monotonic clock, none begins."""
    pending = list(names)
    while pending:
        if time.monotonic() >= end:
            yield Row(pending.pop(0), "left out", reason="not begun in --minutes")
            continue
        num_before = len(pending)
        (folder / BEGUN).unlink(missing_ok=True)
        with _process(pending, size, folder, end) as process:
            for row in _rows_of(process, folder, len(pending)):
                pending.remove(row.name)
                yield row
            code = process.poll()
        begun = (folder / BEGUN).read_text() if (folder / BEGUN).exists() else None
        has_time = time.monotonic() < end
        if pending and (pending[0] == begun or (has_time and num_before == len(pending))):
            yield _lost(pending.pop(0), code, folder)


def _rows_of(process: "subprocess.Popen[bytes]", folder: Path, count: int) -> Iterator[Row]:
    """The rows of a process, until it ends or a check's time is over."""
    seen = 0
    last = time.monotonic()
    while seen < count:
        has_ended = process.poll() is not None
        lines = (folder / ROWS).read_text().splitlines() if (folder / ROWS).exists() else []
        for line in lines[seen:]:
            seen, last = seen + 1, time.monotonic()
            yield Row(**json.loads(line))
        if has_ended:
            return
        if time.monotonic() > last + CHECK_SECONDS:
            return
        time.sleep(POLL_SECONDS)


def _lost(name: str, code: int | None, folder: Path) -> Row:
    """The row of a check that ended its process with this code, or None: had to be ended."""
    from tasks.engine.child_processes import first_cause

    if code is None:
        return Row(name, "failed", reason=f"no end after {CHECK_SECONDS} s")
    output = (folder / LOG).read_text(errors="replace")
    return Row(name, "failed", reason=f"its process ended with {code}: {first_cause(output)}")


@contextmanager
def _process(
    names: Sequence[str], size: str | None, folder: Path, end: float
) -> "Iterator[subprocess.Popen[bytes]]":
    """A process that runs the checks; at the end of the block it is killed with its children."""
    (folder / ROWS).unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "tests.gpu.check", "--work", str(folder), "--end", str(end), *names,
    ]  # fmt: skip
    if size is not None:
        command += ["--size", size]
    with (
        (folder / LOG).open("ab") as log,
        subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        ) as process,
    ):
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def exit_code(rows: Sequence[Row]) -> int:
    """1 if a check failed; one that was left out is no failure."""
    return 1 if any(row.outcome == "failed" for row in rows) else 0


def report(machine: Machine, rows: Sequence[Row], command: str) -> str:
    """The text of the file."""
    took = sum(row.seconds or 0 for row in rows)
    where = "on a GPU" if machine.device == "cuda" else "on a CPU, not on a GPU"
    return (
        f"Run {where} on {datetime.now(UTC):%Y-%m-%d}: {machine.description}. Size "
        f"`{machine.size}`, {took:.0f} s in the checks. `{command}`\n\n{table(rows)}\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks, print and write the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.check", description=__doc__)
    parser.add_argument("--size", choices=list(SHAPES), help="default: 1b on a GPU, else tiny")
    parser.add_argument("--only", default="", help="checks whose name contains this text")
    parser.add_argument("--output", type=Path, default=Path("gpu-check.md"))
    parser.add_argument(
        "--minutes", type=float, default=10, help="after which no check begins (default: 10)"
    )
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--end", type=float, help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work is not None:
        work(options.names, options.size, options.work, options.end)
        return 0
    names = [check.name for check in CHECKS if options.only in check.name]
    if not names:
        parser.error(f"no check's name contains {options.only!r}")
    given = [f"--size {options.size}"] if options.size else []
    given += [f"--only {shlex.quote(options.only)}"] if options.only else []
    command = " ".join(["python -m tests.gpu.check", *given])
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as name:
        folder, rows = Path(name), []
        for row in run_all(names, options.size, folder, time.monotonic() + 60 * options.minutes):
            rows.append(row)
            print(f"{row.outcome:8} {row.name}  {row.reason}", flush=True)
        machine = read_machine(folder)
    rows.append(memory_row(rows, machine.reserved_mb))
    text = report(machine, rows, command)
    options.output.write_text(text)
    print(f"\n{text}\nwritten to {options.output}")
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main())
