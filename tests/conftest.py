"""Neighbours that many tests share. More of them live in the conftest files of subfolders."""

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

from infra.store import open_store
from pvar.ports import Store
from tests.services import ceph, schedule
from tests.services.processes import common_folder, require
from tests.services.s3 import S3Server

# By default Hypothesis fails an example that takes 200 ms, and values that are slow to make: on a
# busy machine any can.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    """Every warning is an error but that of a closed socket whose answer was not read to its end:
    libraries leave them, and the garbage collector meets the two in any order."""
    closed = r"ignore:unclosed <socket.socket \[closed\]:ResourceWarning"
    config.addinivalue_line("filterwarnings", closed)


def pytest_collection() -> None:
    """Imports make no garbage; tests that interrupt something are heard."""
    gc.disable()
    # A shell lets what it starts in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first; the order within a file stays."""
    items.sort(key=lambda item: schedule.rank(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile`, but for files that belong together."""
    if config.getoption("dist") != "loadfile":
        return None
    return schedule.Scheduling(config, log)


def pytest_collection_finish() -> None:
    """What was imported stays: to look through it again and again takes a sixth of the time."""
    gc.freeze()
    gc.enable()
    # Often, other than in the programs: what is left unclosed is found in the test that left it.
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(scope="module", autouse=True)
def _own_environment() -> Iterator[None]:
    """No file's tests see what another's left behind: MLflow writes its address there."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module", autouse=True)
def _own_garbage() -> Iterator[None]:
    """What libraries leave unclosed is found in the file that used them and ignores it."""
    yield
    gc.collect()
    gc.freeze()  # what is left stays, as after the imports


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[S3Server]:
    """A quick S3 server, in a thread; it accepts any credentials."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it would report every request
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Response, "put_object", one_at_a_time(S3Response.put_object))
        yield from _running_moto()


def one_at_a_time(put: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """moto looks whether an object is there and then puts it: of two writers with If-None-Match
    both can win, which no server of the field lets happen."""
    lock = threading.Lock()

    def put_object(response: Any) -> Any:
        with lock:
            return put(response)

    return put_object


def _running_moto() -> Iterator[S3Server]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Server(f"http://{host}:{port}", "moto-tests", "not-a-secret")
    server.stop()


@pytest.fixture(scope="session")
def ceph_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, shared by the test processes. Tests that use it are marked `service`."""
    require("ceph", ceph.PROGRAMS)
    with ceph.running(common_folder(tmp_path_factory) / "ceph") as server:
        yield server


@pytest.fixture
def file_store(tmp_path: Path) -> Store:
    """An empty store in a folder."""
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def s3_store(moto_s3: S3Server) -> Store:
    """An empty store in a bucket of the quick server."""
    return moto_s3.new_store()
