"""What a command costs that has nothing to make: seconds, and CPU-seconds of it and its children.

    OMP_NUM_THREADS=1 python tests/benchmarks/command_start.py [--runs 1000] [--home FOLDER]

A small workflow with a model of random weights runs once. Then it is copied in the store under the
digests of other seeds, so that the store has the recipes, manifests, shards, leases and records of
`--runs` runs, eight artifacts of its own each, and MLflow has a version of each run's model, of
which every tenth was the champion. The commands are then called one after the other.

With `--home` the folder is kept: a second call, of another version of the code, uses what is there.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import yaml
from machine import describe_machine

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

MODEL = "tiny"
FIRST = datetime(2024, 1, 1, tzinfo=UTC)


class Cost(NamedTuple):
    """What one command took."""

    seconds: float
    cpu_seconds: float


def call(home: Path, *arguments: str) -> Cost:
    """Run `pvar` with these arguments, without a configured Prefect server."""
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    environment |= {
        "PVAR_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PYTHONPATH": str(ROOT),
    }
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"pvar {' '.join(arguments)} failed:\n{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, cpu)


def write_preset(home: Path) -> Path:
    """The preset of a small workflow, all of whose engines but the trainer are fakes."""
    from tests.unit.infra.tiny_models import save_language_model
    from tests.workflow import fake_settings, write_prompts

    home.mkdir(parents=True, exist_ok=True)
    source = write_prompts(home / "prompts.jsonl")
    settings = fake_settings(
        source,
        policy=str(save_language_model(home / "policy", seed=1)),
        train={"precision": "float32", "pairs_per_step": 4, "num_epochs": 1},
        evaluate={"judge": {"kind": "fake"}, "answers": {"engine": "fake", "max_new_tokens": 12}},
        promote={"model_name": MODEL, "min_win_rate": 0.0},
    )
    settings["runtime"] = {}
    preset = home / "preset.yaml"
    preset.write_text(yaml.safe_dump(settings))
    return preset


def copy_runs(home: Path, num_runs: int) -> None:
    """Add copies of the run that is there until there are `num_runs`."""
    from flows.run_record import load_run
    from tasks.graph import plan_nodes
    from tests.workflow import open_wiring

    wiring = open_wiring(home)
    record = load_run(wiring.store, "latest")
    base = plan_nodes(record.config)
    folder = home / "store"
    for number in range(1, num_runs):
        sample = record.config.sample.model_copy(update={"seed": 10_000 + number})
        config = record.config.model_copy(update={"sample": sample})
        nodes = plan_nodes(config)
        for name, node in nodes.items():
            if not (folder / node.keys.root).exists():
                copy_artifact(folder, base[name].keys.root, node.keys.root, node.recipe)
        at = FIRST + timedelta(hours=number)
        run = f"{at:%Y%m%d-%H%M%S}-{number:04x}"
        copied = record.model_copy(
            update={
                "run": run,
                "started_at": at,
                "finished_at": at,
                "config": config,
                "nodes": tuple(
                    each.model_copy(update={"artifact": nodes[each.name].keys.root})
                    for each in record.nodes
                ),
            }
        )
        (folder / f"runs/{run}.json").write_text(copied.model_dump_json(indent=1))
        shutil.copy(folder / f"runs/{record.run}.html", folder / f"runs/{run}.html")
        register(wiring, nodes["train"].keys.root, nodes["evaluate"].keys.root, number)


def copy_artifact(folder: Path, source: str, target: str, recipe) -> None:  # type: ignore[no-untyped-def]
    """Copy an artifact's objects, with another recipe, and a manifest with the inputs' digests."""
    from pvar.artifacts import Manifest, Recipe

    shutil.copytree(folder / source, folder / target)
    begun = Recipe.model_validate_json((folder / source / "recipe.json").read_bytes())
    made_from = {
        name: manifest_of(folder, digest).first_sha256 for name, digest in recipe.inputs.items()
    }
    kept = {name: getattr(begun, name) for name in ("shards", "number_format")}
    recipe = recipe.model_copy(update={**kept, "made_from": made_from})
    (folder / target / "recipe.json").write_bytes(recipe.to_json())
    manifest = Manifest.model_validate_json((folder / source / "manifest.json").read_bytes())
    update = {"digest": target.partition("/")[2], "inputs": made_from}
    (folder / target / "manifest.json").write_bytes(manifest.model_copy(update=update).to_json())


def manifest_of(folder: Path, digest: str):  # type: ignore[no-untyped-def]
    """The manifest of an artifact that is known by its digest."""
    from pvar.artifacts import Manifest

    (path,) = folder.glob(f"*/{digest}/manifest.json")
    return Manifest.model_validate_json(path.read_bytes())


def register(wiring, artifact: str, results: str, number: int) -> None:  # type: ignore[no-untyped-def]
    """Register a version with two files; each tenth one becomes the champion."""
    from infra.registered_models import ARTIFACT_TAG

    registry = wiring.registry
    files = f"mlflow/models/m-{number:06d}/artifacts/"
    for name in ("config.json", "model.safetensors"):
        path = wiring.settings.home / "store" / files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    tags = {ARTIFACT_TAG: artifact, "pvar.results": results}
    added = wiring.tracking.client.create_model_version(
        MODEL, source=f"{wiring.store.uri}/{files}", tags=tags
    )
    if number % 10 == 0:
        version = registry.resolve(f"models:/{MODEL}/{added.version}")
        before = registry.champion(MODEL)
        registry.promote(version, instead_of=before, reason="a benchmark")


def measure(home: Path, preset: Path) -> Iterator[tuple[str, Cost]]:
    """Each command's cost, the smaller one of two calls."""
    configured = ("--preset", str(preset))
    commands: Sequence[Sequence[str]] = (
        ("--help",),
        ("show", *configured),
        ("history", MODEL),
        ("history", MODEL, "--versions"),
        ("lineage", f"models:/{MODEL}@champion"),
        ("gc",),
        ("report", "--all", "--out", str(home / "all.html")),
        ("stage", "sample", *configured),
        ("run", *configured),
    )
    for command in commands:
        names = {str(preset): "PRESET", str(home / "all.html"): "FILE"}
        name = " ".join(names.get(each, each) for each in command)
        yield name, min((call(home, *command) for _ in range(2)), key=lambda cost: cost.cpu_seconds)


def main() -> None:
    """Make the store and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--home", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home: Path = (arguments.home or Path(temporary)).absolute()
        preset = home / "preset.yaml"
        if not preset.exists():
            write_preset(home)
            first = call(home, "run", "--preset", str(preset))
            print(f"the first run: {first.seconds:.1f} s, {first.cpu_seconds:.1f} CPU-s")
            copy_runs(home, arguments.runs)
        num_runs = len(list((home / "store" / "runs").glob("*.json")))
        roots = [path.parent for path in (home / "store").glob("*/*/manifest.json")]
        print(
            f"{datetime.now(UTC):%Y-%m-%d}, {describe_machine()}; store of {num_runs} runs and "
            f"{len(roots)} artifacts\n\n| `pvar …` | seconds | CPU-seconds |\n|---|---|---|"
        )
        for name, cost in measure(home, preset):
            print(f"| `{name}` | {cost.seconds:.1f} | {cost.cpu_seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
