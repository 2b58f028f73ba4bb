"""Accelerate's configurations that ship with the project: accelerate itself reads and takes them.

Nothing is run on them: there is no GPU here, and DeepSpeed is not installed.
"""

from pathlib import Path
from typing import get_args

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType

from infra.accelerate import launch_file
from pvar.runtime_config import RuntimeConfig


@pytest.mark.parametrize(
    ("name", "kind"),
    [("fsdp", DistributedType.FSDP), ("deepspeed", DistributedType.DEEPSPEED)],
)
def test_accelerate_takes_the_configuration(name: str, kind: DistributedType) -> None:
    config = load_config_from_file(str(launch_file(name)))  # refuses unknown keys
    assert isinstance(config, ClusterConfig)
    assert config.distributed_type == kind

    command = ["--config_file", str(launch_file(name)), "--num_processes", "2", "worker.py"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    assert arguments.num_processes == 2
    assert arguments.use_fsdp == (kind == DistributedType.FSDP)
    assert arguments.use_deepspeed == (kind == DistributedType.DEEPSPEED)


def test_every_way_of_sharding_has_its_configuration() -> None:
    names = {
        name
        for choice in get_args(RuntimeConfig.model_fields["sharding"].annotation)
        for name in get_args(choice)
    }
    assert names == {path.stem for path in launch_file("fsdp").parent.glob("*.yaml")}


def test_a_configuration_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(launch_file("fsdp").read_text() + "fsdp_confg: {}\n")
    with pytest.raises(ValueError, match="fsdp_confg"):
        load_config_from_file(str(wrong))
