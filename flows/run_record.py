"""What happened in a pipeline run, kept in the store as `runs/{run}.json` for report and resume."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pvar.config import PipelineConfig
from pvar.errors import InputError, NotFoundError
from pvar.ports import Store


class NodeRecord(BaseModel):
    """How one node of the run went."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    artifact: str
    """`stage/digest`."""
    state: Literal["pending", "made", "reused", "failed"] = "pending"
    seconds: float | None = None
    error: str | None = None


class RunRecord(BaseModel):
    """A pipeline run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    started_at: datetime
    finished_at: datetime | None = None
    preset: str | None
    config: PipelineConfig
    """Pinned: exactly what was run."""
    mlflow_run: str
    mlflow_experiment: str
    nodes: tuple[NodeRecord, ...]

    def with_node(self, node: NodeRecord) -> "RunRecord":
        """The record with that node's line replaced."""
        nodes = tuple(node if each.name == node.name else each for each in self.nodes)
        return self.model_copy(update={"nodes": nodes})


def save_run(store: Store, record: RunRecord) -> None:
    """Write the record as it is now."""
    store.write(f"runs/{record.run}.json", record.model_dump_json(indent=1).encode())


def load_run(store: Store, run: str) -> RunRecord:
    """The record of a run; `latest` is the newest one."""
    keys = [info.key for info in store.list("runs/")]  # records, and beside them the reports
    runs = [key[len("runs/") : -len(".json")] for key in keys if key.endswith(".json")]
    if not runs:
        raise InputError(f"{store.uri} holds no runs yet; start one: pvar run --preset demo")
    if run == "latest":
        run = max(runs)
    try:
        return RunRecord.model_validate_json(store.read(f"runs/{run}.json"))
    except NotFoundError as error:
        raise InputError(
            f"no run {run!r} in {store.uri}; the newest are {sorted(runs)[-3:]}"
        ) from error
