"""The report in a real browser: readable on a phone and on a desk, light and dark, silent towards the network."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from simulations.audits.fairness import Tolerance
from simulations.report.comparison import compare
from simulations.report.page import build
from tests.simulations.recorded import write_run
from tests.simulations.simulated import exact_run

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

pytestmark = pytest.mark.story


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The machine's own chromium; its absence is a fault of the machine, not a reason to skip."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    assert found, "install chromium: the page cannot be checked without a browser"
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    first = write_run(folder / "first", rounds=30)
    void = write_run(folder / "void", rounds=6, noise="replay")
    few, many = (exact_run(folder / size, size) for size in ("few", "many"))
    return {
        "report": build(first, tolerance=Tolerance(difference=0.1)),
        "void": build(void),
        "comparison": compare(first, void, folder / "comparison.html"),
        "few": few / "report.html",
        "many": many / "report.html",
        "unlike": compare(first, many, folder / "unlike.html"),
    }


def opened(browser: Browser, path: Path, width: int, scheme: str) -> tuple[Page, list[str]]:
    """The page, and everything it complained about or asked for besides itself."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    noise: list[str] = []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda request: noise.append(request.url))
    page.goto(path.as_uri())
    return page, [line for line in noise if line != path.as_uri()]


@pytest.mark.parametrize("name", ["report", "void", "comparison", "few", "many", "unlike"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "light"), (390, "dark")])
def test_the_page_fits_is_not_blank_and_is_silent(
    browser: Browser, pages: dict[str, Path], name: str, width: int, scheme: str
):
    page, noise = opened(browser, pages[name], width, scheme)
    assert noise == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.scrollHeight") > 900
    assert len(page.inner_text("body")) > 400
    picture = page.screenshot()
    assert len(zlib.compress(picture)) > 20_000, "a blank page compresses to almost nothing"
    page.close()


@pytest.mark.parametrize("name", ["report", "many"])
def test_nothing_sticks_out_of_the_page_on_a_phone(browser: Browser, pages: dict[str, Path], name: str):
    """Also with all details unfolded. Heads of stacked tables are there for screen readers only."""
    page, _ = opened(browser, pages[name], 390, "light")
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    wide = page.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('thead') &&"
        " e.getBoundingClientRect().right > 391)"
        ".map(e => e.tagName + '.' + e.getAttribute('class'))"
    )
    assert wide == []
    page.close()


def test_verdicts_are_words_and_not_only_colours(browser: Browser, pages: dict[str, Path]):
    page, _ = opened(browser, pages["report"], 1280, "light")
    lamps = page.locator("#summary .lamp").all_inner_texts()
    assert [lamp.split()[-1] for lamp in lamps] == ["PASS", "INCONCLUSIVE", "MEASURED"]
    page.close()


def test_dark_and_light_differ(browser: Browser, pages: dict[str, Path]):
    grounds = []
    for scheme in ("light", "dark"):
        page, _ = opened(browser, pages["report"], 390, scheme)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.close()
    assert grounds[0] != grounds[1]
