"""Options that several commands share."""

from typing import Annotated

from cyclopts import Parameter

PresetOption = Annotated[str | None, Parameter(name=["--preset", "-p"])]
"""Name of a preset that ships with the project, or path of a YAML file."""

SetOption = Annotated[tuple[str, ...], Parameter(name="--set", negative=())]
"""`key=value` changes, such as `sample.num_responses=4`; values are read as YAML."""
