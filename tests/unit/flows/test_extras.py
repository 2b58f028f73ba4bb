"""A failed import says which extra is missing, or which folder hides a package of ours."""

import json
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from flows import extras
from flows.extras import explain_import, extra_of, how_to_install, installed_from

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("prefect", "workflow"), ("mlflow", "workflow"), ("filelock", "workflow"),
        ("huggingface_hub", "workflow"), ("botocore", "workflow"), ("vaderSentiment", "workflow"),
        ("torch", "pipeline"), ("trl", "pipeline"), ("psycopg2", "containers"),
        ("prefect_docker", "containers"), ("lm_eval", "lm-eval"), ("vllm", "vllm"),
    ],
)  # fmt: skip
def test_each_library_is_named_with_its_extra(
    module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "ROOT", Path("/site-packages"))
    assert extra_of(module) == extra
    said = explain_import(ModuleNotFoundError("none", name=f"{module}.part"))
    assert said is not None
    assert said.startswith(f"{module} is not installed")
    assert f"pip install 'pvar[{extra}]'" in said


def test_every_requirement_of_an_extra_is_understood() -> None:
    """As pyproject.toml has them: a bound, an extra or a comma must not hide one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra, requirements in project["optional-dependencies"].items():
        for requirement in requirements:
            name = requirement.split(">=")[0].split("<")[0].split("[")[0]
            assert name == "pvar" or extra_of(name) is not None, (extra, requirement)


@pytest.mark.parametrize("module", ["numpy", "left_pad", ""])
def test_what_no_extra_brings_is_a_bug(module: str) -> None:
    assert explain_import(ModuleNotFoundError("none", name=module)) is None
    assert explain_import(ImportError("cannot import name", name="prefect")) is None


def test_a_checkout_is_set_up_with_make() -> None:
    assert how_to_install("workflow") == "run: make setup"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "file:///my%20wheels/pvar-0.1.0-py3-none-any.whl",
            "/my wheels/pvar-0.1.0-py3-none-any.whl",
        ),
        ("file:///checkout", "pvar"),
        ("https://host/pvar-0.1.0-py3-none-any.whl", "pvar"),
        (None, "pvar"),
    ],
)
def test_a_wheel_is_named_by_its_file(url: str | None, said: str, tmp_path: Path) -> None:
    """An index may have no pvar, or another one of that name."""
    (tmp_path / "METADATA").write_text("Name: pvar\nVersion: 0.1.0\n")
    if url is not None:
        (tmp_path / "direct_url.json").write_text(json.dumps({"url": url, "archive_info": {}}))
    assert installed_from(metadata.Distribution.at(tmp_path)) == said


@pytest.mark.parametrize("package", ["tasks", "infra"])
def test_a_folder_that_hides_a_package_of_ours_is_named(package: str, tmp_path: Path) -> None:
    """A user's own `tasks/` on PYTHONPATH."""
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    script = "import sys; sys.path.append(sys.argv[2]); import flows.cli; flows.cli.main(['runs'])"
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(ROOT)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert f"another package named '{package}' hides pvar's: {tmp_path}" in ended.stderr
    assert "Traceback" not in ended.stderr
