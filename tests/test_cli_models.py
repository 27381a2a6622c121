"""``lineguard models`` from the command line: keys, signatures, the self-test, the drill."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.test_cli import CONFIG_EXIT, lineguard, said_in_one_line, station_file

pytest.importorskip("cryptography", reason="pip install 'lineguard[signing]'")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with keys and a signed copy of the shipped bundle."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(REPOSITORY / "models" / "boards-n", folder / "bundle")
    assert lineguard("models", "keygen", folder / "plant", home=folder).returncode == 0
    done = lineguard("models", "sign", folder / "bundle", "--key", folder / "plant", home=folder)
    assert done.returncode == 0, done.stderr
    return folder


def model_of(home: Path, bundle: str, unsigned: bool = False) -> str:
    trust = f"trust: {{keys: [{home / 'plant.pub'}], unsigned: {str(unsigned).lower()}}}"
    return f"{{bundle: {home / bundle}, runtime: {{kind: onnx}}, {trust}}}"


def test_a_signed_bundle_is_verified(home: Path) -> None:
    done = lineguard(
        "models", "verify", home / "bundle", "--key", home / "plant.pub", "--json", "-", home=home
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert len(figures["signed_by"]) == 16
    assert figures["files"] >= 3


def test_a_station_that_trusts_the_key_passes_its_self_test(home: Path, tmp_path: Path) -> None:
    file = station_file(tmp_path, model=model_of(home, "bundle"))
    done = lineguard("models", "selftest", file, "--json", "-", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pictures"] > 0


def test_a_station_that_trusts_a_key_refuses_the_unsigned_bundle(
    home: Path, tmp_path: Path
) -> None:
    shutil.copytree(REPOSITORY / "models" / "boards-n", tmp_path / "unsigned")
    model = model_of(home, "bundle").replace(str(home / "bundle"), str(tmp_path / "unsigned"))
    done = lineguard("config", "check", station_file(tmp_path, model=model), home=tmp_path)
    assert done.returncode == CONFIG_EXIT
    said_in_one_line(done, "not signed", "lineguard models sign")


def test_one_wrong_byte_is_refused(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "bundle", tmp_path / "bundle")
    weights = tmp_path / "bundle" / "boards-n.fp32.onnx"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    model = model_of(home, "bundle").replace(str(home / "bundle"), str(tmp_path / "bundle"))
    done = lineguard("config", "check", station_file(tmp_path, model=model), home=tmp_path)
    assert done.returncode == CONFIG_EXIT
    said_in_one_line(done, "boards-n.fp32.onnx", "sha256")


def test_an_unsigned_bundle_that_is_allowed_degrades_the_station(
    home: Path, tmp_path: Path
) -> None:
    model = model_of(home, str(REPOSITORY / "models" / "boards-n"), unsigned=True)
    done = lineguard("-v", "run", station_file(tmp_path, model=model), home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "state: starting -> degraded" in done.stderr
    assert "the bundle is not signed" in done.stderr
    assert "-> ready" not in done.stderr


def test_the_drill_counts_its_refusals(home: Path, tmp_path: Path) -> None:
    done = lineguard(
        "models", "drill", home / "bundle", "--count", "18", "--json", "-", home=tmp_path
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["tried"], figures["refused"], figures["accepted"]) == (18, 18, [])
    assert figures["unharmed"] is True
