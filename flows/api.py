"""From Python: load a preset, plan it, make what it needs, and read any table.

    from flows import api

    run = api.load("demo", {"select.strategy": "random"})
    run.plan()                          nodes, artifacts and their states
    run.make("select")                  all that the selection needs, in this process
    run.table("select", "variance")     a pyarrow.Table; `frame` for pandas, `dataset` for parts
    run.start()                         the whole pipeline, as `pvar run` with the same settings
    api.open_run("latest")              a run that is in the store

Paths, addresses and keys are those of the environment, as for the commands.
"""

import json
import shlex
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flows.announcement import announce_stage
from flows.complete_runs import newest_run_of
from flows.console import log_lines
from flows.exit_codes import DONE, GATE_NOT_PASSED, WAITING, WRONG_CALL
from flows.pinning import pin
from flows.preflight import refuse_early, refuse_unmakeable
from flows.run_record import RunRecord, load_run
from flows.stage_nodes import make_or_reuse, needed_nodes
from flows.wiring import Wiring, connect
from infra.presets import load_config
from pvar.artifacts import Summary
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, InputError, StageError
from pvar.unique_name import unique_name
from tasks.engine.artifact import Artifact, open_artifact
from tasks.engine.child_processes import child_environment
from tasks.engine.lineage import list_artifacts
from tasks.engine.node import Node
from tasks.engine.progress import progress_of
from tasks.engine.work_folders import held_folder
from tasks.graph import plan_nodes

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.dataset as pads

ENDED = (DONE, GATE_NOT_PASSED, WAITING)
"""Exit codes of `pvar run`: done, done and the gate did not pass, waiting for a person."""

REJECTED = "rejected"
"""The table of left-out rows that many artifacts have beside their own."""


class PlannedNode(NamedTuple):
    """A row of the plan."""

    node: str
    stage: str
    artifact: str
    state: str
    """complete, missing, what it waits for, or the number of complete shards."""
    rows: str


class PipelineRun:
    """A configuration and the artifacts that belong to it.

    What reads takes the name of a node, or any artifact of the store as `stage/digest` (the first
    characters are enough). Files are fetched when they are read, checked against their digests, and
    kept in a folder of PVAR_HOME until this object is gone.
    """

    def __init__(
        self, config: PipelineConfig, wiring: Wiring, *, options: Sequence[str] | None
    ) -> None:
        """`options`: those of `pvar run` that make this configuration; None if it is the
        pinned one of a run that was recorded."""
        self._given = config
        self._wiring = wiring
        self._options = options

    @cached_property
    def config(self) -> PipelineConfig:
        """The configuration, with every model and data file pinned to its digest."""
        return pin(self._given, self._wiring) if self._options is not None else self._given

    @property
    def nodes(self) -> dict[str, Node]:
        """The nodes by name, in order."""
        return plan_nodes(self.config)

    def plan(self) -> "pd.DataFrame":
        """Each node with its stage, artifact and state, as `pvar show` lists them."""
        import pyarrow as pa

        rows = []
        for node in self.nodes.values():
            found = progress_of(self._wiring.store, node.keys)
            row = PlannedNode(
                node.name, node.stage.name, node.keys.root, found.state, found.rows or ""
            )
            rows.append(row._asdict())
        return pa.Table.from_pylist(rows).to_pandas()

    def make(self, node: str) -> Summary:
        """Make the artifact of a node and all that it needs, and return its figures.

        Everything runs in this process, without Prefect. What is complete is reused. Raises
        InputError for what is missing on this machine, and StageError if a stage waits for a
        person.
        """
        needed = needed_nodes(self.nodes, node)
        refuse_unmakeable(self.config, needed, self._wiring)
        with log_lines():
            for number, each in enumerate(needed, start=1):
                announce_stage(f"stage {number} of {len(needed)}: {each.name}")
                outcome = make_or_reuse(each, self.config, self._wiring)
                if outcome.waiting is not None:
                    raise StageError(f"{each.name} {outcome.waiting.sentence}")
        return self.figures(node)

    def start(self) -> RunRecord:
        """Run the whole pipeline in a process of its own, and return the record of the run.

        It is the command `pvar run`, so Prefect and MLflow record the run, and it is shown there.
        Its log appears here. The record says what was made and reused, and what the run waits for.
        Raises ConfigError for a wrong call, and StageError if it fails, with the command's message.
        """
        if self._options is None:
            raise ConfigError("this run was opened from its record; load its preset to start it")
        refuse_early(self._given, self._wiring)
        command = [sys.executable, "-m", "flows.cli", "run", *self._options]
        _run(command, f"pvar run {shlex.join(self._options)}")
        record = newest_run_of(pin(self._given, self._wiring), self._wiring)
        if record is None:
            raise StageError(
                f"the run ended, but {self._wiring.store.uri} has no record of it with these "
                "settings; a file that they name changed meanwhile: run it again"
            )
        self.config = record.config
        return record

    def figures(self, node: str) -> Summary:
        """The figures of a node's artifact, such as the win rate of `evaluate`."""
        return self._artifact(node).manifest.summary

    def dataset(self, node: str, table: str | None = None) -> "pads.Dataset":
        """A table of a node's artifact, of which pyarrow reads only what is asked for.

        table: its name; not needed where there is one, beside that of rejected rows.
        """
        import pyarrow.dataset as pads

        artifact = self._artifact(node)
        name = _table_of(artifact, node, table)
        paths = [str(path) for path in artifact.paths(name)]
        return pads.dataset(paths, format="parquet")

    def table(
        self, node: str, table: str | None = None, *, columns: Sequence[str] | None = None
    ) -> "pa.Table":
        """A table of a node's artifact, or some of its columns."""
        return self.dataset(node, table).to_table(columns=None if columns is None else [*columns])

    def frame(
        self, node: str, table: str | None = None, *, columns: Sequence[str] | None = None
    ) -> "pd.DataFrame":
        """The same as pandas."""
        return self.table(node, table, columns=columns).to_pandas()

    def folder(self, node: str, name: str = "model") -> Path:
        """Local copy of a folder of a node's artifact: the trained model of `train`."""
        return self._artifact(node).folder(name)

    def _artifact(self, node: str) -> Artifact:
        store = self._wiring.store
        if "/" in node:
            stages = (node.partition("/")[0],)
            made = list_artifacts(store, stages, with_shards=False)
            root = unique_name(node, list(made), store.uri, "see pvar show")
        else:
            root = needed_nodes(self.nodes, node)[-1].keys.root
        stage, _, digest = root.partition("/")
        return open_artifact(store, stage, digest, self._folder)

    @cached_property
    def _folder(self) -> Path:
        """For local copies, until this object is gone."""
        return held_folder(self, self._wiring.settings.home, "python")


def load(preset: str | Path | None = None, changes: Mapping[str, Any] | None = None) -> PipelineRun:
    """A preset (a name, or a path to a YAML file) with changes by dotted key.

    Raises ConfigError for an unknown preset or key, and for invalid values.
    """
    settings = [f"{key}={json.dumps(value)}" for key, value in (changes or {}).items()]
    name = None if preset is None else str(preset)
    options = [] if name is None else ["--preset", name]
    for setting in settings:
        options += ["--set", setting]
    return PipelineRun(load_config(name, settings), connect(), options=options)


def open_run(name: str = "latest") -> PipelineRun:
    """A run that is in the store, by its id or the first characters of it.

    Raises InputError unless there is one.
    """
    wiring = connect()
    return PipelineRun(load_run(wiring.store, name).config, wiring, options=None)


def _table_of(artifact: Artifact, node: str, name: str | None) -> str:
    """Name of the file of a table. Raises InputError, with those that there are."""
    files = {file.name for shard in artifact.manifest.shards for file in shard.files}
    tables = sorted(file.removesuffix(".parquet") for file in files if file.endswith(".parquet"))
    own = [table for table in tables if table != REJECTED]
    if name is None and len(own) == 1:
        name = own[0]
    if name not in tables:
        raise InputError(
            f"{node} has {'several tables' if name is None else f'no table {name!r}'}; give one of "
            f"{', '.join(tables) or '(it has none)'}"
        )
    return f"{name}.parquet"


def _run(command: Sequence[str], name: str) -> None:
    """Run the command and pass its output on. Raises ConfigError for a wrong call, and StageError
    if it fails, with its message."""
    said: list[str] = []
    with subprocess.Popen(
        command,
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        log = threading.Thread(target=_pass_on, args=(process.stderr, sys.stderr, said))
        log.start()
        try:
            _pass_on(process.stdout, sys.stdout, [])
            log.join()
        except KeyboardInterrupt:
            process.terminate()
            raise
    if process.returncode not in ENDED:
        message = "".join(said).rpartition("error: ")[2].strip()
        kind = ConfigError if process.returncode == WRONG_CALL else StageError
        raise kind(f"{name} ended with exit code {process.returncode}: {message}")


def _pass_on(source: Any, target: Any, kept: list[str]) -> None:
    """Write the lines of a stream to another one, and keep the last ones."""
    for line in source:
        target.write(line)
        kept[:-50] = []
        kept.append(line)
