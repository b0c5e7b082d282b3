"""report.html in a browser: silent, alone, as wide as the window, and on paper."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up import HOSTILE, make_experiment
from studies import make_run

from kaizen.compare import read_study
from kaizen.page.comparison import comparison_page
from kaizen.page.report import write_report

CHROMIUM = shutil.which("chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
QUIET += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
PATIENCE = 120_000  # milliseconds, on a machine that is busy with other tests
LONG = "a_very_long_name_of_a_class_" * 8


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium; apt-get install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET, timeout=PATIENCE)
        yield started
        started.close()


@pytest.fixture(scope="module", params=["usual", "many tasks", "hostile", "comparison"])
def page_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "run"
    if request.param == "usual":
        make_experiment(folder)
    elif request.param == "many tasks":
        make_experiment(folder, num_tasks=25, done=25, steps=300)
    elif request.param == "comparison":
        return compared(folder, num_tasks=12, name=f"{HOSTILE} {LONG}")
    else:
        make_experiment(
            folder, num_tasks=2, done=2, classes=[HOSTILE, LONG, f"<img src=x onerror={HOSTILE}>", "\u202e"]
        )
    return write_report(folder)


def compared(folder: Path, **flags: Any) -> Path:
    for seed in (5, 6):
        make_run(folder / f"a-seed{seed}", seed=seed, **flags)
        make_run(folder / f"b-seed{seed}", "byol", seed=seed, **flags)
    make_run(folder / "joint", heads=("classifier",), **{**flags, "num_tasks": 1, "name": "joint"})
    study = read_study([folder])
    path = folder / "report.html"
    path.write_text(comparison_page(study, "classifier"), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_is_silent_alone_and_no_wider_than_the_window(
    browser: Any, page_path: Path, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.set_default_timeout(PATIENCE)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_path.as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page_path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == (scheme == "dark")
    page.close()


def test_it_prints(browser: Any, page_path: Path) -> None:
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(page_path.as_uri())
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.set_viewport_size({"width": 688, "height": 1000})  # A4 within its margins
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") == 688
    page.close()
