"""Updates: who may bring one, that half of one never runs, and that a bad one goes back."""

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline import signing
from pipeline.errors import ConfigError, UpdateError
from pipeline.shipped import shipped
from pipeline.update import order as orders
from pipeline.update.kinds import AppKind, ModelKind
from pipeline.update.slots import COMPLETE, Slots, State
from pipeline.update.source import Folder, Web, fetch, source_of
from pipeline.update.updater import TRIALS, Updater, Watch

pytest.importorskip("cryptography", reason="pip install 'lineguard[signing]'")

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass
class Notes:
    """A kind of update whose releases are a page of text; one that says ``bad`` proves nothing."""

    name: str = "model"

    def stage(self, payload: Path, release: Path) -> None:
        shutil.copytree(payload, release)

    def prove(self, release: Path) -> None:
        if "bad" in (release / "note").read_text():
            raise UpdateError("the new model does not prove itself: it is bad")


@dataclass
class Plant:
    """Someone who signs updates, and a station that takes them.

    Attributes:
        sick: releases whose note says this are not well in their probation.
        dead: the station does not even start with releases whose note says this.
        restarts: what was at work at each restart of the station.
    """

    folder: Path
    sick: str = "sick"
    dead: str = "dead"
    restarts: list[str] = field(default_factory=list)

    @property
    def slots(self) -> Slots:
        return Slots(self.folder / "slots")

    @property
    def key(self) -> Path:
        return self.folder / "plant.key"

    def offer(self, note: str, sequence: int, **page: Any) -> Path:
        """Make a signed update and return its folder."""
        folder = self.folder / f"update-{sequence}-{note}"
        (folder / "payload" / "deep").mkdir(parents=True)
        (folder / "payload" / "note").write_text(note)
        (folder / "payload" / "deep" / "weights").write_bytes(bytes(3000))
        given = {"kind": "model", "version": note, "target": "cpu"} | page
        orders.make(folder, self.key, sequence=sequence, **given)
        return folder

    def updater(self, durable: Callable[[str], None] = lambda what: None) -> Updater:
        trust = signing.read_trust([self.folder / "plant.pub"])
        slots = Slots(self.folder / "slots", durable)
        return Updater(slots, Notes(), trust, "cpu", Watch(self.restart, self.well))

    def restart(self) -> None:
        self.restarts.append(self.at_work)
        if self.at_work == self.dead:
            raise UpdateError("--restart systemctl: Job for lineguard@line-1.service failed")

    def well(self) -> str | None:
        return "it is sick" if self.at_work == self.sick else None

    def take(self, folder: Path, now: datetime = NOW) -> str:
        return self.updater().apply(Folder(folder), now)

    @property
    def at_work(self) -> str:
        """The note of the release that current points to; it must be complete."""
        at = self.folder / "slots" / "current"
        if not at.is_symlink():
            return ""
        assert at.resolve().with_name(at.resolve().name + COMPLETE).is_file()
        assert (at / "deep" / "weights").read_bytes() == bytes(3000)
        return (at / "note").read_text()


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    made = Plant(tmp_path)
    signing.generate(made.key, tmp_path / "plant.pub")
    return made


def test_an_update_is_put_to_work_and_the_one_before_is_kept(plant: Plant) -> None:
    plant.take(plant.offer("one", 1))
    release = plant.take(plant.offer("two", 2))
    assert plant.at_work == "two"
    assert plant.slots.at("current") == release
    assert plant.slots.at("previous").startswith("one-")
    assert plant.restarts == ["one", "two"]


def test_releases_that_nobody_needs_are_removed(plant: Plant) -> None:
    for number, note in enumerate(("one", "two", "three"), start=1):
        plant.take(plant.offer(note, number))
    left = sorted(p.name.split("-")[0] for p in (plant.folder / "slots" / "releases").iterdir())
    assert left == ["three", "three", "two", "two"]
    assert not (plant.folder / "slots" / "incoming").exists()


def change_note(folder: Path) -> None:
    (folder / "payload" / "note").write_text("evil"[:3])


def change_size(folder: Path) -> None:
    (folder / "payload" / "note").write_text("longer than it was")


def shorten(folder: Path) -> None:
    (folder / "payload" / "note").write_text("")


def remove_a_file(folder: Path) -> None:
    (folder / "payload" / "note").unlink()


def link_a_file(folder: Path) -> None:
    (folder / "payload" / "note").unlink()
    (folder / "payload" / "note").mkdir()


def change_page(folder: Path) -> None:
    page = folder / orders.PAGE
    page.write_bytes(page.read_bytes().replace(b'"cpu"', b'"any"'))


def remove_signature(folder: Path) -> None:
    (folder / orders.SIGNATURE).unlink()


def sign_as_somebody_else(folder: Path) -> None:
    key = folder / "other.key"
    signing.generate(key, folder / "other.pub")
    data = (folder / orders.PAGE).read_bytes()
    (folder / orders.SIGNATURE).write_bytes(signing.sign(data, key, orders.UPDATE))


def sign_as_a_bundle(folder: Path) -> None:
    data = (folder / orders.PAGE).read_bytes()
    key = folder.parent / "plant.key"
    (folder / orders.SIGNATURE).write_bytes(signing.sign(data, key, b"another context\0"))


def flood_the_page(folder: Path) -> None:
    with (folder / orders.PAGE).open("ab") as page:
        page.truncate(orders.MAX_PAGE_BYTES + 1)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change_note, "do not match the signed page"),
        (change_size, "longer than"),
        (shorten, "ended after 0 of 3 bytes"),
        (remove_a_file, "No such file"),
        (link_a_file, "note"),
        (change_page, "does not fit"),
        (remove_signature, "No such file"),
        (sign_as_somebody_else, "does not trust"),
        (sign_as_a_bundle, "does not fit"),
        (flood_the_page, "larger than"),
    ],
)
def test_what_is_not_as_it_was_signed_is_refused(
    plant: Plant, spoil: Callable[[Path], None], said: str
) -> None:
    plant.take(plant.offer("old", 1))
    folder = plant.offer("new", 2)
    spoil(folder)
    with pytest.raises(UpdateError, match=said):
        plant.take(folder)
    assert plant.at_work == "old"
    assert plant.slots.state().phase == "idle"


@pytest.mark.parametrize(
    ("page", "sequence", "said"),
    [
        ({}, 5, "sequence 5 is not above 5"),
        ({}, 4, "an old update is never taken again"),
        ({"target": "gpu"}, 6, "for the target 'gpu', this is a 'cpu'"),
        ({"kind": "app"}, 6, "of kind 'app', not 'model'"),
        ({"not_after": NOW - timedelta(days=1)}, 6, "ask for a newer one"),
    ],
)
def test_what_is_not_for_this_station_or_not_for_now_is_refused(
    plant: Plant, page: dict[str, Any], sequence: int, said: str
) -> None:
    plant.take(plant.offer("old", 5))
    with pytest.raises(UpdateError, match=said):
        plant.take(plant.offer("new", sequence, **page))
    assert plant.at_work == "old"


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../b", "a//b", ".ssh/x", "a\\b", "a\n"])
def test_a_path_that_leaves_the_payload_is_refused_even_if_signed(plant: Plant, path: str) -> None:
    folder = plant.offer("new", 1)
    page = json.loads((folder / orders.PAGE).read_bytes())
    page["files"][path] = {"size": 1, "sha256": "0" * 64}
    data = json.dumps(page).encode()
    (folder / orders.PAGE).write_bytes(data)
    (folder / orders.SIGNATURE).write_bytes(signing.sign(data, plant.key, orders.UPDATE))
    with pytest.raises(UpdateError, match="not a plain one"):
        plant.take(folder)


def test_what_does_not_prove_itself_is_never_put_to_work(plant: Plant) -> None:
    plant.take(plant.offer("old", 1))
    with pytest.raises(UpdateError, match="it is bad"):
        plant.take(plant.offer("bad", 2))
    assert plant.at_work == "old"
    assert plant.restarts == ["old"]


def test_what_is_not_well_in_its_probation_goes_back(plant: Plant) -> None:
    plant.take(plant.offer("old", 1))
    with pytest.raises(UpdateError, match=r"it is sick; old-.* is at work again"):
        plant.take(plant.offer("sick", 2))
    assert plant.at_work == "old"
    assert plant.restarts == ["old", "sick", "old"]


def test_what_the_station_cannot_start_with_goes_back_at_once(plant: Plant) -> None:
    plant.take(plant.offer("old", 1))
    with pytest.raises(UpdateError, match=r"service failed; old-.* is at work again"):
        plant.take(plant.offer("dead", 2))
    assert plant.at_work == "old"
    assert plant.restarts == ["old", "dead", "old"]
    assert plant.slots.state().phase == "idle"


def test_what_went_back_is_not_taken_again(plant: Plant) -> None:
    plant.take(plant.offer("old", 1))
    folder = plant.offer("sick", 2)
    for _ in range(2):
        with pytest.raises(UpdateError):
            plant.take(folder)
    assert plant.restarts == ["old", "sick", "old"]


def test_a_release_that_takes_the_station_down_goes_back_after_two_trials(plant: Plant) -> None:
    plant.take(plant.offer("old", 1))
    new = plant.take(plant.offer("new", 2))
    old = plant.slots.at("previous")
    plant.slots.keep(State("probation", 2, new, old, trials=TRIALS))
    with pytest.raises(UpdateError, match="did not come through its probation"):
        plant.updater().resume()
    assert plant.at_work == "old"


def test_a_station_knows_whether_an_offer_is_news(plant: Plant) -> None:
    one, two = plant.offer("one", 1), plant.offer("two", 2)
    plant.take(one)
    assert not plant.updater().is_news(Folder(one))
    assert plant.updater().is_news(Folder(two))


def test_a_person_can_go_back(plant: Plant) -> None:
    plant.take(plant.offer("one", 1))
    plant.take(plant.offer("two", 2))
    plant.updater().rollback()
    assert plant.at_work == "one"
    with pytest.raises(UpdateError, match="no release to go back to"):
        plant.updater().rollback()


def test_two_updates_do_not_work_at_once(plant: Plant) -> None:
    folder = plant.offer("one", 1)
    with plant.slots.alone(), pytest.raises(UpdateError, match="another update is at work"):
        plant.take(folder)


@pytest.mark.parametrize(
    "page", ["", "{", "[]", '{"phase": "lost"}', '{"phase": "lost", "refused": []}']
)
def test_a_damaged_state_is_said_in_one_line(plant: Plant, page: str) -> None:
    (plant.folder / "slots").mkdir()
    (plant.folder / "slots" / "update.state").write_text(page)
    with pytest.raises(UpdateError, match=r"update\.state"):
        plant.updater().resume()


# -- the power goes -------------------------------------------------------------------------------

CUT = """
import os, signal, sys
from pathlib import Path
from pipeline.update.source import Folder
from tests.test_update import NOW, Plant
folder, update, after = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
count = 0
def durable(what):
    global count
    count += 1
    print(what, flush=True)
    if count == after:
        os.kill(os.getpid(), signal.SIGKILL)
Plant(folder).updater(durable).apply(Folder(update), NOW)
"""


def cut_after(plant: Plant, update: Path, steps: int) -> "subprocess.CompletedProcess[str]":
    """Apply an update in a process that is killed after some durable steps."""
    return subprocess.run(
        [sys.executable, "-c", CUT, str(plant.folder), str(update), str(steps)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def fresh(folder: Path) -> Plant:
    """Return a plant whose station has one release."""
    folder.mkdir()
    made = Plant(folder)
    signing.generate(made.key, folder / "plant.pub")
    made.take(made.offer("old", 1))
    return made


def durable_steps(plant: Plant, note: str) -> list[str]:
    """Return the names of the steps of an update that nobody cuts off."""
    return cut_after(plant, plant.offer(note, 2), 0).stdout.splitlines()


def test_a_power_cut_in_any_step_leaves_one_whole_release_at_work(tmp_path: Path) -> None:
    steps = durable_steps(fresh(tmp_path / "whole"), "new")
    assert len(steps) >= 8
    for number, step in enumerate(steps, start=1):
        plant = fresh(tmp_path / f"cut-{number}")
        update = plant.offer("new", 2)
        assert cut_after(plant, update, number).returncode == -signal.SIGKILL
        assert plant.at_work in ("old", "new"), f"cut after: {step}"
        assert plant.updater().resume().phase == "idle"
        if plant.at_work == "old":
            plant.take(update)
        assert plant.at_work == "new"
        assert plant.slots.at("previous").startswith("old-")


def test_a_power_cut_in_any_step_of_a_sick_update_ends_with_the_one_before(tmp_path: Path) -> None:
    steps = durable_steps(fresh(tmp_path / "whole"), "sick")
    first = steps.index("state swapping") + 1
    for number, step in enumerate(steps[first - 1 :], start=first):
        plant = fresh(tmp_path / f"cut-{number}")
        assert cut_after(plant, plant.offer("sick", 2), number).returncode == -signal.SIGKILL
        with suppress(UpdateError):
            plant.updater().resume()
        assert plant.at_work == "old", f"cut after: {step}"
        assert plant.slots.state().phase == "idle"
        assert plant.restarts[-1] == "old"


# -- from a web server ----------------------------------------------------------------------------


class Flaky(http.server.SimpleHTTPRequestHandler):
    """A server that breaks off every answer after 1000 bytes, and knows ranges."""

    served: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.served.append(self.headers.get("Range", "all"))
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            self.send_error(404)
            return
        data, start = file.read_bytes(), 0
        if self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        limit = 1000 if "weights" in file.name else len(data)
        self.wfile.write(data[start : start + limit])

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    Flaky.served = []
    made = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Flaky, directory=str(tmp_path))
    )
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()
    thread.join()


def test_a_download_that_breaks_off_goes_on_where_it_stopped(plant: Plant, server: str) -> None:
    update = plant.offer("new", 1)
    source = source_of(f"{server}/{update.name}")
    for _ in range(2):
        with pytest.raises(UpdateError, match="goes on there"):
            plant.updater().apply(source, NOW)
    assert plant.updater().apply(source, NOW).startswith("new-")
    assert plant.at_work == "new"
    assert {"bytes=1000-", "bytes=2000-"} <= set(Flaky.served)


def test_a_server_that_has_no_update_is_said_in_one_line(plant: Plant, server: str) -> None:
    with pytest.raises(UpdateError, match="404"):
        plant.updater().apply(Web(f"{server}/nothing"), NOW)


def test_a_place_that_is_neither_folder_nor_web_is_refused() -> None:
    with pytest.raises(ConfigError, match="http:// or https://"):
        source_of("ftp://127.0.0.1/update")


def test_what_is_longer_than_said_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(5000))
    with pytest.raises(UpdateError, match="longer than the 1000 bytes"):
        fetch(Folder(tmp_path), "file", 1000, tmp_path / "to", lambda: None)
    assert (tmp_path / "to").stat().st_size == 1000


# -- real kinds -----------------------------------------------------------------------------------


def test_the_shipped_model_proves_itself(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    kind = ModelKind("onnx")
    kind.stage(shipped("models/boards-n"), tmp_path / "release")
    kind.prove(tmp_path / "release")


def test_a_damaged_model_does_not_prove_itself(tmp_path: Path) -> None:
    kind = ModelKind("onnx")
    kind.stage(shipped("models/boards-n"), tmp_path / "release")
    model = next((tmp_path / "release").glob("*.onnx"))
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(UpdateError, match="does not prove itself"):
        kind.prove(tmp_path / "release")


INSTALLER = """
while [ $# -gt 0 ]; do [ "$1" = --stage ] && name=$2; shift; done
mkdir -p {slots}/releases/$name/bin
printf '#!/bin/sh\\nexit {code}\\n' > {slots}/releases/$name/bin/lineguard
chmod +x {slots}/releases/$name/bin/lineguard
"""


@pytest.mark.parametrize(("code", "well"), [(0, True), (3, False)])
def test_a_program_is_made_by_its_own_installer_and_asked(
    tmp_path: Path, code: int, well: bool
) -> None:
    payload, release = tmp_path / "payload", tmp_path / "slots" / "releases" / "two"
    installer = payload / "deploy" / "station" / "install.sh"
    installer.parent.mkdir(parents=True)
    installer.write_text(INSTALLER.format(slots=tmp_path / "slots", code=code))
    kind = AppKind("cpu")
    kind.stage(payload, release)
    if well:
        kind.prove(release)
    else:
        with pytest.raises(UpdateError, match="ended with 3"):
            kind.prove(release)


def test_the_command_makes_and_takes_an_update(plant: Plant) -> None:
    pytest.importorskip("onnxruntime")
    folder = plant.folder / "stick"
    shutil.copytree(shipped("models/boards-n"), folder / "payload")

    def lineguard(*words: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "pipeline", "update", *map(str, words)], cwd=REPOSITORY,
            capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip

    made = lineguard("make", folder, "--key", plant.key, "--version", "1.0", "--sequence", 1)
    assert made.returncode == 0, made.stderr
    taken = lineguard(
        "apply", folder, "--target", "cpu", "--key", plant.folder / "plant.pub",
        "--folder", plant.folder / "slots", "--restart", "true", "--health-port", 9,
        "--steady-s", 0.1, "--probation-s", 0.5,
    )  # fmt: skip
    assert taken.returncode == 65
    assert "no release before it to go back to" in taken.stderr
    status = lineguard("status", "--folder", plant.folder / "slots", "--json", "-")
    assert json.loads(status.stdout)["sequence"] == 1
