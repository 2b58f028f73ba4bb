"""All services on one machine, without Docker: Prefect server, MLflow server, a process worker.

    {PVAR_HOME}/serve/prefect/    Prefect's home with its database
    {PVAR_HOME}/serve/logs/       output of each process
    {PVAR_HOME}/serve/lock        held while it runs
    {PVAR_HOME}/mlflow.db, store/ shared with `pvar run`, so its earlier runs are shown

The servers bind to loopback only, because access to them allows running code as this user. Clients
write models and files directly to the store, so the MLflow server does not proxy artifacts.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

from filelock import lock_descriptor

from flows.deployment_specs import packaged_folder
from flows.deployments import deploy
from flows.server import connected_client
from flows.services import Services
from infra.mlflow_database import ready_database
from infra.mlflow_errors import mlflow_errors_explained
from infra.settings import Settings, make_folder
from infra.store import open_store
from infra.tracking import Tracking, experiment_page
from pvar.errors import ConfigError
from pvar.retrain_decision import RetrainConfig
from tasks.engine.child_processes import child_environment

LOOPBACK = "127.0.0.1"
POOL = "pvar-process"


class Addresses(NamedTuple):
    """Addresses of the two servers."""

    prefect: str
    mlflow: str

    @property
    def prefect_api(self) -> str:
        """The value of PREFECT_API_URL."""
        return f"{self.prefect}/api"


def serve(
    settings: Settings,
    config: RetrainConfig,
    *,
    preset: str | None,
    prefect_port: int,
    mlflow_port: int,
    on_ready: Callable[[Addresses, str], None],
) -> None:
    """Start the services, register the deployments, call `on_ready`, and run until interrupted.

    `on_ready` gets the addresses, and that of the experiment in MLflow's UI.

    Port 0 means any free port. KeyboardInterrupt stops the services. No process is left when this
    function returns or raises. Raises ConfigError if a port is in use or if another `pvar serve`
    uses the home, TrackingError if MLflow's database cannot be used, and StageError if a process
    ends unexpectedly.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    backend = settings.mlflow_tracking_uri
    if backend.startswith("http"):
        raise ConfigError(
            "PVAR_MLFLOW_TRACKING_URI (or MLFLOW_TRACKING_URI) is the address of a server; "
            "unset it, or give a database such as sqlite:////folder/mlflow.db"
        )
    if prefect_port == mlflow_port != 0:
        raise ConfigError(
            f"port {prefect_port} cannot be used for both servers; give another with --port or "
            "--mlflow-port"
        )
    settings = settings.model_copy(update={"store_uri": open_store(settings.store_uri).uri})
    folder = settings.home.absolute() / "serve"
    with _only_one(folder) as note:
        addresses = Addresses(
            f"http://{LOOPBACK}:{_port(prefect_port, 'Prefect', '--port')}",
            f"http://{LOOPBACK}:{_port(mlflow_port, 'MLflow', '--mlflow-port')}",
        )
        environment = _environment(settings, addresses, folder)
        with Services(folder / "logs") as services:
            _start_servers(services, environment, addresses, settings)
            with temporary_settings({PREFECT_API_URL: addresses.prefect_api}):
                deploy(packaged_folder(), ("process",), config=config, preset=preset)
                _start_worker(services, environment)
            experiment = Tracking(addresses.mlflow, settings.store_uri).experiment
            note(f"{addresses.prefect} and {addresses.mlflow}")
            on_ready(addresses, experiment_page(addresses.mlflow, experiment))
            services.wait()


def _environment(settings: Settings, addresses: Addresses, folder: Path) -> dict[str, str]:
    """Environment of all processes. Runs have another working folder, so paths are absolute."""
    return {
        **child_environment(),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": addresses.prefect_api,
        "PREFECT_UI_URL": addresses.prefect,  # links in notifications
        "PREFECT_UI_API_URL": "/api",  # its default has port 4200
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PVAR_HOME": str(settings.home.absolute()),
        "PVAR_STORE_URI": settings.store_uri,
        "PVAR_MLFLOW_TRACKING_URI": addresses.mlflow,
    }


def _start_servers(
    services: Services, environment: dict[str, str], addresses: Addresses, settings: Settings
) -> None:
    host, prefect_port = addresses.prefect.removeprefix("http://").split(":")
    mlflow_port = addresses.mlflow.rpartition(":")[2]
    services.start(  # it creates and upgrades its own database
        "Prefect server",
        "flows.prefect_database",
        *("server", "start", "--host", host, "--port", prefect_port),
        environment=environment,
    )
    with mlflow_errors_explained(settings.mlflow_tracking_uri):
        ready_database(settings.mlflow_tracking_uri, upgrade=True)
    mlflow = {
        # Environment variables, because a database address can contain a password.
        "MLFLOW_BACKEND_STORE_URI": settings.mlflow_tracking_uri,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": f"{settings.store_uri.rstrip('/')}/mlflow",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    services.start(
        "MLflow server",
        "mlflow",
        *("server", "--host", host, "--port", mlflow_port, "--workers", "1"),
        "--no-serve-artifacts",
        environment={**environment, **mlflow},
    )
    services.wait_until(lambda: _answers(f"{addresses.prefect_api}/health"), "Prefect server")
    services.wait_until(lambda: _answers(f"{addresses.mlflow}/health"), "MLflow server")


def _start_worker(services: Services, environment: dict[str, str]) -> None:
    services.start(
        "worker",
        "prefect",
        *("worker", "start", "--pool", POOL, "--name", socket.gethostname()),
        environment=environment,
    )
    with connected_client() as client:
        services.wait_until(lambda: bool(client.read_workers_for_work_pool(POOL)), "the worker")


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=2):  # noqa: S310  an address of ours
            return True
    except (URLError, OSError):
        return False


def _port(wanted: int, server: str, option: str) -> int:
    """The port, or a free one for 0. Raises ConfigError if the port is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, wanted))
        except OSError as error:
            raise ConfigError(
                f"port {wanted} for {server} cannot be used: {error.strerror}; give another with "
                f"{option}, or {option} 0 for any free one"
            ) from error
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _only_one(folder: Path) -> Iterator[Callable[[str], None]]:
    """Lock the folder. The yielded function records the address for the error message of others."""
    make_folder(folder)
    with (folder / "lock").open("a+", encoding="utf-8") as lock:
        if not lock_descriptor(lock.fileno(), blocking=False):
            lock.seek(0)
            raise ConfigError(
                f"{folder.parent} is already served by {lock.read().strip()}; use that one, stop "
                "it with Ctrl-C, or set another PVAR_HOME for this one"
            )

        def note(where: str) -> None:
            lock.truncate(0)
            lock.write(f"process {os.getpid()} at {where}\n")
            lock.flush()

        note("an address that is not yet known")
        yield note
