"""What a fleet's own tools are given: the same image, the same health, the same way back."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import load
from tests.conftest import REPOSITORY

FLEET = REPOSITORY / "deploy" / "fleet"
BASE = FLEET / "k8s" / "base"
OVERLAYS = sorted((FLEET / "k8s" / "overlays").iterdir())
RECIPE: dict[str, Any] = yaml.safe_load((FLEET / "greengrass" / "recipe.yaml").read_text())


def pod() -> dict[str, Any]:
    page = yaml.safe_load((BASE / "station.yaml").read_text())
    spec: dict[str, Any] = page["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("file", sorted(BASE.glob("[!k]*.yaml")), ids=lambda p: p.name)
def test_kubernetes_knows_every_key(file: Path) -> None:
    validator = shutil.which("kubernetes-validate")
    if validator is None:
        pytest.skip("kubernetes-validate is not installed; pip install 'lineguard[deploy]'")
    done = subprocess.run(
        [validator, "--strict", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_pod_is_no_root_and_writes_only_its_records() -> None:
    station = pod()["containers"][0]
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert station["securityContext"]["readOnlyRootFilesystem"] is True
    assert station["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    written = [m["mountPath"] for m in station["volumeMounts"] if not m.get("readOnly")]
    assert written == ["/var/lib/lineguard", "/tmp"]


def test_a_camera_that_is_away_makes_a_pod_unready_and_does_not_restart_it() -> None:
    station = pod()["containers"][0]
    assert "--alive" in station["livenessProbe"]["exec"]["command"]
    assert "--alive" not in station["readinessProbe"]["exec"]["command"]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda p: p.name)
def test_an_overlay_takes_the_image_of_its_name_and_a_station_file_that_is_right(
    overlay: Path,
) -> None:
    page = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    assert page["images"] == [{"name": "lineguard/station", "newTag": f"dev-{overlay.name}"}]
    assert load(overlay / "station.yaml").document.health.port == 9464


def scripts() -> list[str]:
    lifecycle = RECIPE["Manifests"][0]["Lifecycle"]
    return [step["Script"] for step in lifecycle.values()]


@pytest.mark.parametrize("script", scripts())
def test_a_recipe_calls_commands_that_exist(script: str) -> None:
    words = script.split()[1:]
    command = [w for w in words if re.fullmatch("[a-z]+", w)]
    command = command[: 2 if command[0] == "update" else 1]
    page = subprocess.run(
        [sys.executable, "-m", "pipeline", *command, "--help"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert all(word in page for word in words if word.startswith("--"))


def test_a_recipe_asks_only_for_settings_that_it_has() -> None:
    known = RECIPE["ComponentConfiguration"]["DefaultConfiguration"]
    asked = set(re.findall(r"\{configuration:/(\w+)\}", " ".join(scripts())))
    assert asked <= set(known)
