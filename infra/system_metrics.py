"""Metrics of the machine in MLflow while a run works: processors, memory, disk, network and GPUs.

Shorter runs have none: a run that only finds its artifact complete does not wait for them.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from infra.tracking import Tracking

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

logger = logging.getLogger(__name__)

AFTER_SECONDS = 30.0
"""Work that is over before is not measured."""


@contextmanager
def system_metrics(
    tracking: Tracking, run: str, after_seconds: float = AFTER_SECONDS
) -> Iterator[None]:
    """Measure the machine during the body, from `after_seconds` on, by a thread of MLflow's.

    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL changes the 10 seconds between two samples. A failure is
    a warning.
    """
    started: list[SystemMetricsMonitor] = []

    def start() -> None:
        try:
            started.append(_started(tracking, run))
        except Exception as error:  # noqa: BLE001  the work goes on without them
            logger.warning("MLflow run %s: the machine is not measured: %s", run, error)

    timer = threading.Timer(after_seconds, start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        for monitor in started:
            monitor.finish()  # type: ignore[no-untyped-call]


def _started(tracking: Tracking, run: str) -> "SystemMetricsMonitor":
    from mlflow.system_metrics import system_metrics_monitor

    logging.getLogger(system_metrics_monitor.__name__).setLevel(logging.WARNING)
    monitor = system_metrics_monitor.SystemMetricsMonitor(  # type: ignore[no-untyped-call]
        run, tracking_uri=tracking.tracking_uri
    )
    monitor.start()  # type: ignore[no-untyped-call]
    return monitor
