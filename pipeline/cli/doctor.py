"""``lineguard doctor``: what is installed, what is missing or unsafe, and what mends it."""

import importlib.util
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from pipeline.bundle import MANIFEST, open_bundle
from pipeline.cli.findings import Finding
from pipeline.cli.options import JsonFile, write_json
from pipeline.cli.output import said_to_people
from pipeline.cli.security import Machine, as_json, examine
from pipeline.errors import ConfigError, LineguardError
from pipeline.shipped import shipped

REQUIRED = ("numpy", "paho-mqtt", "pydantic", "PyYAML", "typer")
RUNTIMES = {
    "onnxruntime": "pip install 'lineguard[cpu]'",
    "onnxruntime-gpu": "pip install 'lineguard[gpu]'",
    "openvino": "pip install 'lineguard[openvino]'",
}
OPTIONAL = {
    "cryptography": "pip install 'lineguard[signing]'  (signed model bundles)",
    "prometheus-client": "pip install 'lineguard[monitor]'  (health and metrics over HTTP)",
    "iotcore": "pip install 'lineguard[demo]'  (broker of the demo)",
    "pymodbus": "pip install 'lineguard[modbus]'  (a PLC over Modbus TCP)",
    "asyncua": "pip install 'lineguard[opcua]'  (a PLC over OPC UA)",
    "gpiod": "pip install 'lineguard[gpio]'  (digital lines)",
    "ultralytics": "pip install 'lineguard[lab]'  (training and export)",
}
LEAST_FREE_GB = 1.0


def doctor(
    stations: Annotated[
        list[Path] | None,
        typer.Argument(help="Station files to examine; else those in /etc/lineguard."),
    ] = None,
    security: Annotated[
        bool, typer.Option("--security", help="Examine how easily this station is misused.")
    ] = False,
    json: JsonFile = None,
) -> None:
    """Check this machine: packages, shipped models, disk. Exit 1 if something needed is missing.

    With --security: broker, keys, passwords, model, user, clock; one line each.

    JSON keys: ok, findings (name, well, said, mend, needed).
    """
    people = said_to_people(json)
    if stations and not security:
        raise ConfigError("station files are examined with --security")
    if security:
        machine = Machine()
        findings = examine(stations or machine.stations(), machine)
    else:
        findings = [*_packages(), _a_runtime(), *_models(), _disk()]
        people.print(
            f"lineguard {version('lineguard')}, Python {platform.python_version()}, "
            f"{platform.system()} {platform.machine()}"
        )
    for finding in findings:
        _print(people, finding, absent="WRONG  " if security else "missing")
    ok = all(f.well for f in findings if f.needed)
    write_json({"ok": ok, "findings": as_json(findings)}, json)
    if not ok:
        raise typer.Exit(1)


def _print(people: Console, finding: Finding, absent: str) -> None:
    mark, style = ("well   ", "green") if finding.well else (absent, "red")
    if not finding.well and not finding.needed:
        mark, style = ("absent ", "dim") if absent == "missing" else ("mind   ", "yellow")
    people.print(f"[{style}]{mark}[/] {escape(f'{finding.name}: {finding.said}')}", soft_wrap=True)
    if finding.mend and not finding.well:
        people.print(f"        mend with: {finding.mend}", markup=False, soft_wrap=True)


def _packages() -> list[Finding]:
    required = [_package(name, "pip install lineguard", True) for name in REQUIRED]
    return [*required, _opencv()] + [
        _package(n, mend, False) for n, mend in (RUNTIMES | OPTIONAL).items()
    ]


def _package(name: str, mend: str, needed: bool) -> Finding:
    try:
        return Finding(name, True, version(name), needed=needed)
    except PackageNotFoundError:
        return Finding(name, False, "not installed", mend, needed)


def _opencv() -> Finding:
    try:
        return Finding("opencv", True, str(importlib.import_module("cv2").__version__))
    except ImportError as error:  # also where the wheel is there and libGL is not
        mend = "apt install libgl1 libglib2.0-0, or take pip's opencv-python-headless instead"
        return Finding("opencv", False, str(error), mend)


def _a_runtime() -> Finding:
    found = [name for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name)]
    if found:
        return Finding("a runtime", True, ", ".join(found))
    return Finding("a runtime", False, "no model can be run", RUNTIMES["onnxruntime"])


def _models() -> list[Finding]:
    try:
        folders = sorted(m.parent for m in shipped("models").glob(f"*/{MANIFEST}"))
    except LineguardError as error:
        return [Finding("models", False, str(error), "lineguard models list")]
    findings = []
    for folder in folders:
        try:
            bundle = open_bundle(folder)
            for artefact in bundle.manifest.artefacts.values():
                bundle.checked_file(artefact)
            bundle.report()
            findings.append(Finding(f"model {folder.name}", True, "every file fits its manifest"))
        except LineguardError as error:
            findings.append(
                Finding(f"model {folder.name}", False, str(error), "restore the bundle")
            )
    return findings


def _disk() -> Finding:
    free = shutil.disk_usage(".").free / 1e9
    return Finding("disk", free >= LEAST_FREE_GB, f"{free:.1f} GB free here", "free some space")
