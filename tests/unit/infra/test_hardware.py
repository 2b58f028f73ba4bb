"""What this machine computes natively."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from infra.hardware import ONEDNN_LIMITS, cpu_has_bfloat16, read_hardware
from pvar.number_format import Hardware

CODE = "from infra.hardware import cpu_has_bfloat16; print(cpu_has_bfloat16())"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU, which comes first")
def test_the_cpu_is_named_with_its_instructions() -> None:
    found = read_hardware()
    assert torch.backends.cpu.get_cpu_capability() in found.name
    assert ("bfloat16" in found.native) == cpu_has_bfloat16()


def test_a_cpu_without_the_instructions_has_no_bfloat16() -> None:
    described = Path("/proc/cpuinfo")
    flags = described.read_text().split() if described.exists() else []
    if not any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16")):
        assert not cpu_has_bfloat16()


@pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith("AVX"),
    reason="the limits are those of x86 CPUs with AVX",
)
@pytest.mark.parametrize("limit", [{"ATEN_CPU_CAPABILITY": "avx2"}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}])
def test_a_cpu_kept_to_avx2_has_no_bfloat16(limit: dict[str, str]) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", CODE],
        env=os.environ | limit,
        check=True,
        capture_output=True,
        text=True,
    )
    assert answer.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("isa", "has"),
    [("AVX2", False), ("AVX512_CORE", False), ("AVX512_CORE_BF16", True), ("avx10_1_512", True)],
)
def test_onednn_can_be_kept_from_bfloat16(
    monkeypatch: pytest.MonkeyPatch, isa: str, has: bool
) -> None:
    pretend_avx512_bf16(monkeypatch)
    assert cpu_has_bfloat16()
    monkeypatch.setenv(ONEDNN_LIMITS[0], isa)
    assert cpu_has_bfloat16() == has


def test_pytorch_can_be_kept_from_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_avx512_bf16(monkeypatch)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not cpu_has_bfloat16()


def pretend_avx512_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The instructions are asked of PyTorch: as if the CPU had them, and nothing limited it."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for name in ONEDNN_LIMITS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("capability", "has_bfloat16", "native"),
    [
        ((8, 0), True, {"bfloat16", "float16"}),  # A100
        ((7, 5), False, {"float16"}),  # T4
        ((6, 1), False, set()),  # P40: float16 at a sixty-fourth of the speed
    ],
)
def test_a_gpu_comes_first_and_is_asked_for_what_it_computes_itself(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    has_bfloat16: bool,
    native: set[str],
) -> None:
    """There is no GPU in the tests: PyTorch's answers are those of the cards named."""

    def is_supported(*, including_emulation: bool) -> bool:
        return has_bfloat16 or including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    assert read_hardware() == Hardware("a card", frozenset(native))  # type: ignore[arg-type]
