"""Options shared by several commands."""

from typing import Annotated

from cyclopts import Parameter

PresetOption = Annotated[str | None, Parameter(name=["--preset", "-p"])]
"""Name of a preset that ships with the project, or path to a YAML file. It is given by position
(`pvar run my.yaml`) or by its name, not by both."""

SetOption = Annotated[tuple[str, ...], Parameter(name="--set", negative=())]
"""Changes as `key=value`, such as `sample.num_responses=4`. Values are parsed as YAML."""

JsonOption = Annotated[bool, Parameter(name="--json", negative=())]
"""The result as JSON on standard output, and nothing else there."""
