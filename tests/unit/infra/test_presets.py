"""Every preset that ships: it loads, it fits the form, and the command line can say the same."""

import json
from collections.abc import Mapping
from importlib.resources import files

import jsonschema
import pytest
import yaml

from infra import presets
from infra.presets import load_config, preset_names
from pvar.config import PipelineConfig

SHIPPED = preset_names()


def tree_of(name: str) -> dict[str, object]:
    """The preset as its file has it."""
    tree: dict[str, object] = yaml.safe_load((files(presets) / f"{name}.yaml").read_text())
    return tree


def leaves(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Dotted key → value; a list is a value."""
    found: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def test_the_demo_ships() -> None:
    assert "demo" in SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_preset_fits_the_forms_schema(name: str) -> None:
    jsonschema.validate(tree_of(name), PipelineConfig.model_json_schema())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_preset_is_all_that_its_file_says(name: str) -> None:
    config = leaves(load_config(name).model_dump(mode="json"))
    for key, value in leaves(tree_of(name)).items():
        # A reward model may leave out what has a default.
        assert config[key] == value or key == "score.reward_models"


@pytest.mark.parametrize("name", SHIPPED)
def test_the_command_line_and_a_form_can_say_what_a_preset_says(name: str) -> None:
    config = load_config(name)
    changes = [f"{key}={json.dumps(value)}" for key, value in leaves(tree_of(name)).items()]
    assert load_config(None, changes) == config
    assert PipelineConfig.model_validate_json(config.model_dump_json()) == config
