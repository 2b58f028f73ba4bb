"""MLflow tracking: one parent run per pipeline run, and one child run per stage.

Models and files are uploaded to the artifact store (`{store}/mlflow`) directly, not through the
tracking server's proxy, which fails on large files.
"""

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from infra.addresses import without_credentials
from infra.mlflow_database import ready_database
from infra.mlflow_errors import (
    first_line,
    mlflow_errors_explained,
    mlflow_explained,
    unusable_mlflow,
)
from pvar.artifacts import Summary
from pvar.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

EXPERIMENT = "pvar"
KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
"""Tag of the experiment: MLflow's UI opens it on its runs. Without, it opens the view of agents and
traces, of which there are none. What a person chose there is kept."""
VIEW = "?workflowType=machine_learning"
"""The same in an address. A UI that has the switch between GenAI and model training in its corner,
as that of MLflow 3.17, reads the switch in place of the tag."""
WAITING_TAG = "pvar.waiting"
MAX_PARAMETER_CHARACTERS = 6000
MAX_DIGEST_CHARACTERS = 36
"""Of a dataset, in MLflow."""
MAX_PARAMETERS_PER_CALL = 100
MAX_METRICS_PER_CALL = 1000

CONNECT_SECONDS = 10.0
LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
"""Where a user has set none. Long: a request that is given up is sent again, and a run would be
created twice."""
_OUR_LIMITS: set[str] = set()
PROBE_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""Of the first request, in place of these: whether a server answers is known in about a minute."""


class StepFigures(NamedTuple):
    """The metrics of one step."""

    step: int
    made_at: float
    """Seconds since 1970."""
    figures: Mapping[str, float]


class DataInput(NamedTuple):
    """Data that a run reads."""

    name: str
    digest: str
    uri: str
    role: str
    """What they are to the run: `ingest.source`, or the name of a stage's input."""


def open_mlflow_client(tracking_uri: str) -> "MlflowClient":
    """A client of the tracking server or database, which is created if it is a local file."""
    # Before the import: a local database is made anew by alembic, whose log is no news to a user.
    for name, limit in LIMITS.items():
        if name not in os.environ:
            os.environ[name] = limit
            _OUR_LIMITS.add(name)
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    tracking_uri = _credentials_apart(tracking_uri)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").addFilter(_has_no_traceback)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    with mlflow_errors_explained(tracking_uri):
        ready_database(tracking_uri)
    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    # MLflow's registry over a database looks up logged models in the global address.
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    try:
        return MlflowClient(tracking_uri, registry_uri=tracking_uri)
    except MlflowException:  # it repeats the address, password and all
        scheme = tracking_uri.partition(":")[0]
        raise TrackingError(
            f"PVAR_MLFLOW_TRACKING_URI begins with {scheme}:, which MLflow does not support; use "
            "http(s)://host:port of a server, or a database such as sqlite:////folder/mlflow.db or "
            "postgresql://user:password@host/name"
        ) from None


def experiment_page(server: str, experiment: str) -> str:
    """Address of the experiment's runs in the UI of a server."""
    return f"{server.rstrip('/')}/#/experiments/{experiment}{VIEW}"


def run_page(server: str, experiment: str, run: str, tab: str = "") -> str:
    """Address of a run in the UI of a server. A tab is `artifacts`, for example."""
    where = f"{run}/{tab}" if tab else run
    return f"{server.rstrip('/')}/#/experiments/{experiment}/runs/{where}{VIEW}"


def _has_no_traceback(record: logging.LogRecord) -> bool:
    """MLflow logs what a database raises, with traceback and SQL, before it raises it, too."""
    return not record.exc_info


def _credentials_apart(tracking_uri: str) -> str:
    """A server's address without credentials, which are moved to MLflow's own variables.

    MLflow prints the address in its errors and after every run, so it must not contain them.
    """
    address = urlsplit(tracking_uri)
    if address.scheme not in ("http", "https") or "@" not in address.netloc:
        return tracking_uri
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(address.username or "")
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(address.password or "")
    return urlunsplit(address._replace(netloc=address.netloc.rpartition("@")[2]))


class Tracking:
    """Runs of one experiment. Its state is the client and the experiment, both opened lazily.

    Errors: TrackingError, and StoreError for files.
    """

    def __init__(self, tracking_uri: str, store_uri: str) -> None:
        self.tracking_uri = _credentials_apart(tracking_uri)
        self._artifact_location = f"{store_uri.rstrip('/')}/mlflow"
        self._client: MlflowClient | None = None
        self._experiment: str | None = None

    @property
    def client(self) -> "MlflowClient":
        """The client, after creating the experiment; TrackingError if it cannot be reached."""
        if self._client is None:
            client = open_mlflow_client(self.tracking_uri)
            self._experiment = _experiment(client, self._artifact_location, self.tracking_uri)
            self._client = client
        return self._client

    @property
    def is_open(self) -> bool:
        """Whether the client is there, for which MLflow was imported."""
        return self._client is not None

    @property
    def public_uri(self) -> str:
        """The address without credentials, for display."""
        return without_credentials(self.tracking_uri)

    @property
    def experiment(self) -> str:
        """Id of the experiment."""
        assert self.client
        assert self._experiment is not None
        return self._experiment

    @mlflow_explained
    def start_run(self, name: str, tags: Mapping[str, str], *, parent: str | None = None) -> str:
        """Start a run and return its id."""
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        all_tags = dict(tags)
        if parent is not None:
            all_tags[MLFLOW_PARENT_RUN_ID] = parent
        run = self.client.create_run(self.experiment, run_name=name, tags=all_tags)
        return str(run.info.run_id)

    @mlflow_explained
    def log_parameters(self, run: str, parameters: Mapping[str, object]) -> None:
        """Log flat parameters. Long values are truncated (the artifact's recipe has them whole)."""
        from mlflow.entities import Param

        entries = [
            Param(name, str(value)[:MAX_PARAMETER_CHARACTERS]) for name, value in parameters.items()
        ]
        for start in range(0, len(entries), MAX_PARAMETERS_PER_CALL):
            batch = entries[start : start + MAX_PARAMETERS_PER_CALL]
            self.client.log_batch(run, params=batch)

    @mlflow_explained
    def log_summary(self, run: str, summary: Summary) -> None:
        """Log numbers as metrics and strings as tags. Missing values are not logged."""
        import time

        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        numbers = {
            name: float(value) for name, value in summary.items() if isinstance(value, int | float)
        }
        texts = {name: value for name, value in summary.items() if isinstance(value, str)}
        self.client.log_batch(
            run,
            metrics=[Metric(name, value, now, 0) for name, value in numbers.items()],
            tags=[RunTag(name, value) for name, value in texts.items()],
        )

    @mlflow_explained
    def log_steps(self, run: str, steps: Sequence[StepFigures]) -> None:
        """Log the metrics of steps. Steps that are already logged are skipped."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, int(step.made_at * 1000), step.step)
            for step in steps
            for name, value in step.figures.items()
        ]
        for start in range(0, len(metrics), MAX_METRICS_PER_CALL):
            batch = metrics[start : start + MAX_METRICS_PER_CALL]
            self.client.log_batch(run, metrics=batch)

    @mlflow_explained
    def log_inputs(self, run: str, inputs: Mapping[str, str], store_uri: str) -> None:
        """Log the input artifacts (name → stage/digest) as datasets: lineage in MLflow's UI."""
        datasets = [
            DataInput(stage, digest, f"{store_uri}/{artifact}", name)
            for name, artifact in inputs.items()
            for stage, _, digest in [artifact.partition("/")]
        ]
        self.log_datasets(run, datasets)

    @mlflow_explained
    def log_datasets(self, run: str, inputs: Sequence[DataInput]) -> None:
        """Log what a run reads as datasets."""
        import json

        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.exceptions import MlflowException

        datasets = [
            DatasetInput(
                Dataset(
                    name=each.name,
                    digest=each.digest[:MAX_DIGEST_CHARACTERS],
                    source_type="pvar",
                    source=json.dumps({"uri": each.uri}),
                ),
                [InputTag("mlflow.data.context", each.role)],
            )
            for each in inputs
        ]
        if not datasets:
            return
        try:
            self.client.log_inputs(run, datasets)
        except MlflowException:  # most likely another worker logged the same ones just now
            self.client.log_inputs(run, datasets)

    @mlflow_explained
    def log_file(self, run: str, path: Path) -> None:
        """Save a file as an artifact of the run. TrackingError if MLflow has no such run."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.log_artifact(run, str(path))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise TrackingError(
                f"MLflow has no run {run}, so {path.name} is not there; it is in the store"
            ) from None

    @mlflow_explained
    def end_run(self, run: str, *, failed: bool, waiting: str | None = None) -> None:
        """Close the run; what it ended waiting for is its tag `pvar.waiting`."""
        if waiting is not None:
            self.client.set_tag(run, WAITING_TAG, waiting)
        self.client.set_terminated(run, "FAILED" if failed else "FINISHED")

    @mlflow_explained
    def reopen_run(self, run: str) -> None:
        """Go on with a run that ended waiting."""
        if WAITING_TAG in self.client.get_run(run).data.tags:
            self.client.delete_tag(run, WAITING_TAG)
        self.client.update_run(run, status="RUNNING")

    def end_failed_run(self, run: str) -> None:
        """Close a failed run, if MLflow answers. Never raises, so that the cause is raised."""
        try:
            self.end_run(run, failed=True)
        except Exception as error:  # noqa: BLE001  whatever it is, it comes second
            logger.warning("MLflow run %s: its end could not be logged: %s", run, first_line(error))


def _experiment(client: "MlflowClient", artifact_location: str, tracking_uri: str) -> str:
    from mlflow.exceptions import MlflowException

    with mlflow_errors_explained(tracking_uri):
        _refuse_silent_host(tracking_uri)
        with _probing():
            found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            chosen = found.tags.get(KIND_TAG, "")
            # The UI infers a kind when it shows an experiment without runs.
            if not chosen or chosen.endswith("_inferred"):
                client.set_experiment_tag(found.experiment_id, KIND_TAG, KIND)
            return str(found.experiment_id)
        try:
            kind = {KIND_TAG: KIND}
            return client.create_experiment(EXPERIMENT, artifact_location, tags=kind)
        except MlflowException:
            found = client.get_experiment_by_name(EXPERIMENT)  # made by another run just now
            if found is None:
                raise
            return str(found.experiment_id)


def _refuse_silent_host(tracking_uri: str) -> None:
    """TrackingError if nothing listens at a server's address; a proxy may reach what we cannot."""
    from requests.utils import get_environ_proxies

    address = urlsplit(tracking_uri)
    if address.scheme not in ("http", "https") or get_environ_proxies(tracking_uri):
        return
    try:
        if not address.hostname:
            raise ValueError("the address has no host")
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname, port), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:  # no such host, or a port that is no number
        raise unusable_mlflow(tracking_uri, error) from error


@contextmanager
def _probing() -> Iterator[None]:
    """MLflow's client reads its limits at every request."""
    for name in _OUR_LIMITS:
        os.environ[name] = PROBE_LIMITS[name]
    try:
        yield
    finally:
        for name in _OUR_LIMITS:
            os.environ[name] = LIMITS[name]
