"""What every publisher keeps, whatever it is made of."""

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.demo_broker import DemoBroker
from pipeline.errors import ConfigError, MissingExtra, PublishError
from pipeline.plugins import kinds, load
from pipeline.publishers import Address, Publisher
from pipeline.schema import EXAMPLE
from tests.hooks import SECRET, hook

ADDRESS = Address("acme", "north", "smt", "line-2", "aoi-1")
RECORDS = tuple(replace(EXAMPLE, id=f"{n:08d}-0000-7000-8000-000000000000") for n in range(30))
Make = Callable[[], Publisher]


def _file(tmp_path: Path, stack: ExitStack) -> dict[str, Any]:
    del stack
    return {"path": tmp_path / "events.jsonl"}


def _mqtt(tmp_path: Path, stack: ExitStack) -> dict[str, Any]:
    del tmp_path
    try:
        broker = stack.enter_context(DemoBroker())
    except MissingExtra as error:
        pytest.skip(str(error))
    return {"port": broker.port}


def _webhook(tmp_path: Path, stack: ExitStack) -> dict[str, Any]:
    (tmp_path / "secret").write_text(SECRET)
    received = stack.enter_context(hook())
    url = f"http://127.0.0.1:{received.port}/records"
    return {"url": url, "secret_file": tmp_path / "secret"}


SET_UP = {"file": _file, "mqtt": _mqtt, "sparkplug": _mqtt, "webhook": _webhook}


@pytest.fixture(params=sorted(SET_UP))
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Yield a function that makes a publisher whose receiver is there."""
    kind = request.param
    with ExitStack() as stack:
        plugin = load("publishers", kind)
        options = plugin.Options(**SET_UP[kind](tmp_path, stack))

        def made() -> Publisher:
            publisher: Publisher = plugin.create(options, ADDRESS)
            stack.callback(publisher.close)
            return publisher

        yield made


def test_every_kind_is_tested_here() -> None:
    assert set(kinds("publishers")) == set(SET_UP)


def test_every_record_is_confirmed_by_its_id(make: Make) -> None:
    publisher = make()
    assert set(publisher.send(RECORDS)) == {record.id for record in RECORDS}


def test_nothing_sent_is_nothing_confirmed(make: Make) -> None:
    assert make().send(()) == ()


def test_a_record_may_be_offered_again(make: Make) -> None:
    publisher = make()
    assert publisher.send(RECORDS[:1]) == publisher.send(RECORDS[:1]) == (RECORDS[0].id,)


@pytest.mark.parametrize("state", [{}, {"state": "running", "ready": True}, {"odd": {1: object()}}])
def test_a_state_never_raises(make: Make, state: dict[str, Any]) -> None:
    publisher = make()
    publisher.state(state)
    publisher.send(RECORDS[:1])
    publisher.state(state)
    publisher.close()
    publisher.state(state)


def test_a_state_that_contains_itself_does_not_raise_either(make: Make) -> None:
    state: dict[str, Any] = {}
    state["self"] = state
    make().state(state)


def test_no_trouble_is_known_of_a_receiver_that_takes_records(make: Make) -> None:
    publisher = make()
    publisher.send(RECORDS[:1])
    assert publisher.trouble == ""


def test_close_may_be_called_twice(make: Make) -> None:
    publisher = make()
    publisher.close()
    publisher.close()


def test_a_second_publisher_goes_on_where_the_first_closed(make: Make) -> None:
    first = make()
    first.send(RECORDS[:10])
    first.close()
    assert set(make().send(RECORDS[10:])) == {record.id for record in RECORDS[10:]}


def test_a_file_holds_one_event_a_line(tmp_path: Path) -> None:
    plugin = load("publishers", "file")
    path = tmp_path / "events.jsonl"
    publisher = plugin.create(plugin.Options(path=path), ADDRESS)
    publisher.send(RECORDS[:2])
    publisher.send(RECORDS[2:3])
    events = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [event["id"] for event in events] == [record.id for record in RECORDS[:3]]


def test_a_file_that_cannot_take_it_all_takes_nothing(tmp_path: Path) -> None:
    plugin = load("publishers", "file")
    path = tmp_path / "events.jsonl"
    publisher = plugin.create(plugin.Options(path=path), ADDRESS)
    publisher.send(RECORDS[:1])
    before = path.read_bytes()
    with files_up_to(len(before) + 100), pytest.raises(PublishError, match="File too large"):
        publisher.send(RECORDS[1:3])
    assert path.read_bytes() == before
    publisher.send(RECORDS[1:3])
    assert len(path.read_bytes().splitlines()) == 3


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: a full disk, as far as writing goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_half_a_line_left_by_a_power_cut_spoils_no_other(tmp_path: Path) -> None:
    plugin = load("publishers", "file")
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"id":"half')
    plugin.create(plugin.Options(path=path), ADDRESS).send(RECORDS[:2])
    lines = path.read_bytes().splitlines()
    assert lines[0] == b'{"id":"half'
    assert [json.loads(line)["id"] for line in lines[1:]] == [r.id for r in RECORDS[:2]]


@pytest.mark.parametrize("path", ["/nowhere/events.jsonl", "/dev", "/dev/null"])
def test_a_file_that_cannot_be_one_is_a_config_error(path: str) -> None:
    plugin = load("publishers", "file")
    with pytest.raises(ConfigError, match=f"^{path}: "):
        plugin.create(plugin.Options(path=Path(path)), ADDRESS)
