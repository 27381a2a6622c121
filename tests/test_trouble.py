"""Faults on demand: what the panel asks for happens to the line, and ends when it is taken back."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.demo_broker import DemoBroker
from pipeline.disk import free_bytes
from pipeline.errors import CameraError
from pipeline.smalldisk import small_disk
from pipeline.trouble import (
    FILE,
    LAMP,
    OFFERED,
    BrokerSwitch,
    DiskSwitch,
    Trouble,
    TroubledCamera,
    read_wishes,
)
from tests.doubles import Belt, ScriptedCamera, until


@pytest.fixture
def broker() -> Iterator[DemoBroker]:
    pytest.importorskip("iotcore", reason="the demo's broker is not installed")
    with DemoBroker() as running:
        yield running


def ask(folder: Path, **faults: bool) -> None:
    (folder / "new").write_text(json.dumps(faults))
    (folder / "new").replace(folder / FILE)


def is_up(broker: DemoBroker) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((broker.host, broker.port)) == 0


def test_an_unplugged_camera_is_lost_and_goes_on_where_it_was(tmp_path: Path) -> None:
    wanted: set[str] = set()
    scripted = ScriptedCamera(Belt().passing()[:4], live=True)
    camera = TroubledCamera(scripted, wanted.__contains__, "top")
    frames = camera.frames()
    assert next(frames).seq == 0
    wanted.add("camera")
    for opening in (frames, camera.frames()):
        with pytest.raises(CameraError, match="unplugged; plug it in"):
            next(opening)
    wanted.clear()
    assert next(camera.frames()).seq > 0


def test_the_broker_is_killed_and_comes_back_on_its_port(
    tmp_path: Path, broker: DemoBroker
) -> None:
    port = broker.port
    with Trouble(tmp_path, {"broker": BrokerSwitch(broker)}):
        ask(tmp_path, broker=True)
        until(lambda: not is_up(broker), "the broker's end")
        ask(tmp_path, broker=False)
        until(lambda: is_up(broker), "the broker's return")
    assert broker.port == port


def test_a_broker_that_is_down_when_the_demo_ends_is_up_for_the_last_records(
    tmp_path: Path, broker: DemoBroker
) -> None:
    with Trouble(tmp_path, {"broker": BrokerSwitch(broker)}):
        ask(tmp_path, broker=True)
        until(lambda: not is_up(broker), "the broker's end")
    assert is_up(broker)


def test_a_dimmed_lamp_leaves_a_third_of_the_light(tmp_path: Path) -> None:
    wanted: set[str] = set()
    scripted = ScriptedCamera(Belt().passing()[:4], live=True)
    frames = TroubledCamera(scripted, wanted.__contains__, "top").frames()
    bright = float(next(frames).image.mean())
    wanted.add(LAMP)
    dim = next(frames)
    assert 0.3 * bright < float(dim.image.mean()) < 0.4 * bright
    assert not dim.image.flags.writeable


def test_a_disk_is_full_as_long_as_is_asked_for(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a small disk needs root")
    with small_disk(tmp_path / "disk", 4) as disk:
        ballast = disk / "ballast"
        with Trouble(tmp_path, {"disk": DiskSwitch(ballast)}):
            ask(tmp_path, disk=True)
            until(lambda: free_bytes(disk) == 0, "the full disk")
            ask(tmp_path, disk=False)
            until(lambda: free_bytes(disk) > 3 << 20, "the room")
            ask(tmp_path, disk=True)
            until(lambda: free_bytes(disk) == 0, "the full disk again")
        assert not ballast.exists()


def test_the_panel_is_told_which_faults_can_be_made(tmp_path: Path) -> None:
    with Trouble(tmp_path, {}, {"disk": "it has no disk of its own"}):
        offered = read_wishes(tmp_path / OFFERED)
    assert offered == {"camera": "", "lamp": "", "disk": "it has no disk of its own"}


@pytest.mark.parametrize("junk", ["", "{", "[]", "null"])
def test_an_unreadable_wish_is_no_wish(tmp_path: Path, junk: str) -> None:
    with Trouble(tmp_path, {}) as trouble:
        (tmp_path / FILE).write_text(junk)
        assert not trouble.has("camera")
        ask(tmp_path, camera=True)
        until(lambda: trouble.has("camera"), "the first readable wish")
