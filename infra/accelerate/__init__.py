"""Accelerate's configurations for models that are sharded over the GPUs of one machine.

fsdp.yaml          fully sharded data parallelism (PyTorch's version 2)
deepspeed.yaml     DeepSpeed's ZeRO stage 3; needs the package `deepspeed`

Tests load and validate them; no GPU was at hand to run them on. The number of processes comes from
`runtime.num_processes`.
"""

from importlib.resources import files
from pathlib import Path


def launch_file(name: str) -> Path:
    """Path of the configuration with this name."""
    return Path(str(files(__package__) / f"{name}.yaml"))
