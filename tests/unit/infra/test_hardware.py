"""What this machine computes natively. GPUs are not looked at here: there is none in the tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from infra.hardware import ONEDNN_LIMITS, cpu_has_bfloat16, read_hardware

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


@pytest.mark.parametrize("limit", [{"ATEN_CPU_CAPABILITY": "avx2"}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}])
def test_a_cpu_kept_to_avx2_has_no_bfloat16(limit: dict[str, str]) -> None:
    """Whatever the machine is; elsewhere than on x86 the limits mean nothing."""
    answer = subprocess.run(
        [sys.executable, "-c", CODE],
        env=os.environ | limit,
        check=True,
        capture_output=True,
        text=True,
    )
    if torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        assert answer.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("isa", "has"),
    [("AVX2", False), ("AVX512_CORE", False), ("AVX512_CORE_BF16", True), ("avx10_1_512", True)],
)
def test_onednn_can_be_kept_from_bfloat16(
    monkeypatch: pytest.MonkeyPatch, isa: str, has: bool
) -> None:
    # The instructions are asked of PyTorch: here as if the CPU had them.
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for name in ONEDNN_LIMITS:
        monkeypatch.delenv(name, raising=False)
    assert cpu_has_bfloat16()
    monkeypatch.setenv(ONEDNN_LIMITS[0], isa)
    assert cpu_has_bfloat16() == has
