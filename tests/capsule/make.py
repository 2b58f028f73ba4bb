"""Makes the time capsule: what a version of pvar left behind, which every later one opens.

    python -m tests.capsule.make tests/capsule/0.1.0.tar.xz

In it are a store with two runs (the second trains on the other end of PVar, and a person approved
its promotion), MLflow's database with both versions, and Prefect's with the deployments and both
runs. The policy has random weights, and fakes sample and judge. The path of the folder in which it
was made is written as `PLACE` in it. A capsule is made once per release and never again;
`tests/integration/test_time_capsule.py` opens all of them.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import yaml

from flows.exit_codes import DONE, GATE_NOT_PASSED, WAITING
from tests.services.prefect_server import running
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import TOPICS, fake_settings, write_prompts

PLACE = "/the/place/of/the/capsule"
"""Stands for the folder in which a capsule is unpacked."""

ROOT = Path(__file__).parents[2]
TEXTS = {".json", ".yaml", ".html", ".md"}
QUESTION = {"prompt": "What is the capital of Burkina Faso?", "answer": "Ouagadougou"}
LEFT_OUT = ("*.log", "*.db-shm", "*.db-wal", "work", "models", "sources", "leases", "__pycache__")


def environment(folder: Path) -> dict[str, str]:
    """With which commands work on what is in the folder."""
    home = folder / "home"
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PVAR_HOME": str(home),
        "PVAR_STORE_URI": str(home / "store"),
        "PVAR_MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
        "PREFECT_HOME": str(folder / "prefect"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }


def pvar(folder: Path, *arguments: str, extra: Mapping[str, str] | None = None) -> str:
    """What the command prints, also where it waits; RuntimeError with all of it where it fails."""
    run = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=folder,
        env=environment(folder) | dict(extra or {}),
        capture_output=True,
        text=True,
    )
    if run.returncode not in (DONE, GATE_NOT_PASSED, WAITING):
        raise RuntimeError(f"pvar {' '.join(arguments)}: {run.stdout}{run.stderr}")
    return run.stdout


def relocate(folder: Path, old: str, new: str) -> None:
    """Write another path wherever the old one stands: in texts and in SQLite databases."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in TEXTS and path.is_file():
            text = path.read_text(encoding="utf-8")
            if old in text:
                path.write_text(text.replace(old, new), encoding="utf-8")
        elif path.suffix == ".db":
            _relocate_database(path, old, new)


def _relocate_database(path: Path, old: str, new: str) -> None:
    with sqlite3.connect(path) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for column in database.execute(f'PRAGMA table_info("{table}")').fetchall():
                name = column[1]
                database.execute(
                    f'UPDATE "{table}" SET "{name}" = replace("{name}", ?, ?) '
                    f'WHERE typeof("{name}") = \'text\' AND instr("{name}", ?)',
                    (old, new, old),
                )
    database.close()


def _write_settings(folder: Path) -> None:
    policy = save_language_model(folder / "policy", seed=1)
    source = write_prompts(folder / "prompts.jsonl", TOPICS[:24])
    with source.open("a") as file:
        file.write(json.dumps(QUESTION) + "\n")
    base = fake_settings(
        source,
        policy=str(policy),
        train={"learning_rate": 0.01, "pairs_per_step": 4, "precision": "float32"},
        promote={"model_name": "capsule", "min_win_rate": 0.0, "max_ability_loss": 1.0},
    )
    del base["evaluate"]["opponent"]
    base["evaluate"]["judge"] = {"kind": "fake"}
    second = base | {
        "select": {"strategy": "bottom", "budget": {"fraction": 0.5}},
        "pair": {"rule": "best_random"},
        "promote": base["promote"] | {"mode": "approval"},
    }
    for name, tree in (("first", base), ("second", second)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree))


def _tidy(database: Path) -> None:
    """One file, without what was deleted from it."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("VACUUM")


def make(target: Path) -> None:
    """Run everything and pack what it left."""
    with tempfile.TemporaryDirectory(prefix="capsule-") as temporary:
        folder = Path(temporary) / "capsule"
        folder.mkdir()
        _write_settings(folder)
        with running(folder / "prefect") as server:
            at_server = {"PREFECT_API_URL": server.api}
            pvar(folder, "deploy", "--pool", "process", "--preset", "first.yaml", extra=at_server)
            pvar(folder, "run", "--preset", "first.yaml", extra=at_server)
            print(pvar(folder, "run", "--preset", "second.yaml", extra=at_server))
        print(pvar(folder, "approve", "capsule", "2", "--note", "for the capsule"))
        print(pvar(folder, "run", "--preset", "second.yaml"))
        for database in folder.rglob("*.db"):
            _tidy(database)
        packed = Path(temporary) / "packed"
        shutil.copytree(folder, packed, ignore=shutil.ignore_patterns(*LEFT_OUT))
        relocate(packed, str(folder), PLACE)
        for database in packed.rglob("*.db"):
            _tidy(database)
        with tarfile.open(target, "w:xz") as archive:
            archive.add(packed, arcname=".")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
