"""Whatever is written down about a target anywhere agrees with deploy/targets.toml."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import plugins
from tests.conftest import REPOSITORY

DEPLOY, DOCKER = REPOSITORY / "deploy", REPOSITORY / "docker"
sys.path[:0] = [str(DEPLOY / "station"), str(DEPLOY / "locks")]

import make  # noqa: E402
import table  # noqa: E402

TARGETS: dict[str, dict[str, Any]] = table.read(table.FILES["targets"])
BOARDS: dict[str, dict[str, Any]] = table.read(table.FILES["boards"])
PROJECT = make.project()
NAMES = tuple(TARGETS)


def bake_target(name: str) -> str:
    """Return one target's block of the bake file."""
    page = (DOCKER / "docker-bake.hcl").read_text()
    found = re.search(rf'^target "{name}" {{\n(.*?)^}}', page, re.S | re.M)
    assert found, f"docker-bake.hcl has no target {name}"
    return found[1]


def overlay(name: str) -> dict[str, Any]:
    """Return the station of a target's compose overlay."""
    file = DOCKER / f"compose.{'jetson' if name.startswith('jetson') else name}.yaml"
    station: dict[str, Any] = yaml.safe_load(file.read_text())["services"]["station"]
    return station


@pytest.mark.parametrize("name", table.FILES)
def test_a_page_reads_as_toml_does(name: str) -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")
    file = table.FILES[name]
    assert table.read(file) == tomllib.loads(file.read_text(encoding="utf-8"))


def test_a_page_with_a_line_that_is_no_value_is_refused_with_its_number(tmp_path: Path) -> None:
    file = tmp_path / "page.toml"
    file.write_text('[cpu]\ntitle = "any"\narch = [\n')
    with pytest.raises(ValueError, match=r"page\.toml:3: not `key = value`"):
        table.read(file)


@pytest.mark.parametrize("name", NAMES)
def test_a_target_takes_extras_that_the_project_has(name: str) -> None:
    assert set(TARGETS[name]["extras"]) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("name", NAMES)
def test_a_station_is_installed_with_what_it_speaks_to_a_plc_with(name: str) -> None:
    target = TARGETS[name]
    assert {"modbus", "opcua", "gpio"} <= set(target["extras"])
    assert "char-gpiochip rw" in target["devices"] and "gpio" in target["groups"]


@pytest.mark.parametrize(("name", "cuda"), [("jetson-jp72", 13), ("jetson-jp62", 12)])
def test_a_jetson_is_installed_with_the_bindings_of_its_cuda(name: str, cuda: int) -> None:
    lock = (DEPLOY / "locks" / TARGETS[name]["lock"]).read_text()
    assert re.search(rf"^cuda-bindings=={cuda}\.", lock, re.M)


@pytest.mark.parametrize("name", NAMES)
def test_a_target_names_a_runtime_and_a_device_that_exist(name: str) -> None:
    target = TARGETS[name]
    options = plugins.load("runtimes", target["runtime"]).Options
    assert options.model_validate({"device": target["device"]}).device == target["device"]


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_was_made_from_todays_requirements(name: str) -> None:
    target = TARGETS[name]
    wanted = make.requirements(name, PROJECT, target["extras"])
    first = (DEPLOY / "locks" / target["lock"]).read_text().splitlines()[0]
    assert first == make.mark_of(wanted, target["python"]), (
        f"requirements of '{name}' changed; run: python deploy/locks/make.py {name}"
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_package_of_a_lock_has_a_hash(name: str) -> None:
    lock = (DEPLOY / "locks" / TARGETS[name]["lock"]).read_text()
    packages = re.findall(r"^[a-z0-9._-]+(?:\[.*\])?==.*?(?=^\S|\Z)", lock, re.S | re.M)
    assert len(packages) > 20
    assert all("--hash=sha256:" in package for package in packages)


def test_every_lock_belongs_to_a_target() -> None:
    locks = {file.name for file in (DEPLOY / "locks").glob("*.txt")}
    assert locks == {target["lock"] for target in TARGETS.values()}


def test_a_jetson_6_stays_below_numpy_2_and_opencv_5() -> None:
    lock = (DEPLOY / "locks" / "jetson-jp62.txt").read_text()
    assert re.search(r"^numpy==1\.", lock, re.M)
    assert re.search(r"^opencv-python-headless==4\.", lock, re.M)


@pytest.mark.parametrize("name", NAMES)
def test_the_bake_file_builds_a_target_from_its_base_for_its_architectures(name: str) -> None:
    target, block = TARGETS[name], bake_target(name)
    assert f'BASE_IMAGE = "{target["base_image"]}"' in block
    platforms = re.findall(r'"linux/(\w+)"', block)
    assert platforms == target["arch"]
    named = f'JETPACK = "{name[-2:]}"' if name.startswith("jetson") else f'TARGET = "{name}"'
    assert named in block


@pytest.mark.parametrize("name", NAMES)
def test_the_bake_file_names_a_dockerfile_and_a_stage_that_exist(name: str) -> None:
    block = bake_target(name)
    file = re.search(r'dockerfile = "(.*)"', block)
    stage = re.search(r'target     = "(.*)"', block)
    assert file and stage
    assert re.search(rf"^FROM \S+ AS {stage[1]}$", (REPOSITORY / file[1]).read_text(), re.M)


def bare(value: Any) -> Any:
    """Return a value of python-hcl2 without the quotes that it keeps."""
    if isinstance(value, dict):
        return {bare(k): bare(v) for k, v in value.items()}
    if isinstance(value, list):
        return [bare(v) for v in value]
    return value.strip('"') if isinstance(value, str) else value


def test_the_bake_file_parses_and_names_nothing_that_is_not_in_it() -> None:
    hcl2 = pytest.importorskip("hcl2", reason="pip install 'lineguard[deploy]'")
    page = bare(hcl2.loads((DOCKER / "docker-bake.hcl").read_text()))
    targets = {name: t for block in page["target"] for name, t in block.items()}
    groups = {name: g for block in page["group"] for name, g in block.items()}
    variables = {name for block in page["variable"] for name in block}
    assert set(targets) == {"_common", *NAMES}
    assert all(set(group["targets"]) <= set(targets) for group in groups.values())
    for target in targets.values():
        assert set(target.get("inherits", [])) <= set(targets)
        used = re.findall(r"\$\{(\w+)\}", " ".join(target.get("tags", [])))
        assert set(used) <= variables
    assert targets["_common"]["attest"] == ["type=sbom", "type=provenance,mode=max"]


@pytest.mark.parametrize("name", NAMES)
def test_a_bill_of_materials_names_every_package_of_a_lock(name: str, tmp_path: Path) -> None:
    if shutil.which("cyclonedx-py") is None:
        pytest.skip("cyclonedx-py is not installed; pip install 'lineguard[deploy]'")
    file = tmp_path / "sbom.json"
    subprocess.run([str(DEPLOY / "locks" / "sbom.sh"), name, str(file)], check=True)
    bill = json.loads(file.read_text())
    lock = (DEPLOY / "locks" / TARGETS[name]["lock"]).read_text()
    locked = re.findall(r"^([a-z0-9._-]+)(?:\[.*\])?==(\S+)", lock, re.M)
    assert {(c["name"], c["version"]) for c in bill["components"]} == set(locked)


@pytest.mark.parametrize("name", NAMES)
def test_a_compose_overlay_takes_the_image_of_its_target(name: str) -> None:
    image = overlay(name)["image"]
    assert name in image if name.startswith("jetson") else image.endswith(f"-{name}")


def test_compose_gives_the_devices_that_a_target_needs() -> None:
    assert "/dev/dri:/dev/dri" in overlay("openvino")["devices"]
    assert "nvidia.com/gpu=all" in overlay("jetson-jp72")["devices"]
    assert "nvidia" in str(overlay("gpu")["deploy"])


def test_the_image_of_a_jetson_installs_every_system_package_of_its_targets() -> None:
    recipe = (DOCKER / "Dockerfile.jetson").read_text()
    wanted = {p for name in NAMES if name.startswith("jetson") for p in TARGETS[name]["apt"]}
    assert wanted and wanted <= set(re.findall(r"[\w.-]+", recipe))


def test_a_station_on_a_jetson_makes_no_folder_where_the_cameras_socket_is_missing() -> None:
    (mount,) = overlay("jetson-jp72")["volumes"]
    assert mount["source"] == mount["target"] == "/tmp/argus_socket"
    assert mount["bind"] == {"create_host_path": False}


def test_no_container_is_privileged_or_writes_its_root() -> None:
    for file in sorted(DOCKER.glob("compose*.yaml")):
        page = file.read_text()
        assert not re.search(r"privileged|docker\.sock|network_mode: *host|/dev:/dev", page), file
    base = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["station"]
    assert base["read_only"] and base["cap_drop"] == ["ALL"] and base["user"] == "10001:10001"


@pytest.mark.parametrize("file", ["Dockerfile", "Dockerfile.jetson"])
def test_an_image_has_a_user_and_a_health_check_that_can_fail(file: str) -> None:
    page = (DOCKER / file).read_text()
    assert re.findall(r"^USER (.*)$", page, re.M)[-1] == "10001:10001"
    assert 'CMD ["lineguard", "health"' in page


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_names_a_jetson_target_of_its_release(name: str) -> None:
    board = BOARDS[name]
    assert board["target"] == {"39": "jetson-jp72", "36": "jetson-jp62"}[board["l4t"]]


def test_no_board_runs_without_a_power_limit_by_default() -> None:
    assert not [name for name, board in BOARDS.items() if "MAXN" in board["power_mode"]]


def test_the_deploy_page_speaks_of_every_target() -> None:
    page = (DEPLOY / "README.md").read_text()
    assert all(f"`{name}`" in page for name in NAMES)


def test_scripts_can_be_run() -> None:
    scripts = [*DEPLOY.rglob("*.sh"), *DOCKER.rglob("*.sh")]
    assert scripts and all(Path(s).stat().st_mode & 0o111 for s in scripts)
