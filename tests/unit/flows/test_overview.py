"""`pvar report --all`: the page over all runs and versions."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.commands.report import report
from flows.overview import ModelEntry, Overview, VersionEntry, render_overview
from flows.past_runs import PastRun
from flows.promotions import MoveWithResults
from flows.version_results import Results, version_results
from infra.promotion_history import Move
from infra.registered_models import VersionFacts
from pvar.errors import ConfigError, InputError
from pvar.ports import RegisteredVersion, Store
from tests.services.registry import MODEL, RegistryNeighbours
from tests.unit.flows.test_runs_command import CHAMPION, made, put_run, result

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ATTACK = "</td></style><script>alert('x')</script>&amp;\"'"


def shown(page: str) -> str:
    """What a reader sees, without figures."""
    without = re.sub(r"<(style|svg).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", without).replace("&lt;", "<").split())


def version(number: int, **tags: str) -> VersionEntry:
    facts = VersionFacts(
        RegisteredVersion("m", number, f"train/{number}"),
        {f"pvar.{name}": value for name, value in tags.items()},
    )
    return VersionEntry(version_results([facts])[0], facts.tags)


def move(to: int | None, *, has_files: bool = True, **changes: str) -> MoveWithResults:
    fields = {"kind": "promotion", "by": "ana", "reason": "gate passed"} | changes
    made = Move.model_validate(
        {"number": 1, "from_version": None, "to_version": to, "at": NOW, **fields}
    )
    return MoveWithResults(made, Results(None, None, None), None, has_files)


def overview(*runs: PastRun, models: tuple[ModelEntry, ...] = (), unknown: str = "") -> Overview:
    return Overview("s3://bucket", NOW, runs, {}, models, unknown)


GOOD = PastRun("20260102-b", "done", NOW, "mine.yaml", 0.6, 0.55, 0.65, True, "m/2", True)
MODEL_ENTRY = ModelEntry(
    "m",
    (version(2, gate="passed", win_rate="0.6", exam="0123456789ab"), version(1, gate="failed")),
    (move(2, has_files=False), move(None)),
)


def test_runs_and_versions_are_shown_with_their_results() -> None:
    bad = PastRun("20260101-a", "done", NOW - timedelta(days=1), None, 0.4, None, None, False)
    reports = {"20260102-b": "file:///store/runs/b.html", "20260101-a": "s3://store/a.html"}
    shown_all = overview(GOOD, bad, models=(MODEL_ENTRY,))._replace(reports=reports)
    page = render_overview(shown_all)
    text = shown(page)
    assert "20260102-b 2026-03-01 12:00 UTC done 60.0 % 55.0 % – 65.0 % passed m/2 promoted" in text
    assert "20260101-a 2026-02-28 12:00 UTC done 40.0 % failed – –" in text
    assert "Champion of m version 2 of 2 versions" in text
    assert "2 champion tags pvar.exam 0123456789ab pvar.gate passed pvar.win_rate 0.6" in text
    assert "– 2 its files are gone ana promotion: gate passed" in text
    assert re.findall(r'href="([^"#]*)"', page) == ["file:///store/runs/b.html"]
    (label,) = re.findall(r'aria-label="([^"]*)"', page)
    assert label == (
        "Win rates of 2 runs with their intervals: 40% at first, 60% at last; 1 passed the gate."
    )
    assert not re.search(r"<(script|link|img)\b|@import|url\((?!#)", page)
    assert page == render_overview(shown_all)


def test_what_is_unknown_is_not_zero_and_users_text_stays_text() -> None:
    odd = PastRun(ATTACK, "unreadable"), PastRun("b", "failed", NOW, ATTACK, model=ATTACK)
    model = ModelEntry(ATTACK, (version(1, note=ATTACK),), (move(1, by=ATTACK, reason=ATTACK),))
    page = render_overview(overview(*odd, models=(model,), unknown=ATTACK))
    assert "No run has a win rate yet." in page
    assert "<script" not in page
    assert page.count("&lt;/td&gt;&lt;/style&gt;&lt;script&gt;") >= 8
    assert not re.search(r"0(\.0)? %|None|nan", shown(page))


@pytest.fixture
def store(file_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    monkeypatch.setenv("PVAR_HOME", str(tmp_path))
    monkeypatch.setenv("PVAR_STORE_URI", file_store.uri)
    return file_store


@pytest.mark.slow
def test_the_command_reads_the_store_and_the_registry(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    neighbours = RegistryNeighbours(tmp_path, store)
    for name, value in neighbours.environment().items():
        monkeypatch.setenv(name, value)
    first = neighbours.register("train/aa", win_rate="0.6100", gate="passed")
    neighbours.registry().promote(first, instead_of=None, reason="gate passed: promote/01")
    put_run(store, "20260101-a", result(store, 0.75), made(store, "promote", CHAMPION))
    store.write("runs/20260101-a.html", b"its report")
    report(all_=True, out=tmp_path / "all.html")
    page = (tmp_path / "all.html").read_text()
    text = shown(page)
    assert "20260101-a 2026-01-01 00:00 UTC done 75.0 % passed pvar/3 promoted mine.yaml" in text
    assert f'href="{store.uri}/runs/20260101-a.html"' in page
    assert f"Versions of {MODEL}" in text
    assert "1 champion tags pvar.artifact train/aa pvar.gate passed pvar.win_rate 0.6100" in text
    assert "– 1 ana promotion: gate passed: promote/01" in text


def test_without_mlflow_the_runs_are_shown(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PVAR_MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    put_run(store, "20260101-a", result(store, 0.75))
    report(all_=True, out=tmp_path / "all.html")
    text = shown((tmp_path / "all.html").read_text())
    assert "20260101-a" in text
    assert "The versions are not known:" in text
    assert "127.0.0.1:9" in text


@pytest.mark.usefixtures("store")
def test_what_makes_no_page_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no runs yet; start one"):
        report(all_=True, out=tmp_path / "all.html")
    with pytest.raises(InputError, match="does not exist; create it first"):
        report(all_=True, out=tmp_path / "none" / "all.html")
    with pytest.raises(ConfigError, match="leave out '20260101-a', or --all"):
        report("20260101-a", all_=True)
