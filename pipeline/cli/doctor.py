"""``lineguard doctor``: what is installed, what is missing, and what mends it."""

import importlib.util
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import typer

from pipeline.bundle import MANIFEST, open_bundle
from pipeline.cli.output import JsonFile, said_to_people, write_json
from pipeline.errors import LineguardError
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


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's list; ``mend`` is the command that mends what is not well."""

    name: str
    well: bool
    said: str
    mend: str = ""
    needed: bool = True


def doctor(json: JsonFile = None) -> None:
    """Check this machine: packages, shipped models, disk. Exit 1 if something needed is missing.

    JSON keys: ok, findings (name, well, said, mend, needed).
    """
    people = said_to_people(json)
    findings = [*_packages(), _a_runtime(), *_models(), _disk()]
    people.print(
        f"lineguard {version('lineguard')}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}"
    )
    for f in findings:
        mark = (
            "[green]well   [/]" if f.well else "[red]missing[/]" if f.needed else "[dim]absent [/]"
        )
        people.print(f"{mark} {f.name}: {f.said}")
        if f.mend and not f.well:
            people.print(f"        mend with: {f.mend}", markup=False)
    ok = all(f.well for f in findings if f.needed)
    write_json(
        {"ok": ok, "findings": [{k: getattr(f, k) for k in f.__slots__} for f in findings]}, json
    )
    if not ok:
        raise typer.Exit(1)


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
