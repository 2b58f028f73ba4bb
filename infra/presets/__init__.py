"""Presets: YAML files with the settings that differ from the defaults of the configuration tree."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from infra.faults import describe_faults
from pvar.config import PipelineConfig
from pvar.errors import ConfigError

Tree = dict[str, Any]
"""A configuration as parsed from YAML, before validation."""


def preset_names() -> list[str]:
    """Names of the presets that ship with the project."""
    names = (entry.name for entry in files(__package__).iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def preset_description(name: str) -> str:
    """What a preset that ships is for: the first line of its file, a comment."""
    text = (files(__package__) / f"{name}.yaml").read_text(encoding="utf-8")
    return text.partition("\n")[0].removeprefix("# ")


def load_config(preset: str | None, changes: Sequence[str] = ()) -> PipelineConfig:
    """The configuration of a preset (a name, or a path to a YAML file) with `key=value` changes.

    Raises ConfigError for an unknown preset, invalid YAML, an unknown key, a value out of range or
    an invalid combination; the message names the key and the allowed values.
    """
    tree = read_preset(preset) if preset is not None else {}
    for change in changes:
        apply_change(tree, change)
    try:
        return PipelineConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error, preset)) from error


def is_preset(preset: str) -> bool:
    """Whether it is the name of a preset that ships, or an existing file."""
    return preset in preset_names() or Path(preset).expanduser().is_file()


def read_preset(preset: str) -> Tree:
    """The settings of a preset (a name, or a path to a YAML file), not yet validated."""
    if preset in preset_names():
        text = (files(__package__) / f"{preset}.yaml").read_text(encoding="utf-8")
    else:
        path = Path(preset).expanduser()
        if not path.is_file():
            what = "a folder" if path.is_dir() else "neither a preset nor an existing file"
            raise ConfigError(
                f"{preset!r} is {what}; give a YAML file, or a preset: {', '.join(preset_names())}"
            )
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is no UTF-8 text ({error}); save it as UTF-8") from error
        except OSError as error:
            raise ConfigError(f"{path} cannot be read ({error.strerror}); check it") from error
    tree = read_yaml(text, preset)
    if not tree:
        raise ConfigError(
            f"{preset} has no keys; write what differs from the defaults, such as `policy: "
            "org/name`, or give no preset to run the defaults alone"
        )
    return tree


def read_yaml(text: str, name: str) -> Tree:
    """The keys and values of a YAML text; `name` is for errors (ConfigError)."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is invalid YAML: {yaml_fault(error)}") from error
    if not isinstance(tree, Mapping | None):
        raise ConfigError(
            f"{name} has a {type(tree).__name__}; it must have keys and values, such as "
            "`policy: org/name`"
        )
    return dict(tree or {})


def yaml_fault(error: yaml.YAMLError) -> str:
    """What is wrong where, in one line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    advice = "; indent with spaces" if "\\t" in str(error.problem) else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}{advice}"


def apply_change(tree: Tree, change: str) -> None:
    """Set one dotted key (`key=value`) to a value, which is parsed as YAML."""
    key, separator, text = change.partition("=")
    if not separator or not key:
        raise ConfigError(
            f"--set {change!r} is not key=value; write, for example, --set sample.num_responses=4"
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--set {change!r}: the value is invalid YAML: {yaml_fault(error)}; quote the whole "
            "--set in the shell"
        ) from error
    *parents, last = key.split(".")
    for parent in parents:
        below = tree.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(f"--set {key}: {parent!r} is a value and has no keys below it")
        tree = below
    tree[last] = value


def _explain(error: ValidationError, preset: str | None) -> str:
    lines = [f"the configuration{f' of preset {preset!r}' if preset else ''} is invalid:"]
    lines += [f"  {fault}" for fault in describe_faults(error, PipelineConfig)]
    lines.append("`pvar schema` lists every key with its range")
    return "\n".join(lines)
