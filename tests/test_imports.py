"""The station starts without the lab and without vendor packages that its file does not name."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

HEAVY = (
    "torch", "torchvision", "ultralytics", "cv2", "onnx", "onnxruntime", "openvino", "tensorrt",
    "paho", "cryptography", "prometheus_client", "iotcore",
    "typer", "rich", "hypothesis", "pipeline.lab", "pipeline.cli",
)  # fmt: skip
LIGHT_CORE = (
    "station", "inspection", "tracking", "rules", "store", "handoff", "records", "config",
    "plugins", "recipe", "bundle", "clock", "limits", "signing", "monitor.health",
    "monitor.metrics", "shipped", "types", "errors", "quality.golden",
    "quality.truth", "quality.intervals", "triggers.every_frame", "outputs.recording",
)  # fmt: skip
NEVER = ("torch", "torchvision", "ultralytics", "onnx", "iotcore", "pipeline.lab")


def loaded(modules: str, among: tuple[str, ...]) -> str:
    """Return which of some modules a fresh interpreter holds after it imported others."""
    code = f"import sys\nimport {modules}\nprint(*[m for m in {among!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_the_station_loads_no_vendor_package() -> None:
    assert loaded("pipeline.station", HEAVY) == ""


def test_no_core_module_loads_a_vendor_package() -> None:
    modules = ", ".join(f"pipeline.{name}" for name in LIGHT_CORE)
    assert loaded(modules, HEAVY) == ""


def test_a_station_that_is_put_together_loads_neither_torch_nor_the_lab() -> None:
    assert loaded("pipeline.assembly, pipeline.replay", NEVER) == ""


def test_the_command_line_loads_no_command_before_it_is_named() -> None:
    assert loaded("pipeline.cli.main", (*HEAVY[:-2], "numpy", "pydantic", "pipeline.cli.run")) in (
        "",
        "typer",
        "typer rich",  # older ones load it with themselves
    )


def test_a_station_does_not_wait_for_what_other_commands_need() -> None:
    others = ("lab", "chaos", "collect", "web", "demo", "bench", "update", "synth", "assembly")
    assert loaded("pipeline.cli.run", tuple(f"pipeline.{name}" for name in others)) == ""


def test_a_service_loads_neither_colours_nor_a_web_server() -> None:
    modules = "pipeline.cli.lines, pipeline.monitor.health, pipeline.assembly"
    assert loaded(modules, ("rich", "http.server", "prometheus_client")) == ""


def test_the_layers_hold() -> None:
    program = Path(sys.executable).parent / "lint-imports"
    if not program.exists():
        pytest.skip("import-linter is not installed; pip install 'lineguard[dev]'")
    done = subprocess.run(
        [str(program), "--no-cache"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
