"""The record of a pipeline run: `runs/{run}.json` in the store, used to report and resume a run."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pvar.artifacts import WaitingRecord
from pvar.config import PipelineConfig
from pvar.errors import InputError, NotFoundError, UnreadableRunError
from pvar.ports import Store
from pvar.unique_name import unique_name

LATEST = "latest"
"""Names the newest run."""

INTERRUPTED = "interrupted"
"""Error of the node at which a run was ended by Ctrl-C."""

CLOCKS_DIFFER = timedelta(days=1)
"""Maximum clock difference between Prefect's server and the machine that started a run."""


class NodeRecord(BaseModel):
    """The state of one node of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    artifact: str
    """`stage/digest`."""
    state: Literal["pending", "made", "reused", "waiting", "failed"] = "pending"
    seconds: float | None = None
    error: str | None = None
    waiting: WaitingRecord | None = None
    """What it waits for. The nodes after it are pending."""

    @property
    def was_interrupted(self) -> bool:
        """Whether a person ended the run while it was made."""
        return self.state == "failed" and self.error == INTERRUPTED


class RunRecord(BaseModel):
    """A pipeline run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    started_at: datetime
    finished_at: datetime | None = None
    """None while the run is running or waiting."""
    preset: str | None
    config: PipelineConfig
    """The pinned configuration of the run."""
    mlflow_run: str
    mlflow_experiment: str
    flow_run: str | None = None
    """Id of the Prefect flow run, if Prefect can suspend and restart it."""
    nodes: tuple[NodeRecord, ...]

    @property
    def waiting_node(self) -> NodeRecord | None:
        """The node at which the run waits; None if it does not wait."""
        return next((node for node in self.nodes if node.state == "waiting"), None)

    @property
    def failed_node(self) -> NodeRecord | None:
        """The node at which the run failed or was interrupted; None if all went well so far."""
        return next((node for node in self.nodes if node.state == "failed"), None)

    def with_node(self, node: NodeRecord) -> "RunRecord":
        """The record with the record of that node replaced."""
        nodes = tuple(node if each.name == node.name else each for each in self.nodes)
        return self.model_copy(update={"nodes": nodes})


def save_run(store: Store, record: RunRecord) -> None:
    """Write the record in its current state."""
    store.write(f"runs/{record.run}.json", record.model_dump_json(indent=1).encode())


def load_run(store: Store, run: str) -> RunRecord:
    """The record of a run, by its id or the first characters of it. `latest` is the newest run.

    Raises InputError unless there is one such run, UnreadableRunError if this version cannot read
    its record.
    """
    try:
        return _read_run(store, run)
    except NotFoundError:
        return _read_run(store, find_run(store, run))


def find_run(store: Store, text: str, others: Sequence[str] = ()) -> str:
    """The id of the run that `text` begins, or of the newest for `latest`; or one of the other
    names. Raises InputError, with candidates, unless there is exactly one."""
    runs = sorted(_names(store), reverse=True)
    if not runs and (text == LATEST or not others):
        raise InputError(f"{store.uri} has no runs yet; start one: pvar run --preset demo")
    if text == LATEST:
        return runs[0]
    return unique_name(text, [*runs, *others], store.uri, "see pvar runs, and pvar show for stages")


def _read_run(store: Store, run: str) -> RunRecord:
    try:
        return RunRecord.model_validate_json(store.read(f"runs/{run}.json"))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise UnreadableRunError(
            f"{store.uri}/runs/{run}.json: this version of pvar cannot read the record of that run "
            f"({'.'.join(map(str, fault['loc']))}: {fault['msg']}); use the version that wrote it"
        ) from error


def newest_runs(store: Store, number: int) -> list[str]:
    """Names of the newest runs, at most so many, newest first."""
    return sorted(_names(store), reverse=True)[:number]


def run_reports(store: Store) -> dict[str, str]:
    """Address of the report in the store, by run."""
    keys = [info.key for info in store.list("runs/")]
    return {
        key[len("runs/") : -len(".html")]: f"{store.uri}/{key}"
        for key in keys
        if key.endswith(".html")
    }


def opponents_of_runs(store: Store) -> dict[str, str]:
    """Promote artifact (`promote/digest`) → pinned opponent, of every run in the store.

    Records that this version of pvar cannot read are left out.
    """
    found: dict[str, str] = {}
    for name in sorted(_names(store)):
        with suppress(UnreadableRunError):
            record = load_run(store, name)
            for node in record.nodes:
                if node.artifact.startswith("promote/"):
                    found[node.artifact] = record.config.evaluate.opponent
    return found


def suspended_run(store: Store, flow_run: str, since: datetime) -> RunRecord | None:
    """The record of the waiting run with this Prefect flow run, which was created at `since`."""
    for name in sorted(_names(store), reverse=True):
        try:
            record = load_run(store, name)
        except UnreadableRunError:  # nothing that runs now wrote it
            continue
        if record.flow_run == flow_run:
            return record if record.waiting_node else None
        if record.started_at < since - CLOCKS_DIFFER:
            return None
    return None


def _names(store: Store) -> list[str]:
    """Names of all runs. The folder also contains their reports."""
    keys = [info.key for info in store.list("runs/")]
    return [key[len("runs/") : -len(".json")] for key in keys if key.endswith(".json")]
