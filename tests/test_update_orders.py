"""Updates ordered by message: who may order one, what is fetched, and what the sender hears."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from pipeline import signing
from pipeline.errors import UpdateError
from pipeline.publishers.mqtt import Options
from pipeline.update import order as orders
from pipeline.update.listener import Listener, carry_out
from pipeline.update.message import MAX_MESSAGE_BYTES, message_of, read_message
from pipeline.update.source import Folder
from tests.brokers import ANYONE, HOST, Subscriber, free_port, mosquitto, until
from tests.test_update import REPOSITORY, Plant, change_page, sign_as_somebody_else

pytest.importorskip("cryptography", reason="pip install 'lineguard[signing]'")

TOPIC = "lineguard/v1/acme/north/smt/line-2/aoi-1/update"


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    made = Plant(tmp_path)
    signing.generate(made.key, tmp_path / "plant.pub")
    return made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def port(tmp_path: Path, stack: ExitStack) -> int:
    number = free_port()
    stack.enter_context(mosquitto(tmp_path, number, ANYONE))
    return number


@pytest.fixture
def answers(port: int, stack: ExitStack) -> Subscriber:
    heard = Subscriber(port, f"{TOPIC}/answer/+")
    stack.callback(heard.close)
    return heard


@contextmanager
def listening(plant: Plant, port: int, files: Path, again_s: float = 600) -> Iterator[Listener]:
    """Run a station that takes orders; models come from ``files``."""
    take = partial(carry_out, plant.updater(), plant.slots, Folder(files))
    listener = Listener(
        Options(port=port), TOPIC, {"model": take, "app": take}, frozenset({"app"}), again_s
    )
    thread = threading.Thread(target=listener.run, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        listener.stop()
        thread.join(30)
        assert not thread.is_alive(), "the listener hangs"


def publish(port: int, payload: bytes, leaf: str = "order/model", retain: bool = True) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.connect(HOST, port)
    client.loop_start()
    client.publish(f"{TOPIC}/{leaf}", payload, qos=1, retain=retain).wait_for_publish(30)
    client.disconnect()
    client.loop_stop()


def test_an_ordered_update_is_put_to_work_and_the_sender_hears_of_it(
    plant: Plant, port: int, answers: Subscriber
) -> None:
    update = plant.offer("new", 1)
    with listening(plant, port, update):
        publish(port, message_of(update))
        until(lambda: bool(answers.heard), "an answer")
    answer = answers.heard[0]
    assert answer.topic == f"{TOPIC}/answer/model"
    assert answer.data["ok"] and not answer.data["again"]
    assert answer.data["current"] == plant.slots.at("current")
    assert plant.at_work == "new"


def test_a_station_that_was_away_finds_its_order_and_its_answer_stays(
    plant: Plant, port: int
) -> None:
    update = plant.offer("new", 1)
    publish(port, message_of(update))
    with listening(plant, port, update):
        until(lambda: plant.at_work == "new", "the update")
        until(lambda: plant.slots.state().phase == "idle", "its end")
    late = Subscriber(port, f"{TOPIC}/answer/model")
    until(lambda: bool(late.heard), "the answer that the broker keeps")
    late.close()
    assert late.heard[0].retained and late.heard[0].data["ok"]


def test_an_order_that_is_repeated_changes_nothing(
    plant: Plant, port: int, answers: Subscriber
) -> None:
    update = plant.offer("new", 1)
    with listening(plant, port, update):
        for count in (1, 2):
            publish(port, message_of(update))
            until(lambda n=count: len(answers.heard) >= n, "an answer")  # type: ignore[misc]
    assert answers.heard[-1].data["said"] == "nothing newer was ordered"
    assert plant.restarts == ["new"]


def garbage(folder: Path) -> bytes:
    return b"\xff{" + folder.name.encode()


def a_command(folder: Path) -> bytes:
    return json.dumps({"command": "reboot", "folder": folder.name}).encode()


def too_deep(folder: Path) -> bytes:
    return message_of(folder)[:-1] + b',"x":' + b"[" * 10_000


def no_signature(folder: Path) -> bytes:
    page = (folder / orders.PAGE).read_text()
    return json.dumps({"page": page, "signature": ""}).encode()


def a_changed_page(folder: Path) -> bytes:
    change_page(folder)
    return message_of(folder)


def a_strange_key(folder: Path) -> bytes:
    sign_as_somebody_else(folder)
    return message_of(folder)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (garbage, "not an order"),
        (a_command, "not an order"),
        (too_deep, "not an order"),
        (no_signature, "not a signature"),
        (a_changed_page, "does not fit"),
        (a_strange_key, "does not trust"),
    ],
)
def test_what_no_trusted_key_signed_is_refused_and_nothing_is_fetched(
    plant: Plant, port: int, answers: Subscriber, made: Callable[[Path], bytes], said: str
) -> None:
    plant.take(plant.offer("old", 1))
    update = plant.offer("new", 2)
    with listening(plant, port, update):
        publish(port, made(update))
        until(lambda: bool(answers.heard), "an answer")
    answer = answers.heard[0].data
    assert not answer["ok"] and not answer["again"]
    assert said in answer["said"] and "\n" not in answer["said"]
    assert plant.at_work == "old" and plant.restarts == ["old"]
    assert not (plant.folder / "slots" / "incoming").exists()


def test_what_does_not_stay_well_goes_back_and_is_not_tried_again(
    plant: Plant, port: int, answers: Subscriber
) -> None:
    plant.take(plant.offer("old", 1))
    update = plant.offer("sick", 2)
    with listening(plant, port, update):
        publish(port, message_of(update))
        until(lambda: bool(answers.heard), "an answer")
    assert "is at work again" in answers.heard[0].data["said"]
    assert not answers.heard[0].data["again"]
    assert plant.at_work == "old"


def test_an_order_whose_files_come_later_is_tried_again(
    plant: Plant, port: int, answers: Subscriber, tmp_path: Path
) -> None:
    update, server = plant.offer("new", 1), tmp_path / "server"
    with listening(plant, port, server, again_s=0.1):
        publish(port, message_of(update))
        until(lambda: bool(answers.heard), "an answer")
        assert not answers.heard[0].data["ok"] and answers.heard[0].data["again"]
        shutil.copytree(update / "payload", tmp_path / "half")
        server.mkdir()
        (tmp_path / "half").rename(server / "payload")
        until(lambda: bool(answers.heard[-1].data["ok"]), "the update")
    assert plant.at_work == "new"


def test_it_ends_once_the_program_was_replaced(plant: Plant, port: int) -> None:
    update = plant.offer("new", 1)
    take = partial(carry_out, plant.updater(), plant.slots, Folder(update))
    listener = Listener(Options(port=port), TOPIC, {"app": take}, frozenset({"app"}))
    publish(port, message_of(update), "order/app")
    listener.run()
    assert plant.at_work == "new"


def test_a_message_that_is_too_large_is_not_even_sent_to_the_station(
    plant: Plant, port: int, answers: Subscriber
) -> None:
    update = plant.offer("new", 1)
    with listening(plant, port, update):
        publish(port, b" " * (MAX_MESSAGE_BYTES + 2048), retain=False)
        publish(port, message_of(update))
        until(lambda: bool(answers.heard), "an answer")
    assert [answer.data["ok"] for answer in answers.heard] == [True]


def test_a_message_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match="more than"):
        read_message(b" " * (MAX_MESSAGE_BYTES + 1), Folder(tmp_path))


def test_the_commands_order_and_listen(plant: Plant, port: int, answers: Subscriber) -> None:
    def lineguard(*words: object) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", "update", *map(str, words)], cwd=REPOSITORY,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip

    update = plant.offer("new", 1, target="gpu")
    message, error = lineguard("order", update).communicate(timeout=120)
    assert message == message_of(update), error
    station = lineguard(
        "listen", "--topic", TOPIC, "--files", plant.folder, "--target", "cpu", "--broker",
        f"{HOST}:{port}", "--key", plant.folder / "plant.pub", "--health-port", 9,
        "--folder", plant.folder / "slots", "--restart", "true",
    )  # fmt: skip
    try:
        publish(port, message)
        until(lambda: bool(answers.heard), "an answer")
        station.send_signal(signal.SIGTERM)
        _, error = station.communicate(timeout=60)
    finally:
        station.kill()
        station.wait()
    assert station.returncode == 0, error
    assert "for the target 'gpu', this is a 'cpu'" in answers.heard[0].data["said"]
