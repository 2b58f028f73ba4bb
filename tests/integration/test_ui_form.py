"""The run form of Prefect's UI in a real browser: opened, changed, submitted, and the run watched.

The form is made by the configuration tree. Chromium is Debian's (`.ci/services chromium`); pictures
of the form and of the finished run stay in pytest's temporary folder.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Page, Response, expect, sync_playwright
from prefect import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun

from flows.deployment_specs import packaged_folder
from flows.deployments import deploy
from pvar.config import PipelineConfig
from pvar.retrain_decision import RetrainConfig
from tests.services import prefect_server
from tests.services.prefect_server import PrefectServer
from tests.services.processes import NEVER_SECONDS, require, wait_until
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import fake_settings, write_prompts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.service,
    # Raised inside libraries, on ways that this project does not choose.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Site(NamedTuple):
    """Prefect's UI in a browser, with a worker that takes the runs."""

    server: PrefectServer
    page: Page

    @property
    def address(self) -> str:
        return self.server.api.removesuffix("/api")

    def run(self, deployment: str, label: str, value: str, pictures: Path) -> dict[str, Any]:
        """Open the form, fill the first input below `label`, submit, and watch the run end.

        Returns the configuration that it ran with.
        """
        with self.server.is_ours(), get_client(sync_client=True) as client:
            identity = client.read_deployment_by_name(deployment).id

            def runs() -> list[FlowRun]:
                only = DeploymentFilter(id=DeploymentFilterId(any_=[identity]))
                return client.read_flow_runs(deployment_filter=only)

            self.page.goto(f"{self.address}/deployments/deployment/{identity}/run")
            expect(self.page.get_by_text("The model to improve. It")).to_be_visible()
            field = f"xpath=//label[contains(., '{label}')]/following::input[1]"
            self.page.locator(field).first.fill(value)
            self.page.screenshot(path=pictures / "form.png", full_page=True)
            self._submit()
            wait_until(lambda: bool(runs()), "the run")
            wait_until(lambda: all(run.state.is_final() for run in runs()), "its end")
            (run,) = runs()
        assert run.state.is_completed(), run.state
        self.page.goto(f"{self.address}/runs/flow-run/{run.id}")
        expect(self.page.get_by_text("Completed").first).to_be_visible()
        self.page.screenshot(path=pictures / "run.png", full_page=True)
        return dict(run.parameters["config"])

    def _submit(self) -> None:
        """Press the button until the form is accepted.

        On a busy machine the form takes no click while it still loads, and the server answers with
        an error while its database is locked; a person would press again.
        """
        answers: list[bool] = []

        def note(response: Response) -> None:
            if response.url.endswith("/create_flow_run"):
                answers.append(response.ok)

        self.page.on("response", note)
        while not any(answers):
            num_answers = len(answers)
            assert num_answers < 20, "the server accepts no run"
            self.page.get_by_role("button", name="Submit").click()
            for _ in range(600):  # long enough for a click that was taken: two would be two runs
                self.page.wait_for_timeout(200)  # responses are noted meanwhile
                if len(answers) > num_answers:
                    break
        self.page.remove_listener("response", note)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, migrated_home: Path) -> Iterator[Site]:
    require("chromium", ["chromium"])
    folder = tmp_path_factory.mktemp("ui")
    shutil.copytree(migrated_home, folder / "prefect")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PREFECT_UI_API_URL", "/api")
        environment.setenv("PVAR_HOME", str(folder / "home"))
        environment.setenv("PVAR_STORE_URI", str(folder / "store"))
        environment.setenv("PVAR_MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        policy = str(save_language_model(folder / "policy"))
        config = PipelineConfig.model_validate(
            fake_settings(
                write_prompts(folder / "prompts.jsonl"),
                **{"policy": policy, "evaluate.opponent": policy, "train.max_length_tokens": 2000},
            )
        )
        with prefect_server.running(folder / "prefect") as server, sync_playwright() as playwright:
            with server.is_ours():
                deploy(packaged_folder(), ("process",), config=RetrainConfig(pipeline=config))
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium",
                args=["--no-sandbox"],
                timeout=1000 * NEVER_SECONDS,
            )
            with server.worker("pvar-process"):
                page = browser.new_page(viewport={"width": 1280, "height": 2000})
                page.set_default_timeout(1000 * NEVER_SECONDS)
                expect.set_options(timeout=1000 * NEVER_SECONDS)
                yield Site(server, page)
            browser.close()


def test_a_stage_is_started_from_its_form(site: Site, tmp_path: Path) -> None:
    config = site.run("ingest/ingest-process", "Eval Fraction", "0.25", tmp_path)
    assert config["ingest"]["eval_fraction"] == 0.25


def test_the_pipeline_is_started_from_its_form(site: Site, tmp_path: Path) -> None:
    config = site.run("pipeline/pipeline", "Num Responses", "3", tmp_path)
    assert config["sample"]["num_responses"] == 3
