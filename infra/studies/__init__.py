"""Studies: YAML files of the arms to compare, by name or path.

A study file has the keys of `StudyConfig`, and `preset`: the preset (a name, or a path from the
file's folder) whose settings the keys below `pipeline` change.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from infra.faults import describe_faults
from infra.presets import Tree, apply_change, preset_names, read_preset, read_yaml
from pvar.errors import ConfigError
from pvar.study_config import StudyConfig


def study_names() -> list[str]:
    """Names of the studies that ship with the project."""
    names = (entry.name for entry in files(__package__).iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def load_study(
    study: str | None,
    *,
    preset: str | None = None,
    changes: Sequence[str] = (),
    options: Mapping[str, object] | None = None,
) -> StudyConfig:
    """The configuration of a study (a name, or a path to a YAML file).

    `preset` and `changes` (`key=value`) are of the pipeline, `options` of the study; they take
    precedence over the file. Raises ConfigError for what is unknown or invalid; the message names
    the key and the allowed values.
    """
    tree = {} if study is None else _read(study)
    given = tree.pop("preset", None)
    pipeline: Tree = {}
    if preset is not None:
        pipeline = read_preset(preset)
    elif given is not None:
        pipeline = read_preset(_beside(study, str(given)))
    below = tree.get("pipeline", {})
    if not isinstance(below, dict):
        raise ConfigError(f"{study}: pipeline is {below!r}; it must have keys and values")
    pipeline = _merged(pipeline, below)
    for change in changes:
        apply_change(pipeline, change)
    tree |= {"pipeline": pipeline, **(options or {})}
    try:
        return StudyConfig.model_validate(tree)
    except ValidationError as error:
        lines = [f"the study{f' {study}' if study else ''} is invalid:"]
        lines += [f"  {fault}" for fault in describe_faults(error, StudyConfig)]
        lines.append("docs/reference/configuration.md lists every key")
        raise ConfigError("\n".join(lines)) from error


def _read(study: str) -> Tree:
    if study in study_names():
        return read_yaml((files(__package__) / f"{study}.yaml").read_text("utf-8"), study)
    path = Path(study).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"{study!r} is neither a study nor an existing file; studies: "
            f"{', '.join(study_names())}"
        )
    try:
        return read_yaml(path.read_text(encoding="utf-8"), study)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _beside(study: str | None, preset: str) -> str:
    """The preset's name, or its path from the folder of the study's file."""
    if study is None or preset in preset_names() or Path(preset).is_absolute():
        return preset
    return str(Path(study).expanduser().parent / preset)


def _merged(tree: Tree, changes: Tree) -> Tree:
    """The tree with the values of `changes`; mappings are merged, all other values replaced."""
    merged = dict(tree)
    for key, value in changes.items():
        before = merged.get(key)
        both = isinstance(before, dict) and isinstance(value, dict)
        merged[key] = _merged(before, value) if both else value  # type: ignore[arg-type]
    return merged
