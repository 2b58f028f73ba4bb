"""What a failed import means for a user: an extra that is not installed, or a folder in the way."""

import json
import re
import sys
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
OURS = ("pvar", "tasks", "flows", "infra")

_IMPORTED_AS = {"botocore": "boto3", "psycopg2": "psycopg2-binary", "sklearn": "scikit-learn"}
"""Import name → distribution, where the two differ."""
_REQUIREMENT = re.compile(r"""(?P<name>[\w.-]+)[^;]*;.*\bextra *== *["'](?P<extra>[\w-]+)["']""")


def explain_import(error: ImportError) -> str | None:
    """What to tell the user; None for an import that only a bug explains."""
    package = (error.name or "").partition(".")[0]
    if package in OURS:
        return _in_the_way(package)
    if isinstance(error, ModuleNotFoundError) and (extra := extra_of(package)):
        return f"{package} is not installed, which this command needs; {how_to_install(extra)}"
    return None


def how_to_install(extra: str) -> str:
    """The command that installs an extra, in a checkout or beside a wheel."""
    if (ROOT / "Makefile").exists():
        return "run: make setup"
    return f"run: pip install '{installed_from(metadata.distribution('pvar'))}[{extra}]'"


def installed_from(distribution: metadata.Distribution) -> str:
    """The file of the wheel that it was installed from; its name if an index had it."""
    origin = distribution.read_text("direct_url.json")  # PEP 610
    url = urlsplit(json.loads(origin)["url"]) if origin else None
    if url is not None and url.scheme == "file" and url.path.endswith(".whl"):
        return unquote(url.path)
    return distribution.name


def extra_of(module: str) -> str | None:
    """The smallest extra that brings this module; None if no extra does."""
    wanted = _canonical(_IMPORTED_AS.get(module, module))
    extras = _extras()
    having = [extra for extra, names in extras.items() if wanted in names]
    return min(having, key=lambda extra: len(extras[extra]), default=None)


def _extras() -> dict[str, set[str]]:
    """Extra → distributions. In the metadata an extra has those of the extras that it names."""
    extras: dict[str, set[str]] = {}
    for requirement in metadata.requires("pvar") or ():
        if found := _REQUIREMENT.match(requirement):
            extras.setdefault(found["extra"], set()).add(_canonical(found["name"]))
    return extras


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _in_the_way(package: str) -> str | None:
    """What hides a package of this project; None if nothing does."""
    found = getattr(sys.modules.get(package), "__file__", None) or next(
        iter(getattr(sys.modules.get(package), "__path__", ())), None
    )
    if found is None or Path(found).is_relative_to(ROOT):
        return None
    return (
        f"another package named {package!r} hides pvar's: {found}; start pvar from another folder, "
        "or take that one off PYTHONPATH"
    )
