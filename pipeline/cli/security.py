"""What makes a station easy to misuse: ``lineguard doctor --security``."""

from __future__ import annotations

import ctypes
import ipaddress
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import signing
from pipeline.broker import Broker, password_of
from pipeline.bundle import open_bundle
from pipeline.cli.findings import Finding
from pipeline.config import StationConfig, load
from pipeline.errors import ConfigError, LineguardError
from pipeline.web.desk import FILE, FOLDER

KNOWN_PASSWORDS = frozenset(
    ("", "admin", "changeme", "default", "guest", "lineguard", "mosquitto", "mqtt", "nvidia",
     "password", "public", "root", "secret", "station", "test", "user", "12345", "123456")
)  # fmt: skip
"""Passwords that brokers and boards are delivered with, or that are tried first."""
TIME_ERROR = 5
TIMEX_BYTES = 512  # of struct timex: 208 on 64 bits


def clock_is_right() -> bool:
    """Ask the kernel whether something keeps its clock right (adjtimex(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))  # all zero: only asks
    return int(state) not in (-1, TIME_ERROR)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where to look; tests look into a tree of their own."""

    root: Path = Path("/")
    clock: Callable[[], bool] = clock_is_right

    def stations(self) -> list[Path]:
        """Return the station files that the installer's units run."""
        return sorted((self.root / "etc" / "lineguard").glob("*.yaml"))


def examine(files: Sequence[Path], machine: Machine) -> list[Finding]:
    """Return what is found on a machine and in station files."""
    findings = [*_machine(machine)]
    for file in files:
        try:
            findings += _station(file, load(file))
        except LineguardError as error:
            mend = f"lineguard config check {file}"
            findings.append(Finding(f"station file {file}", False, str(error), mend))
    return findings


# -- the machine --------------------------------------------------------------------------------


def _machine(machine: Machine) -> Iterator[Finding]:
    yield _clock(machine)
    yield _no_root(machine)
    program = machine.root / "opt" / "lineguard"
    if program.exists():
        mend = f"chown -R root:root {program} && chmod -R go-w {program}"
        yield _only_roots("program", program, mend)
    pki = machine.root / "etc" / "lineguard" / "pki"
    for key in sorted(pki.glob("*.key")):
        yield _secret("key", key)
    for key in sorted(pki.glob("*.pub")):
        yield _only_roots("trusted key", key, f"chown root:root {key} && chmod 0644 {key}")


def _clock(machine: Machine) -> Finding:
    if machine.clock():
        return Finding("clock", True, "it is kept right")
    said = "nothing keeps it right: certificates and the times in the records depend on it"
    return Finding("clock", False, said, "apt-get install chrony && systemctl enable --now chrony")


def _no_root(machine: Machine) -> Finding:
    """Look for stations, guards and dashboards among the processes."""
    ours = [p for p in sorted((machine.root / "proc").glob("[0-9]*")) if _is_ours(p)]
    bad = [p.name for p in ours if p.stat().st_uid == 0]
    if not bad:
        return Finding("user", True, f"{len(ours)} of our processes, none is root's")
    said = f"these run as root: {', '.join(bad)}; whoever finds a hole in one owns the machine"
    return Finding("user", False, said, "systemctl enable --now lineguard@NAME (it has a user)")


def _is_ours(process: Path) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    if b"pipeline.gate" in words:
        return True
    called = [
        i for i, w in enumerate(words) if w.rsplit(b"/", 1)[-1] in (b"lineguard", b"pipeline")
    ]
    return any(words[i + 1 : i + 2] in ([b"run"], [b"web"]) for i in called)


def _only_roots(name: str, path: Path, mend: str) -> Finding:
    """Check that nobody but root, or who asks where that is no root, can change a file."""
    known = path.stat()
    if known.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return Finding(name, False, f"{path}: others than its owner may change it", mend)
    return Finding(name, True, f"{path}: its owner alone may change it")


def _secret(name: str, path: Path) -> Finding:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o037:  # the group may read it: the station's own
        mend = f"chmod 0640 {path} && chown root:lineguard {path}"
        return Finding(name, False, f"{path}: others can read or change it (mode {mode:o})", mend)
    return Finding(name, True, f"{path}: mode {mode:o}")


# -- one station --------------------------------------------------------------------------------


def _station(file: Path, config: StationConfig) -> Iterator[Finding]:
    at = f"{file.stem}: "
    yield _only_roots(at + "station file", file, f"chown root:root {file} && chmod 0644 {file}")
    yield _model(at, file, config)
    yield _health(at, file, config)
    yield _gate(at, file, config)
    if config.store_path.exists():
        yield _store(at, config.store_path)
        yield _dashboard(at, file, config.store_path)
    for choice in config.publishers:
        if isinstance(choice.options, Broker):
            yield from _broker(at, file, choice.options)


def _model(at: str, file: Path, config: StationConfig) -> Finding:
    trust, name = config.document.model.trust, f"{at}model"
    if trust is None:
        mend = (
            f"lineguard models sign {config.bundle_path} --key PRIVATE, and in {file} under model: "
            "trust: {keys: [pki/plant.pub]}"
        )
        return Finding(name, False, "any bundle runs, whoever made it", mend)
    if trust.unsigned:
        return Finding(
            name, False, "unsigned bundles run too", f"remove `unsigned: true` from {file}"
        )
    try:
        bundle = open_bundle(config.bundle_path, signing.read_trust(config.trusted_keys))
    except LineguardError as error:
        return Finding(
            name, False, str(error), f"lineguard models sign {config.bundle_path} --key PRIVATE"
        )
    return Finding(name, True, f"signed by {bundle.signed_by}")


def _health(at: str, file: Path, config: StationConfig) -> Finding:
    section, name = config.document.health, f"{at}health"
    if section.port is None or is_loopback(section.host):
        return Finding(name, True, "asked from this machine alone", needed=False)
    said = f"anybody who reaches {section.host}:{section.port} reads the line's figures"
    mend = f"in {file}: health: {{port: {section.port}, host: 127.0.0.1}}"
    return Finding(name, False, said, mend, needed=False)


def _gate(at: str, file: Path, config: StationConfig) -> Finding:
    name = f"{at}guard"
    guarded = [c.kind for c in config.outputs if getattr(c.options, "guarded", False)]
    if guarded:
        return Finding(name, True, f"holds {', '.join(guarded)} if the station is killed")
    said = "no output is guarded: a killed station leaves the line without a verdict"
    mend = f"in {file}, under outputs: {{kind: modbus}}, opcua or gpio; see docs/plc.md"
    return Finding(name, False, said, mend, needed=False)


def _store(at: str, folder: Path) -> Finding:
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & stat.S_IWOTH:
        said = f"{folder}: everybody may change the records (mode {mode:o})"
        return Finding(f"{at}store", False, said, f"chmod 0750 {folder}")
    return Finding(f"{at}store", True, f"{folder}: mode {mode:o}")


def _dashboard(at: str, file: Path, store: Path) -> Finding:
    """Elsewhere than on this machine the dashboard itself asks for TLS and an account."""
    name, mend = f"{at}dashboard", f"lineguard accounts set {file} NAME --role engineer"
    desk = store / FOLDER / FILE
    people = 0
    if desk.exists():
        try:
            with closing(sqlite3.connect(f"{desk.as_uri()}?mode=ro", uri=True)) as db:
                people = db.execute("SELECT count(*) FROM accounts").fetchone()[0]
        except sqlite3.Error as error:
            return Finding(name, False, f"{desk}: {error}", f"lineguard accounts list {file}")
    if people:
        return Finding(name, True, f"{people} people may log in", needed=False)
    said = "no account: whoever sits at this machine is an engineer"
    return Finding(name, False, said, mend, needed=False)


def _broker(at: str, file: Path, broker: Broker) -> Iterator[Finding]:
    name, local = f"{at}broker {broker.host}", is_loopback(broker.host)
    if broker.tls is None and not local:
        said = "without TLS: whoever is on the way reads and changes what is sent"
        yield Finding(name, False, said, f"in {file}: port: 8883, tls: {{ca_file: pki/ca.crt}}")
    else:
        yield Finding(name, True, "on this machine" if local else "over TLS")
    if broker.tls and broker.tls.key_file and broker.tls.key_file.exists():
        yield _secret(f"{name}: key", broker.tls.key_file)
    if broker.password_file and broker.password_file.exists():
        yield _secret(f"{name}: password", broker.password_file)
    yield _login(name, file, broker, local)


def _login(name: str, file: Path, broker: Broker, local: bool) -> Finding:
    if broker.username is None:
        if local or (broker.tls and broker.tls.cert_file):
            said = "on this machine" if local else "a certificate of this station's own"
            return Finding(f"{name}: login", True, said)
        mend = f"in {file}: tls: {{cert_file: pki/station.crt, key_file: pki/station.key}}"
        said = "anybody may speak for this station: neither a certificate nor a user name"
        return Finding(f"{name}: login", False, said, mend)
    try:
        password = password_of(broker) or ""
    except ConfigError as error:
        return Finding(f"{name}: login", False, str(error), f"see password_file in {file}")
    if password.lower() in KNOWN_PASSWORDS | {broker.username.lower()}:
        mend = (
            f"openssl rand -base64 24 > {broker.password_file or 'PASSWORD_FILE'}, there and here"
        )
        return Finding(f"{name}: login", False, "a password that is tried first", mend)
    return Finding(f"{name}: login", True, f"user {broker.username} with a password")


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def as_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return findings as JSON knows them."""
    return [{k: getattr(f, k) for k in f.__slots__} for f in findings]
