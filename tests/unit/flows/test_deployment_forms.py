"""The forms of the deployments in Prefect's UI, made from the flows without a server."""

import json
from pathlib import Path
from typing import Any

import pytest
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from flows.deployment_specs import packaged_folder, read_project
from infra.presets import load_config
from pvar.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ENTRYPOINTS = {spec.name: spec.entrypoint for spec in read_project(packaged_folder()).deployments}


def form(name: str) -> dict[str, Any]:
    """The schema of a form, as `pvar deploy` registers it."""
    flow: Any = load_flow_from_entrypoint(ENTRYPOINTS[name])
    return dict(parameter_schema(flow).model_dump_for_openapi())


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
