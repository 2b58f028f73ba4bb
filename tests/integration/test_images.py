"""The images of the stages, built for real and looked into."""

import json
import re
import shutil
from pathlib import Path

import pytest

from infra.bundled_model import BUNDLED
from tests.services.docker import BASE, ROOT, Engine

pytestmark = [pytest.mark.slow, pytest.mark.service]

TARGETS = ("cpu", "train")
"""vLLM's image takes two minutes and 1.5 GB more where nothing is built: by `make images` alone, or
by `Engine.build("sample")`, with which it was tried (docs/operations.md)."""


@pytest.fixture(params=TARGETS)
def image(request: pytest.FixtureRequest, docker_images: Engine) -> str:
    return f"pvar:{request.param}"


def run(engine: Engine, image: str, *command: str, options: tuple[str, ...] = ()) -> str:
    return engine.run("run", "--rm", "--network=none", *options, image, *command)


def packages(engine: Engine, image: str) -> dict[str, str]:
    """Distribution → version, as the image's Python finds them."""
    script = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.name: d.version for d in m.distributions()}))"
    )
    found = json.loads(run(engine, image, "python", "-c", script))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found.items()}


def test_nothing_runs_as_root(docker_images: Engine, image: str) -> None:
    assert run(docker_images, image, "id", "-u").strip() == "10001"
    with pytest.raises(RuntimeError, match="Permission denied"):
        run(docker_images, image, "touch", "/opt/pvar/bin/pvar")


def test_packages_are_those_of_the_lock_file(docker_images: Engine, image: str) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    pinned = dict(re.findall(r"^([a-z0-9.-]+)==([^ ]+)", lock, flags=re.MULTILINE))
    pinned |= {model.distribution: model.version for model in BUNDLED.values()}
    found = packages(docker_images, image)
    unpinned = {"pvar", "torch"}  # torch's build depends on the machine
    assert {name: pinned.get(name) for name in found.keys() - unpinned} == {
        name: version for name, version in found.items() if name not in unpinned
    }


def test_stages_without_a_model_carry_no_torch_the_others_the_demos_model_too(
    docker_images: Engine,
) -> None:
    models = {"torch", "transformers", "trl", *(model.distribution for model in BUNDLED.values())}
    assert models & packages(docker_images, "pvar:cpu").keys() == set()
    assert models <= packages(docker_images, "pvar:train").keys()


def test_images_share_their_lower_layers(docker_images: Engine) -> None:
    """Only the project itself, last, and what training adds (packages, a model) are not shared."""
    cpu, train = (docker_images.inspect(f"pvar:{name}")["RootFS"]["Layers"] for name in TARGETS)
    *shared, _ = cpu
    assert train[: len(shared)] == shared
    assert len(train) == len(cpu) + 2


def test_nothing_of_where_it_was_built_stays(docker_images: Engine, image: str) -> None:
    """Certificates, wheels and settings of the machine are in BUILD_IMAGE only."""
    certificates = "/etc/ssl/certs/ca-certificates.crt"
    checksum = run(docker_images, image, "sha256sum", certificates)
    assert checksum == run(docker_images, BASE, "sha256sum", certificates)
    assert run(docker_images, image, "sh", "-c", "ls -d /wheels /src /layers /opt/uv || true") == ""
    history = docker_images.run("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    described = json.dumps(docker_images.inspect(image)["Config"]) + history
    assert re.findall(r"PIP_|UV_|SSL_|CERT|PASSWORD|SECRET|TOKEN", described) == []


def test_the_engine_is_sent_nothing_but_the_project(docker_engine: Engine, tmp_path: Path) -> None:
    planted = (
        ".env",
        "docker/.env",
        "infra/.env.local",
        ".pvar/store/rows",
        ".git/config",
        "notes",
    )
    sent = (
        "pvar/errors.py",
        "infra/presets/demo.yaml",
        "requirements.lock",
        "docker/install-layer",
    )
    for name in planted + sent:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("planted")
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    recipe = tmp_path.with_name("Dockerfile.context")
    recipe.write_text("FROM scratch\nCOPY . /\n")
    tag = "pvar-tests/context"
    docker_engine.run("build", "--tag", tag, "--file", str(recipe), str(tmp_path))
    container = docker_engine.run("create", tag, "nothing").strip()
    archive = tmp_path.with_name("context.tar")
    docker_engine.run("export", "--output", str(archive), container)
    docker_engine.run("rm", container)
    names = archive.read_bytes()
    assert [name for name in planted if name.encode() in names] == []
    assert [name for name in sent if name.encode() not in names] == []


def test_the_command_line_works_and_nothing_is_amiss_inside(
    docker_images: Engine, image: str
) -> None:
    """Where no stage loads a model, its packages are not missed."""
    report = run(docker_images, image, "pvar", "doctor", options=("--env", "COLUMNS=200"))
    store = "file:///var/lib/pvar/store: written and read; honours put-if-absent"
    assert re.search(rf"✓ +configuration and store +{re.escape(store)}", report)
    assert re.search(r"✓ +MLflow +sqlite:", report)
    torch = "✓" if image == "pvar:train" else "–"
    assert re.search(rf"{torch} +torch ", report)


def test_a_container_whose_server_does_not_answer_is_unhealthy(
    docker_images: Engine, image: str
) -> None:
    assert docker_images.inspect(image)["Config"]["Healthcheck"]["Test"] == ["CMD", "healthcheck"]
    assert run(docker_images, image, "healthcheck") == ""
    dead = ("--env", "PREFECT_API_URL=http://127.0.0.1:9/api")
    with pytest.raises(RuntimeError, match=r"server at http://127\.0\.0\.1:9/api does not answer"):
        run(docker_images, image, "healthcheck", options=dead)
    with pytest.raises(RuntimeError, match="/var/lib/pvar cannot be written"):
        run(docker_images, image, "healthcheck", options=("--read-only",))
