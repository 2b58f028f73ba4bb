"""An MLflow server of the tests' own, on a database of its own, which a test may stop and start."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.processes import answers, free_port, wait_until
from tests.services.registry import empty_database


class MlflowServer:
    """A server on one port and one database. It asks for no password and takes any."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._database = shutil.copy(empty_database(), folder / "mlflow.db")

    @property
    def address(self) -> str:
        """With which a process reaches it."""
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """It answers until the body ends, and keeps what it was told."""
        with (self.folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", "--backend-store-uri",
                 f"sqlite:///{self._database}", "--host", "127.0.0.1", "--port", str(self.port),
                 "--workers", "1", "--no-serve-artifacts",
                 "--default-artifact-root", f"{self.folder}/artifacts"],
                stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )  # fmt: skip
        try:
            wait_until(
                lambda: answers(self.port) or process.poll() is not None, "the MLflow server"
            )
            assert process.poll() is None, (self.folder / "log.txt").read_text()
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
