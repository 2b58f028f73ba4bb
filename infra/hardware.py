"""The number formats that this machine computes natively, according to PyTorch."""

import os
import platform
import re

from pvar.number_format import Hardware, NumberFormat

ONEDNN_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that restrict PyTorch's matrix products to older instructions."""

TENSOR_CORES = (7, 0)
"""Compute capability from which float16 is faster than float32 (Volta)."""


def read_hardware() -> Hardware:
    """The first visible GPU, else the CPU."""
    import torch

    native: set[NumberFormat] = set()
    if torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            native.add("bfloat16")
        if torch.cuda.get_device_capability() >= TENSOR_CORES:
            native.add("float16")
        return Hardware(torch.cuda.get_device_name(), frozenset(native))
    if cpu_has_bfloat16():
        native.add("bfloat16")
    return Hardware(f"this CPU ({torch.backends.cpu.get_cpu_capability()})", frozenset(native))


def cpu_has_bfloat16() -> bool:
    """Whether the CPU has usable bfloat16 instructions (AVX512_BF16, AMX, Arm's BF16).

    `torch.ops.mkldnn._is_mkldnn_bf16_supported` is true for any AVX-512, so on x86 the CPU's
    instruction flags are checked.
    """
    import torch

    if platform.machine().lower() in ("aarch64", "arm64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    has = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    may = torch.backends.cpu.get_cpu_capability().startswith(("AVX512", "AMX"))
    return has and may and not _is_limited()


def _is_limited() -> bool:
    """Whether oneDNN is restricted to instructions without bfloat16."""
    limits = (os.environ.get(name, "") for name in ONEDNN_LIMITS)
    return any(
        limit and re.search("BF16|FP16|AMX|AVX10|ALL|DEFAULT", limit.upper()) is None
        for limit in limits
    )
