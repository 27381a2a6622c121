"""Takes the pictures of docs/images anew: the demo, visited by a browser, in light and in dark.

    python -m tests.screenshots --store /tmp/shots --fill 110
    python -m tests.screenshots --store /tmp/shots --out docs/images

It needs playwright and Debian's chromium. The first call lets boards pass as fast as they go, so
that every page has something to show; the second shows a line that runs, and reviews some parts.
The model is unsure of next to none of the product's boards: the review page is that of a line on
which every board has a layout of its own (``demo --mixed``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np

from pipeline import plugins
from pipeline.bundle import open_bundle
from pipeline.detector import open_detector
from pipeline.shipped import shipped
from pipeline.store import read_records
from pipeline.synth.board import draw_board
from pipeline.synth.defects import damage
from pipeline.synth.optics import LOOKS, photograph
from pipeline.synth.retake import photograph_again
from pipeline.trace import stored_picture
from pipeline.types import Box, Defect, Record, Verdict
from pipeline.vision.draw import annotate, marks_of, marks_of_defects
from pipeline.vision.template import Template
from tests.dashboards import token

PAGES = ("line", "quality", "parts", "part", "station", "recipes")
SIZE = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
SHOWN_PX = 1024
QUALITY = 84
UNSURE = 4
NICE = 15
WELL_MS = 20_000
"""So long a station that had too much to do may take to be well again."""

COMPARED_SEED, SIDE = 14, 640
MARGIN, BOARD_PX = 40, (560, 590)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, required=True, help="folder of both lines' records")
    parser.add_argument("--fill", type=int, default=0, help="boards that pass; no pictures yet")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--parts", type=int, default=20, help="that pass before the first picture")
    parser.add_argument(
        "--only", choices=("product", "mixed", "template"), help="pictures of one of the lines"
    )
    parser.add_argument("--png", action="store_true", help="as they are, not as small JPEG files")
    wanted = parser.parse_args()
    product, mixed = wanted.store / "product", wanted.store / "mixed"
    if wanted.fill:
        _fill(product, wanted.fill)
    if wanted.out is None:
        return
    wanted.out.mkdir(exist_ok=True)
    if wanted.only in (None, "template"):
        _compared(wanted.out / "template.jpg")
    if wanted.only in (None, "product"):
        with _demo(product) as url, httpx.Client(base_url=url, timeout=30) as client:
            _wait(client, wanted.parts)
            _take(url, _failed(client), wanted.out, png=wanted.png)
        _verdicts(product, wanted.out / "verdicts.jpg")
    if wanted.only in (None, "mixed"):
        with _demo(mixed, "--mixed") as url, httpx.Client(base_url=url, timeout=30) as client:
            _review(client, _unsure(client))
            _take_review(url, wanted.out, png=wanted.png)


def _fill(store: Path, boards: int) -> None:
    words = ["demo", "--fast", "--no-web", "--seed", "2", "--boards", str(boards)]
    subprocess.run([sys.executable, "-m", "pipeline", *words, "--store", str(store)], check=True)


@contextmanager
def _demo(store: Path, *words: str) -> Iterator[str]:
    """Run the demo as a client does; yield the address of its page."""
    log = store.with_suffix(".log")
    all_words = ["demo", "--boards", "100000", "--port", "0", "--store", str(store), *words]
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *all_words],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    try:
        yield _address(log)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _address(log: Path) -> str:
    while True:
        for line in log.read_text().splitlines():
            if line.startswith("dashboard: "):
                return line.split()[1]
        time.sleep(0.1)


def _wait(client: httpx.Client, parts: int) -> None:
    """Wait until so many parts have passed in this run, and a while for the station to be well."""
    passed = 0
    while passed < 2 * parts:
        line = client.get("/api/v1/line").json()
        if line.get("health", {}).get("trusted"):
            query = {"limit": 200, "run": line["run"]}
            passed = len(client.get("/api/v1/parts", params=query).json()["parts"])
            if passed >= parts and line["health"]["level"] == "good":
                return
        time.sleep(0.5)


@contextmanager
def _browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    os.nice(NICE)  # what draws the pages must not take the line's time
    with sync_playwright() as running:
        found = shutil.which("chromium")
        chromium = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def _take(url: str, part: str, out: Path, *, png: bool) -> None:
    with _browser() as chromium:
        for theme in ("light", "dark"):
            page = chromium.new_page(viewport=SIZE, color_scheme=theme)
            for name in PAGES:
                _open(page, url, name, part)
                _keep(page, out / f"web-{name}{'-dark' if theme == 'dark' else ''}", png)
        phone = chromium.new_page(viewport=PHONE, color_scheme="light")
        for name in PAGES if png else ("line",):
            _open(phone, url, name, part)
            _keep(phone, out / f"web-{name}-phone", png)
        page = chromium.new_page(viewport=SIZE)
        _open(page, url, "line", part)
        page.keyboard.press("o")
        page.wait_for_timeout(500)
        _keep(page, out / "web-operator", png)
        page.keyboard.press("Escape")
        page.click("[data-fault=lamp]")
        page.wait_for_selector(".alarm.fault >> text=too dark")
        page.evaluate("window.scrollTo(0, 0)")
        page.wait_for_timeout(700)
        _keep(page, out / "web-fault", png)
        page.click("[data-fault=lamp]")


def _take_review(url: str, out: Path, *, png: bool) -> None:
    with _browser() as chromium:
        for theme in ("light", "dark"):
            page = chromium.new_page(viewport=SIZE, color_scheme=theme)
            _open(page, url, "review", "")
            page.wait_for_selector("text=Is this part good?")
            page.wait_for_timeout(500)
            _keep(page, out / f"web-review{'-dark' if theme == 'dark' else ''}", png)


def _failed(client: httpx.Client) -> str:
    """Return the id of a failed part with several defects."""
    found = client.get("/api/v1/parts", params={"limit": 200, "verdict": "FAIL"}).json()["parts"]
    return str(max((p for p in found if p["picture"]), key=lambda p: len(p["labels"]))["id"])


def _unsure(client: httpx.Client) -> list[dict[str, Any]]:
    """Wait for some unsure parts of this run, whose truth is known; return them, newest first."""
    while True:
        query = {"limit": 200, "verdict": "UNSURE"}
        found = client.get("/api/v1/parts", params=query).json()["parts"]
        known = [p for p in found if p["good"] is not None and p["picture"]]
        if len(known) >= UNSURE:
            return known
        time.sleep(0.5)


def _review(client: httpx.Client, parts: list[dict[str, Any]]) -> None:
    """Review all but the newest two, as the line's truth has them."""
    for part in parts[2:]:
        body = {"verdict": "PASS" if part["good"] else "FAIL"}
        path = f"/api/v1/parts/{part['id']}/review"
        client.post(path, json=body, headers=token(client)).raise_for_status()


def _open(page: Any, url: str, name: str, part: str) -> None:
    page.goto(f"{url}parts/{part}" if name == "part" else f"{url}{name}")
    page.wait_for_selector("#main > *")
    page.wait_for_selector("#state:not(.off)")
    if name == "line":
        from playwright.sync_api import TimeoutError as NotWell

        with suppress(NotWell):
            page.wait_for_selector(".pill.good", timeout=WELL_MS)
    if name == "recipes":
        page.fill("[aria-label='open fail']", "0.6")
        page.click("button.main")
    page.wait_for_timeout(2500 if name in ("line", "quality") else 1200)


def _keep(page: Any, file: Path, png: bool) -> None:
    shot = page.screenshot()
    if png:
        file.with_suffix(".png").write_bytes(shot)
        return
    image = cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    if image.shape[1] > SHOWN_PX:
        size = SHOWN_PX, round(image.shape[0] * SHOWN_PX / image.shape[1])
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(file.with_suffix(".jpg")), image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def _verdicts(store: Path, file: Path) -> None:
    """Show two boards with what counted against them: one that failed, one that passed."""
    records = [r for r in read_records(store) if r.image is not None and r.image_box is not None]
    failed = next(r for r in records if r.verdict is Verdict.FAIL and 3 <= len(r.reasons) <= 6)
    passed = next(r for r in records if r.verdict is Verdict.PASS)
    both = [_board(store, record) for record in (failed, passed)]
    gap = np.full((both[0].shape[0], 12, 3), 255, np.uint8)
    cv2.imwrite(str(file), np.hstack([both[0], gap, both[1]]), [cv2.IMWRITE_JPEG_QUALITY, 88])


def _compared(file: Path) -> None:
    """Show a board, its template, and their difference with what the model finds in it."""
    rng = np.random.default_rng(COMPARED_SEED)
    whole = draw_board(rng, SIDE).copper
    copper, _ = damage(whole, 5, rng)
    look = LOOKS["green"]
    board, template = photograph(copper, look, rng), photograph_again(whole, look, rng)
    pair = Template(template).beside(board)
    bundle = open_bundle(shipped("models/boards-pair-n"))
    detector = open_detector(bundle, "onnx", plugins.load("runtimes", "onnx").Options())
    found = detector.detect(pair)
    least = np.array([bundle.manifest.thresholds[label].unsure for label in detector.labels])
    marks = marks_of(found[found.score >= least[found.label]], detector.labels)
    apart = cv2.convertScaleAbs(np.repeat(pair[..., 2:], 3, axis=2), alpha=2)
    shown = [
        annotate(board, marks, Verdict.FAIL, "a board, with what was found"),
        annotate(template, (), Verdict.PASS, "its template"),
        annotate(apart, (), Verdict.FAIL, "where they differ, twice as bright"),
    ]
    gap = np.full((shown[0].shape[0], 12, 3), 255, np.uint8)
    wide = np.hstack([shown[0], gap, shown[1], gap, shown[2]])
    small = cv2.resize(wide, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(file), small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def _board(store: Path, record: Record) -> Any:
    assert record.image_box is not None
    picture, box = stored_picture(store, record), Box(*record.image_box)
    counted = [
        Defect(d.label, d.score, d.xyxy, d.votes)
        for d in record.defects
        if any(reason.startswith(f"{d.label} {d.score:.2f} ") for reason in record.reasons)
    ]
    labels = tuple(sorted({d.label for d in record.defects}))
    caption = f"part {record.part}  {'; '.join(record.reasons[:2]) or f'{record.views} views'}"
    x0, y0 = max(round(box.x0) - MARGIN, 0), max(round(box.y0) - MARGIN, 0)
    cut = picture[y0 : round(box.y1) + MARGIN, x0 : round(box.x1) + MARGIN]
    part = Box(box.x0 - x0, box.y0 - y0, box.x1 - x0, box.y1 - y0)
    drawn = annotate(cut.copy(), marks_of_defects(counted, part, labels), record.verdict, caption)
    return cv2.resize(drawn, BOARD_PX, interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    main()
