"""The forms of the deployments in Prefect's UI, made from the flows without a server."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.schema_tools.validation import (
    build_error_obj,
    is_valid_schema,
    validate,
)

from flows.deployment_specs import packaged_folder, read_project
from flows.deployments import default_parameters, form_schema
from infra.presets import load_config
from pvar.errors import ConfigError
from pvar.retrain_decision import RetrainConfig

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PROJECT = read_project(packaged_folder())
ENTRYPOINTS = {spec.name: spec.entrypoint for spec in PROJECT.deployments}
SPECS = {spec.deployed_name: spec for spec in (*PROJECT.deployments, *PROJECT.stage_deployments())}
CONFIG = RetrainConfig(pipeline=load_config("demo"))


def form(name: str) -> dict[str, Any]:
    """The schema of a form, as `pvar deploy` registers it."""
    flow: Any = load_flow_from_entrypoint(SPECS[name].entrypoint)
    return form_schema(flow, SPECS[name], values(name))


def values(name: str) -> dict[str, Any]:
    """What the form opens with."""
    return copy.deepcopy(default_parameters(SPECS[name], CONFIG, "demo"))


def drawn(schema: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    """Paths of the fields that the form draws: of tabs, the first one that the values are of."""
    if "$ref" in schema:
        schema = {**definitions[schema["$ref"].rpartition("/")[2]], **schema}
    if tabs := schema.get("anyOf"):
        if "default" in schema and schema["default"] is None:
            return [""]
        return drawn(tabs[0], definitions) or [""]
    if "properties" not in schema:
        return [] if schema.get("type") == "object" else [""]
    return [
        f"{name}.{path}".rstrip(".")
        for name, each in sorted(
            schema["properties"].items(), key=lambda at: at[1].get("position", 0)
        )
        for path in drawn(each, definitions)
    ]


def faults(name: str, key: str, value: Any) -> Any:
    """What Prefect's server says of a form with another value."""
    changed = values(name)
    *parents, last = key.split(".")
    branch = changed["config"]
    for parent in parents:
        branch = branch[parent]
    branch[last] = value
    return build_error_obj(validate(changed, form(name)))


FIRST_FIELDS = [
    *("policy", "ingest.source", "ingest.eval_fraction"),
    *("sample.engine", "sample.num_responses", "sample.max_new_tokens", "sample.temperature"),
    *("score.reward_models", "select.strategy", "select.budget.fraction", "select.budget.count"),
    *("select.budget.tokens", "train.method", "train.beta", "train.learning_rate"),
    *("train.num_epochs", "train.lora", "evaluate.judge", "evaluate.opponent", "evaluate.prompts"),
    *("promote.model_name", "promote.mode", "promote.min_win_rate", "promote.max_ability_loss"),
]
"""What a person changes first, in the order of the form."""


def test_the_form_of_the_pipeline_opens_with_what_a_person_changes_first() -> None:
    schema = form("pipeline")
    fields = drawn(schema["properties"]["config"], schema["definitions"])
    opened = dict.fromkeys(re.sub(r"(judge|lora)\..*", r"\1", field) for field in fields)
    assert list(opened)[: len(FIRST_FIELDS)] == FIRST_FIELDS
    assert len(opened) < 40
    for name, most in (("retrain", 20), ("compare", 25), ("benchmark", 20)):
        schema = form(name)
        assert len(drawn(schema["properties"]["config"], schema["definitions"])) < most, name


def test_every_setting_is_in_a_tab_and_described() -> None:
    schema = form("pipeline")
    for name, details in schema["definitions"]["PipelineConfig"]["properties"].items():
        assert details["description"], name
        if "then" in details:
            _, whole = details["anyOf"]
            assert whole["allOf"] == [details["then"]]
            assert details["then"]["$ref"].rpartition("/")[2] in schema["definitions"]
            # A tab with properties of its own is taken for the one that the values are of; one
            # with a default is left again by the form.
            assert not {"properties", "default"} & whole.keys()
            given = values("pipeline")["config"][name]
            model = schema["definitions"][details["then"]["$ref"].rpartition("/")[2]]
            assert {
                setting: each["default"] for setting, each in model["properties"].items()
            } == given


@pytest.mark.parametrize("name", ["pipeline", "retrain", "compare", "benchmark", "sample-process"])
def test_the_values_that_a_form_opens_with_are_valid(name: str) -> None:
    is_valid_schema(form(name))
    assert validate(values(name), form(name)) == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("sample.num_responses", 1, "1 is less than the minimum of 2"),  # of the main settings
        ("sample.top_p", 7, "7 is greater than the maximum of 1"),
        ("runtime.lease_seconds", 1, "1 is less than the minimum of 5"),
        ("select.budget.fraction", 3, "3 is not valid under any of the given schemas"),
    ],
)
def test_a_value_out_of_bounds_is_named_wherever_it_stands(key: str, value: Any, said: str) -> None:
    expected: Any = said
    for part in ("config", *key.split("."))[::-1]:
        expected = {"property": part, "errors": [expected]}
    assert faults("pipeline", key, value) == {"errors": [expected], "valid": False}


def test_a_stage_opens_with_its_own_settings() -> None:
    schema = form("ingest-process")
    fields = drawn(schema["properties"]["config"], schema["definitions"])
    assert [field for field in fields if "." in field] == ["ingest.source", "ingest.eval_fraction"]


@pytest.mark.parametrize("name", sorted(ENTRYPOINTS))
def test_each_deployment_has_a_form_that_is_json(name: str) -> None:
    assert "config" in json.loads(json.dumps(form(name)))["properties"]


def test_the_form_of_benchmark_has_models_and_benchmarks_beside_the_configuration() -> None:
    schema = form("benchmark")
    assert set(schema["properties"]) == {"config", "models", "benchmarks"}
    assert schema["required"] == ["config"]
    assert "outputs:FILE" in schema["properties"]["models"]["description"]
    kinds = schema["definitions"]["PipelineConfig"]["properties"]["benchmarks"]["items"]
    assert set(kinds["discriminator"]["mapping"]) == {
        *("alpaca_eval", "arena_hard", "lm_eval", "label_agreement"),
    }


def test_benchmark_takes_what_its_form_gives() -> None:
    """Prefect validates the JSON of the form against the signature."""
    flow: Any = load_flow_from_entrypoint(ENTRYPOINTS["benchmark"])
    benchmark = {"kind": "lm_eval", "tasks": ["gsm8k"], "backend": "fake"}
    config = load_config("demo").model_dump(mode="json") | {"benchmarks": [benchmark]}
    given = flow.validate_parameters({"config": config, "models": ["champion"]})
    assert given["config"].benchmarks[0].tasks == ("gsm8k",)
    assert given["models"] == ["champion"]


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ('{cron: "17 3 * * *", timezone: PST}', 'Invalid timezone: "PST"'),
        ('{cron: "61 3 * * *", timezone: UTC}', r'Invalid cron string: "61 3 \* \* \*"'),
    ],
)
def test_a_schedule_that_prefect_refuses_is_named_before_anything_is_registered(
    schedule: str, said: str, tmp_path: Path
) -> None:
    shipped = (packaged_folder() / "prefect.yaml").read_text()
    assert shipped.count('{cron: "17 3 * * *", timezone: UTC}') == 1
    changed = shipped.replace('{cron: "17 3 * * *", timezone: UTC}', schedule)
    (tmp_path / "prefect.yaml").write_text(changed)
    with pytest.raises(
        ConfigError, match=rf"prefect\.yaml: deployments\.\d+\.schedules\.0: {said}"
    ):
        read_project(tmp_path)
