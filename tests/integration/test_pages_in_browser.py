"""The HTML pages in a real browser: nothing is wider than a phone, and every text can be read.

Chromium is Debian's (`.ci/services chromium`); pictures stay in pytest's temporary folder.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, sync_playwright

from flows.overview import render_overview
from tasks.report.backtest_page import render_backtest
from tasks.report.data import (
    Correlation,
    LabelRow,
    MachineRow,
    NamedLink,
    Setting,
    SourceRow,
    SourceWinRate,
    StageRow,
    StoredFile,
)
from tasks.report.page import render_report
from tests.services.processes import NEVER_SECONDS, require
from tests.unit.flows.test_overview import GOOD, MODEL_ENTRY, overview
from tests.unit.pvar.test_backtest_result import result
from tests.unit.tasks.report.test_backtest_page import PLAIN, REPLAYED
from tests.unit.tasks.report.test_benchmark_section import report, side
from tests.unit.tasks.report.test_page import FULL
from tests.unit.tasks.report.test_rounds_page import RATES, ended, render

pytestmark = [
    pytest.mark.slow,
    pytest.mark.service,
    # Raised inside playwright, on ways that this project does not choose.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LONG = "a_folder_with_a_long_name/" * 6
LEAST_CONTRAST = 4.5
PHONE_PIXELS = 360
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def run_page() -> str:
    return render_report(
        dataclasses.replace(
            FULL,
            settings=(Setting(f"evaluate.{'deep.' * 8}setting", f"{LONG}#sha256-{'0' * 64}"),),
            stages=(
                *FULL.stages,
                StageRow(
                    "score-with-a-long-name",
                    "score",
                    f"score/{'0' * 16}",
                    1,
                    1,
                    files=(StoredFile(f"file:///{LONG}", LONG, 1, 1),),
                    figures={"source": LONG},
                ),
            ),
            machines=(MachineRow((LONG, "train"), LONG, {"torch": f"2.9+{'0' * 40}"}),),
            links=(NamedLink("Artifact store", f"file:///{LONG}"),),
            sources=(SourceRow(LONG, 1200, 700, 0.12, SourceWinRate(0.6, 0.5, 0.7, 80)),),
            labels=(LabelRow("rm-large", LONG, 0.6, 0.5, 0.7, 1200, 3),),
            correlations=(Correlation("reward gap", 0.5, 0.4, 0.6, 0.5, 1200),),
            stand_ins=(f"the rewards of {LONG} are fake",),
            benchmarks=(report(side("new model"), side("opponent")),),
        )
    )


PAGES: dict[str, Callable[[], str]] = {
    "report": run_page,
    "overview": lambda: render_overview(
        overview(GOOD._replace(preset=LONG), models=(MODEL_ENTRY,), unknown=LONG)
    ),
    "rounds": lambda: render(ended(1, 0.1, **RATES), ended(2, 0.05, **RATES)),
    "backtest": lambda: render_backtest(result(REPLAYED, PLAIN)),
}

CONTRASTS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const channels = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = rgb => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let each = element; each; each = each.parentElement) {
      const found = channels(getComputedStyle(each).backgroundColor);
      if (found[3] === 255) return found;
    }
  };
  const low = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || ["STYLE", "TITLE"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const text = channels(element.closest("svg") ? style.fill : style.color);
    const [dark, light] = [luminance(text), luminance(behind(element))].sort((a, b) => a - b);
    const contrast = (light + 0.05) / (dark + 0.05);
    seen += 1;
    if (contrast < LEAST) low[walker.currentNode.data.trim()] = contrast;
  }
  return [seen, low];
}""".replace("LEAST", str(LEAST_CONTRAST))

TOO_WIDE = """() => {
  const out = [...document.querySelectorAll("body *")].filter(each =>
    !each.parentElement.closest(".wide") && each.getBoundingClientRect().right > innerWidth + 1);
  const width = document.documentElement.scrollWidth;
  return [
    ...(width > innerWidth ? [`the page, ${width} pixels`] : []),
    ...out.map(each => `${each.tagName} ${each.className}: ${each.textContent.slice(0, 60)}`),
  ];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require("chromium", ["chromium"])
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox"],
            timeout=1000 * NEVER_SECONDS,
        )
        yield launched
        launched.close()


@pytest.mark.parametrize("name", PAGES)
def test_every_text_can_be_read_on_a_phone(browser: Browser, name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.html"
    path.write_text(PAGES[name](), encoding="utf-8")
    page = browser.new_page(viewport={"width": PHONE_PIXELS, "height": 800})
    page.goto(path.as_uri())
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.evaluate(TOO_WIDE) == []
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
        num_seen, low = page.evaluate(CONTRASTS)
        assert num_seen > 20
        assert low == {}, scheme
    page.close()
