"""Study files: presets, changes, options, and clear errors."""

from pathlib import Path

import pytest

from infra.presets import load_config
from infra.studies import load_study, study_names
from pvar.errors import ConfigError

STUDY = """
question: Does it pay?
preset: base.yaml
pipeline:
  train: {learning_rate: 1.0e-4}
arms:
  - name: random
    settings: {select.strategy: random}
  - name: top
    settings: {select.strategy: top}
seeds: [0, 1]
"""


@pytest.fixture
def study(tmp_path: Path) -> str:
    (tmp_path / "base.yaml").write_text("train: {pairs_per_step: 4, learning_rate: 1.0e-5}\n")
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return str(path)


def test_a_file_changes_its_preset_and_options_change_both(study: str) -> None:
    config = load_study(study, changes=["train.beta=0.3"], options={"seeds": (5,), "at_once": 2})
    train = config.pipeline.train
    assert (train.pairs_per_step, train.learning_rate, train.beta) == (4, 1e-4, 0.3)
    assert (config.seeds, config.at_once, config.question) == ((5,), 2, "Does it pay?")


def test_a_preset_given_replaces_that_of_the_file(study: str) -> None:
    assert load_study(study, preset="demo").pipeline.train.lora is not None


def test_every_study_that_ships_is_valid() -> None:
    for name in study_names():
        study = load_study(name)
        assert study.arms
        on_gpu = study.pipeline.policy != load_config("demo").policy
        device = "of one 80 GB GPU" if on_gpu else "on two CPU cores"
        assert device in study.expected_cost, f"{name} does not say what it costs"


def test_errors_name_the_key_and_the_file(study: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'nothing' is neither a study nor an existing file"):
        load_study("nothing")
    Path(study).write_text(STUDY + "sedes: 3\n")
    with pytest.raises(ConfigError, match=r"sedes: there is no such key.*did you mean seeds"):
        load_study(study)
    Path(study).write_text("arms: [")
    with pytest.raises(ConfigError, match=r"study\.yaml is invalid YAML"):
        load_study(study)
    Path(study).write_text(STUDY.replace("base.yaml", "gone.yaml"))
    with pytest.raises(ConfigError, match=r"gone\.yaml' is neither a preset nor"):
        load_study(study)
