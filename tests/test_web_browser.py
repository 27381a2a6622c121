"""The pages in a real browser: no error on any of them, by keyboard, and after interruptions."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from pipeline.config import StationConfig
from pipeline.web.board import Board
from pipeline.web.desk import Role
from pipeline.web.server import Address
from tests.dashboards import (
    NEXT_RUN,
    Reported,
    config_in,
    dashboard,
    fill,
    mixed,
    pictured,
    record,
    showing,
)
from tests.doubles import until
from tests.test_web_pages import frame

PAGES = ("line", "quality", "parts", "review", "station", "recipes")
WAIT_MS = 20_000
UNSURE = 10
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    with playwright.sync_playwright() as running:
        try:
            chromium = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error:
            if found is not None:
                raise
            pytest.skip("no chromium here; install your system's, or: playwright install chromium")
        yield chromium
        chromium.close()


@pytest.fixture
def config(tmp_path: Path) -> StationConfig:
    made = config_in(tmp_path)
    fill(made, [*mixed(20), *(pictured(made, n, "UNSURE", ("open",)) for n in range(21, 31))])
    return made


@pytest.fixture
def client(config: StationConfig) -> Iterator[httpx.Client]:
    with dashboard(config) as made:
        yield made


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """Open a page whose errors are collected in ``page.wrong``."""
    made = browser.new_page(viewport={"width": 1280, "height": 800})
    made.set_default_timeout(WAIT_MS)
    made.wrong = []
    made.on("console", lambda said: said.type == "error" and made.wrong.append(said.text))
    made.on("pageerror", lambda error: made.wrong.append(str(error)))
    yield made
    made.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_opens_without_an_error_and_fits_the_screen(
    page: Any, client: httpx.Client, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for name in PAGES:
        page.goto(f"{client.base_url}{name}")
        page.wait_for_selector("#main > *")
        page.wait_for_selector(f"#pages a[data-page={name}][aria-current=page]")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{name} is {wide} pixels wide"
    page.goto(f"{client.base_url}parts")
    page.click("tbody tr a")
    page.wait_for_selector("text=Chain whole")
    page.wait_for_selector("section:has-text('Where the time went') >> text=131.9 ms")
    assert page.wrong == []


def test_ten_parts_are_reviewed_by_keyboard_alone(page: Any, client: httpx.Client) -> None:
    page.goto(f"{client.base_url}review")
    page.wait_for_selector("text=Is this part good?")
    for done in range(UNSURE):
        page.keyboard.press("1" if done % 2 else "2")
        page.keyboard.press("b" if done % 2 else "g")
        page.wait_for_selector(f"text={done + 1} reviewed")
    said = client.get("/api/v1/reviews").json()
    assert said["agreement"] == {"UNSURE": {"PASS": UNSURE // 2, "FAIL": UNSURE // 2}}
    assert page.wrong == []


def test_the_page_is_green_only_while_the_station_is_well(
    page: Any, client: httpx.Client, config: StationConfig
) -> None:
    station = Reported()
    with showing(config, station) as window:
        window.offer(frame(), ())
        fill(config, [record(31, run=NEXT_RUN)])
        page.goto(f"{client.base_url}line")
        page.wait_for_selector(".pill.good")
        page.wait_for_selector(".verdict.PASS")
        station.state, station.faults = "not ready", {"camera": "camera 'top': unplugged"}
        page.wait_for_selector(".alarm.fault >> text=unplugged")
        page.wait_for_selector(".verdict.old")
        assert page.locator(".pill.good, .verdict.PASS").count() == 0
        assert page.locator(".veil").is_visible()
        station.state, station.faults = "ready", {}
        window.offer(frame(), ())
        page.wait_for_selector(".pill.good")
    page.wait_for_selector(".pill.fault >> text=No contact")
    assert page.wrong == []


def test_a_page_says_that_it_is_cut_off_and_recovers_by_itself(
    page: Any, config: StationConfig
) -> None:
    with showing(config, Reported()) as window:
        with dashboard(config) as client:
            port = client.base_url.port
            window.offer(frame(), ())
            page.goto(f"{client.base_url}line")
            page.wait_for_selector(".pill.good")
        page.wait_for_selector(".pill.fault >> text=No connection")
        assert page.locator(".verdict.PASS, .pill.good").count() == 0
        with dashboard(config, address=Address(port=port)):

            def is_good_again() -> bool:
                window.offer(frame(), ())
                return bool(page.locator(".pill.good").count())

            until(is_good_again, "the page's recovery")


def test_the_theme_that_was_chosen_stays(page: Any, client: httpx.Client) -> None:
    page.goto(f"{client.base_url}parts")
    page.wait_for_selector("tbody tr")
    page.click("#theme")
    chosen = page.evaluate("document.documentElement.dataset.theme")
    page.goto(f"{client.base_url}station")
    page.wait_for_selector("tbody tr")
    assert page.evaluate("document.documentElement.dataset.theme") == chosen == "dark"


def test_two_tabs_tell_the_same_and_a_review_in_one_is_seen_in_the_other(
    page: Any, browser: Any, client: httpx.Client, config: StationConfig
) -> None:
    other = browser.new_page()
    other.set_default_timeout(WAIT_MS)
    with showing(config, Reported()) as window:
        window.offer(frame(), ())
        for tab in (page, other):
            tab.goto(f"{client.base_url}line")
            tab.wait_for_selector(".pill:not(.off)")
        fill(config, [record(31, "FAIL", ("short",), run=NEXT_RUN)])
        for tab in (page, other):
            tab.wait_for_selector(".dot.FAIL >> text=31")
    for tab in (page, other):
        tab.goto(f"{client.base_url}review")
        tab.wait_for_selector("text=Is this part good?")
    page.keyboard.press("g")
    page.wait_for_selector("text=1 reviewed")
    other.keyboard.press("s")
    other.wait_for_selector("h2 >> text=Part 29")
    other.keyboard.press("b")
    other.wait_for_selector("text=2 reviewed")
    other.close()
    assert page.wrong == []


def test_a_page_that_was_asleep_for_minutes_is_current_again_at_once(
    page: Any, client: httpx.Client, config: StationConfig
) -> None:
    page.clock.install()
    with showing(config, Reported()) as window:
        window.offer(frame(), ())
        page.goto(f"{client.base_url}line")
        page.wait_for_selector(".pill:not(.off)")
        page.context.set_offline(True)
        page.clock.fast_forward(5 * 60 * 1000)
        page.wait_for_selector(".pill.fault >> text=No connection")
        fill(config, [record(31, "FAIL", ("short",), run=NEXT_RUN)])
        page.context.set_offline(False)

        def is_current() -> bool:
            window.offer(frame(), ())
            page.clock.run_for(1000)
            return bool(page.locator(".pill.good").count())

        until(is_current, "the page's recovery")
        page.wait_for_selector(".dot.FAIL >> text=31")


def test_a_session_that_ended_leads_to_the_login_and_back_to_the_page(
    page: Any, config: StationConfig
) -> None:
    board = Board(config)
    board.desk.set_account("anna", PASSWORD, Role.ENGINEER, "test")
    with dashboard(config, board=board) as client:
        page.goto(f"{client.base_url}quality")
        for again in range(2):
            page.fill("[name=name]", "anna")
            page.fill("[name=password]", PASSWORD)
            page.click("form button")
            page.wait_for_url("**/quality")
            page.wait_for_selector("#pages a[data-page=quality][aria-current=page]")
            if not again:
                board.desk.set_account("anna", PASSWORD, Role.ENGINEER, "test")  # ends sessions
                page.evaluate("import('/static/feed.js').then((m) => { m.feed.heard = 0; })")
                page.wait_for_url("**/login?back=*")


@pytest.mark.parametrize("back", ["//example.com/", "/\\example.com/", "https://example.com/"])
def test_a_login_leads_nowhere_else(page: Any, config: StationConfig, back: str) -> None:
    board = Board(config)
    board.desk.set_account("anna", PASSWORD, Role.VIEWER, "test")
    with dashboard(config, board=board) as client:
        page.goto(f"{client.base_url}login?{urlencode({'back': back})}")
        page.fill("[name=name]", "anna")
        page.fill("[name=password]", PASSWORD)
        page.click("form button")
        page.wait_for_url(f"{client.base_url}line")
