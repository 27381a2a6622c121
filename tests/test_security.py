"""What `lineguard doctor --security` calls unsafe, and that it names what mends it."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import sealing, signing
from pipeline.cli.findings import Finding
from pipeline.cli.security import Machine, examine
from pipeline.shipped import shipped
from tests.conftest import REPOSITORY

pytest.importorskip("cryptography", reason="pip install 'lineguard[signing]'")


@dataclass
class Plant:
    """A machine with one station on it that is as it should be.

    Attributes:
        root: stands for /.
        page: of the station file; ``findings`` writes it.
    """

    root: Path
    page: dict[str, Any]
    clock: bool = True

    @property
    def file(self) -> Path:
        return self.root / "etc" / "lineguard" / "line-1.yaml"

    @property
    def pki(self) -> Path:
        return self.file.parent / "pki"

    def findings(self) -> list[Finding]:
        self.file.write_text(yaml.safe_dump(self.page))
        self.file.chmod(0o644)
        machine = Machine(self.root, lambda: self.clock)
        return examine(machine.stations(), machine)

    def wrong(self) -> list[Finding]:
        return [f for f in self.findings() if not f.well]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    pki = tmp_path / "etc" / "lineguard" / "pki"
    pki.mkdir(parents=True)
    signing.generate(tmp_path / "plant.key", pki / "plant.pub")
    (pki / "plant.pub").chmod(0o644)
    for name, mode in (("ca.crt", 0o644), ("station.crt", 0o644), ("station.key", 0o640)):
        (pki / name).write_text("x")
        (pki / name).chmod(mode)
    bundle = tmp_path / "bundle"
    subprocess.run(["cp", "-r", str(shipped("models/boards-n")), str(bundle)], check=True)
    sealing.sign(bundle, tmp_path / "plant.key")
    page = {
        "station": {"name": "a"},
        "camera": {"kind": "synthetic"},
        "trigger": {"kind": "presence"},
        "model": {
            "bundle": str(bundle),
            "runtime": {"kind": "onnx"},
            "trust": {"keys": ["pki/plant.pub"]},
        },
        "recipe": {"name": "bare-board"},
        "store": {"path": str(tmp_path / "store")},
        "outputs": [{"kind": "modbus"}],
        "publishers": [
            {
                "kind": "mqtt",
                "host": "broker.plant.example",
                "port": 8883,
                "tls": {
                    "ca_file": "pki/ca.crt",
                    "cert_file": "pki/station.crt",
                    "key_file": "pki/station.key",
                },
            }
        ],
    }
    return Plant(tmp_path, page)


def broker(plant: Plant) -> dict[str, Any]:
    said: dict[str, Any] = plant.page["publishers"][0]
    return said


def log_in_with(plant: Plant, password: str) -> None:
    del broker(plant)["tls"]["cert_file"], broker(plant)["tls"]["key_file"]
    (plant.pki / "mqtt").write_text(password)
    (plant.pki / "mqtt").chmod(0o640)
    broker(plant).update(username="aoi-1", password_file="pki/mqtt")


def a_process(plant: Plant, *words: str) -> None:
    folder = plant.root / "proc" / "4711"
    folder.mkdir(parents=True)
    (folder / "cmdline").write_bytes("\0".join((*words, "")).encode())


def without_tls(plant: Plant) -> None:
    del broker(plant)["tls"]


def without_a_certificate(plant: Plant) -> None:
    del broker(plant)["tls"]["cert_file"], broker(plant)["tls"]["key_file"]


def with_a_key_that_all_may_read(plant: Plant) -> None:
    (plant.pki / "station.key").chmod(0o644)


def with_a_known_password(plant: Plant) -> None:
    log_in_with(plant, "Mosquitto\n")


def with_the_name_as_password(plant: Plant) -> None:
    log_in_with(plant, "aoi-1\n")


def with_a_password_that_all_may_read(plant: Plant) -> None:
    log_in_with(plant, "v8Lm2-qPz0")
    (plant.pki / "mqtt").chmod(0o644)


def without_trust(plant: Plant) -> None:
    del plant.page["model"]["trust"]


def with_unsigned_bundles(plant: Plant) -> None:
    plant.page["model"]["trust"]["unsigned"] = True


def with_a_bundle_that_nobody_signed(plant: Plant) -> None:
    plant.page["model"]["bundle"] = str(shipped("models/boards-n"))


def with_a_trusted_key_that_all_may_change(plant: Plant) -> None:
    (plant.pki / "plant.pub").chmod(0o666)


def with_a_store_that_all_may_change(plant: Plant) -> None:
    (plant.root / "store").mkdir()
    (plant.root / "store").chmod(0o777)


def with_a_program_that_all_may_change(plant: Plant) -> None:
    (plant.root / "opt" / "lineguard").mkdir(parents=True)
    (plant.root / "opt" / "lineguard").chmod(0o777)


def with_a_clock_that_nobody_sets(plant: Plant) -> None:
    plant.clock = False


def with_a_file_that_is_wrong(plant: Plant) -> None:
    plant.page["cameras"] = {}


@pytest.mark.parametrize(
    ("spoil", "name", "mend"),
    [
        (without_tls, "broker broker.plant.example", "tls: {ca_file: pki/ca.crt}"),
        (without_a_certificate, "example: login", "cert_file: pki/station.crt"),
        (with_a_key_that_all_may_read, "key", "chmod 0640"),
        (with_a_known_password, "example: login", "openssl rand -base64 24"),
        (with_the_name_as_password, "example: login", "openssl rand -base64 24"),
        (with_a_password_that_all_may_read, "example: password", "chmod 0640"),
        (without_trust, "line-1: model", "lineguard models sign"),
        (with_unsigned_bundles, "line-1: model", "remove `unsigned: true`"),
        (with_a_bundle_that_nobody_signed, "line-1: model", "lineguard models sign"),
        (with_a_trusted_key_that_all_may_change, "trusted key", "chmod 0644"),
        (with_a_store_that_all_may_change, "line-1: store", "chmod 0750"),
        (with_a_program_that_all_may_change, "program", "chmod -R go-w"),
        (with_a_clock_that_nobody_sets, "clock", "systemctl enable --now chrony"),
        (with_a_file_that_is_wrong, "station file", "lineguard config check"),
    ],
)
def test_what_is_unsafe_is_found_with_what_mends_it(
    plant: Plant, spoil: Callable[[Plant], None], name: str, mend: str
) -> None:
    assert not [f for f in plant.findings() if not f.well and f.needed]
    spoil(plant)
    found = [f for f in plant.wrong() if f.needed and name in f.name]
    assert found and mend in found[0].mend
    assert all("\n" not in f.said + f.mend for f in found)


def unguarded(plant: Plant) -> None:
    plant.page["outputs"] = []


def heard_by_all(plant: Plant) -> None:
    plant.page["health"] = {"port": 9464, "host": "0.0.0.0"}


def open_dashboard(plant: Plant) -> None:
    (plant.root / "store").mkdir(mode=0o750)


@pytest.mark.parametrize(
    ("spoil", "name"),
    [(unguarded, "guard"), (heard_by_all, "health"), (open_dashboard, "dashboard")],
)
def test_what_a_plant_may_choose_is_told_and_is_no_failure(
    plant: Plant, spoil: Callable[[Plant], None], name: str
) -> None:
    spoil(plant)
    assert [f.name for f in plant.wrong() if not f.needed] == [f"line-1: {name}"]
    assert not [f for f in plant.wrong() if f.needed]


@pytest.mark.parametrize(
    ("words", "is_ours"),
    [
        (("/opt/lineguard/current/bin/python3", "/usr/local/bin/lineguard", "run", "a.yaml"), True),
        (("python3", "-m", "pipeline.gate"), True),
        (("vim", "/etc/lineguard/run"), False),
        (("lineguard", "doctor", "--security"), False),
    ],
)
def test_a_station_that_runs_as_root_is_found(
    plant: Plant, words: tuple[str, ...], is_ours: bool
) -> None:
    a_process(plant, *words)
    owner = (plant.root / "proc" / "4711").stat().st_uid
    names = [f.name for f in plant.wrong() if f.needed]
    assert names == (["user"] if is_ours and owner == 0 else [])


def test_the_command_ends_with_1_and_writes_json(plant: Plant) -> None:
    without_tls(plant)
    plant.findings()
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "doctor", "--security", str(plant.file), "--json", "-"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    assert any(not f["well"] and f["mend"] for f in answer["findings"])
    assert "mend with: in " in done.stderr
