"""The units, the first boot, and what is taken out of a station's environment."""

import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

STATION = REPOSITORY / "deploy" / "station"
ROOTFS = STATION / "rootfs"
UNITS = ROOTFS / "usr" / "lib" / "systemd" / "system"
EXPOSED_AT_MOST = "20"  # tenths
TARGETS = ("sysinit", "basic", "shutdown", "network", "network-online", "network-pre",
           "time-sync", "local-fs", "multi-user", "timers", "time-set")  # fmt: skip


def tool(name: str) -> str:
    found = shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(w) for w in words], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a root file system with our files, and a program that only exists."""
    shutil.copytree(ROOTFS, tmp_path, dirs_exist_ok=True)
    program = tmp_path / "opt" / "lineguard" / "current" / "bin" / "lineguard"
    program.parent.mkdir(parents=True)
    shutil.copy("/bin/true", program)
    system = Path("/usr/lib/systemd/system")
    for name in TARGETS:
        if (system / f"{name}.target").exists():
            shutil.copy(system / f"{name}.target", tmp_path / "usr/lib/systemd/system")
    return tmp_path


def test_systemd_has_nothing_to_say_against_the_units(installed: Path) -> None:
    names = [p.name.replace("@", "@line-1") for p in UNITS.iterdir()]
    done = run(tool("systemd-analyze"), f"--root={installed}", "verify", "--man=no", *names)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "lineguard" in line]
    assert done.returncode == 0 and not ours, done.stderr


@pytest.mark.parametrize("unit", ["lineguard@.service", "lineguard-engine@.service"])
def test_a_station_is_hardly_exposed(unit: str) -> None:
    done = run(
        tool("systemd-analyze"), "security", "--offline=true", f"--threshold={EXPOSED_AT_MOST}",
        UNITS / unit,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-300:]


@pytest.mark.parametrize("unit", sorted(p.name for p in UNITS.glob("*.service")))
def test_a_unit_starts_nothing_but_our_program(unit: str) -> None:
    started = re.findall(r"^ExecStart=-?(\S+)", (UNITS / unit).read_text(), re.M)
    assert started
    assert all(
        p.startswith(("/opt/lineguard/current/", "/usr/libexec/lineguard/")) for p in started
    )


def test_every_command_that_a_unit_starts_exists() -> None:
    for unit in UNITS.glob("*.service"):
        for words in re.findall(r"^ExecStart=-?/opt/\S+/lineguard (.*)", unit.read_text(), re.M):
            command = [w for w in words.split() if re.fullmatch("[a-z]+", w)][
                : 2 if words.split()[0] in ("update", "models") else 1
            ]
            options = set(re.findall(r"--[a-z-]+", words))
            page = run(sys.executable, "-m", "pipeline", *command, "--help").stdout
            assert all(option in page for option in options), (unit.name, command)


def test_a_wrong_station_file_is_not_tried_again_and_a_hang_is_noticed() -> None:
    unit = (UNITS / "lineguard@.service").read_text()
    assert "RestartPreventExitStatus=78" in unit
    assert "Restart=always" in unit and "WatchdogSec=" in unit and "Type=notify" in unit


def test_an_engine_is_built_before_the_station_and_with_its_hardening() -> None:
    station, engine = (
        (UNITS / f"{name}@.service").read_text() for name in ("lineguard", "lineguard-engine")
    )
    assert "Wants=lineguard-firstboot.service lineguard-engine@%i.service" in station
    assert "Before=lineguard@%i.service" in engine

    def hardening(unit: str) -> list[str]:
        part = unit.split("# Hardening.")[1].split("[Install]", 1)[0]
        return [line for line in part.splitlines() if "=" in line]

    assert hardening(engine) == hardening(station)


def test_the_firewall_can_be_read(installed: Path) -> None:
    done = run(tool("nft"), "--check", "--file", installed / "etc/nftables.d/lineguard.nft")
    if "Operation not permitted" in done.stderr:
        pytest.skip("nft needs root even to check")
    assert done.returncode == 0, done.stderr


def test_the_clock_can_be_read(installed: Path) -> None:
    done = run(tool("chronyd"), "-p", "-f", installed / "etc/chrony/conf.d/lineguard.conf")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("what", ["cameras", "lines"])
def test_the_udev_rules_can_be_read(installed: Path, what: str) -> None:
    rules = installed / f"usr/lib/udev/rules.d/70-lineguard-{what}.rules"
    done = run(tool("udevadm"), "verify", "--resolve-names=late", rules)
    if "Unknown command" in done.stderr:
        pytest.skip("this udevadm cannot verify (systemd 254 can)")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a root file system in which the first boot may run."""
    tool("openssl")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "hostname").write_text("tegra-ubuntu\n")
    (tmp_path / "proc" / "device-tree").mkdir(parents=True)
    (tmp_path / "proc" / "device-tree" / "serial-number").write_bytes(b"1421025123456\0")
    return tmp_path


def first_boot(tree: Path) -> str:
    done = run("bash", ROOTFS / "usr" / "libexec" / "lineguard" / "firstboot", "--root", tree)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_first_boot_makes_an_identity(tree: Path) -> None:
    first_boot(tree)
    pki = tree / "etc" / "lineguard" / "pki"
    assert re.fullmatch(r"[0-9a-f]{32}\n", (tree / "etc" / "machine-id").read_text())
    assert (tree / "etc" / "hostname").read_text() == "lineguard-1421025123456\n"
    assert stat.S_IMODE((pki / "station.key").stat().st_mode) == 0o640
    asked = run("openssl", "req", "-in", pki / "station.csr", "-noout", "-verify", "-subject")
    assert asked.returncode == 0 and "lineguard-1421025123456" in asked.stdout


def test_a_second_boot_changes_nothing(tree: Path) -> None:
    first_boot(tree)
    key = (tree / "etc" / "lineguard" / "pki" / "station.key").read_bytes()
    assert "already" in first_boot(tree)
    assert (tree / "etc" / "lineguard" / "pki" / "station.key").read_bytes() == key


def test_a_first_boot_that_was_cut_off_keeps_the_key_it_made(tree: Path) -> None:
    first_boot(tree)
    key = (tree / "etc" / "lineguard" / "pki" / "station.key").read_bytes()
    (tree / "var" / "lib" / "lineguard-identity" / "done").unlink()
    first_boot(tree)
    assert (tree / "etc" / "lineguard" / "pki" / "station.key").read_bytes() == key


def test_two_stations_of_one_image_share_no_key(tree: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(tree / "etc", twin / "etc")
    keys = set()
    for root in (tree, twin):
        first_boot(root)
        keys.add((root / "etc" / "lineguard" / "pki" / "station.key").read_bytes())
    assert len(keys) == 2


def test_the_configuration_partition_brings_files_and_no_links(tree: Path) -> None:
    (tree / "cfg").mkdir()
    for name in ("line-1.yaml", "ca.crt", "updates.pub", "update.env", "orders.env",
                 "authorized_keys"):  # fmt: skip
        (tree / "cfg" / name).write_text("x\n")
    (tree / "cfg" / "line-2.yaml").symlink_to("/etc/shadow")
    (tree / "cfg" / "run-me.sh").write_text("x\n")
    first_boot(tree)
    etc = tree / "etc" / "lineguard"
    assert sorted(p.name for p in etc.iterdir()) == [
        "line-1.yaml", "orders.env", "pki", "update.env",
    ]  # fmt: skip
    assert {"ca.crt", "updates.pub"} <= {p.name for p in (etc / "pki").iterdir()}
    assert stat.S_IMODE((tree / "root/.ssh/authorized_keys").stat().st_mode) == 0o600


def test_a_station_of_the_configuration_partition_starts_at_every_boot(tree: Path) -> None:
    (tree / "cfg").mkdir()
    for name in ("line-1.yaml", "line 2;.yaml"):
        (tree / "cfg" / name).write_text("station: {name: a}\n")
    assert "'line 2;' is no name of a station" in first_boot(tree)
    wants = tree / "etc/systemd/system/multi-user.target.wants"
    assert [p.name for p in wants.iterdir()] == ["lineguard@line-1.service"]
    assert (wants / "lineguard@line-1.service").readlink().name == "lineguard@.service"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return a root file system that somebody has used."""
    (tmp_path / "etc" / "ssh").mkdir(parents=True)
    (tmp_path / "etc" / "ssh" / "ssh_host_ed25519_key").write_text("secret")
    (tmp_path / "etc" / "machine-id").write_text("0" * 32)
    (tmp_path / "etc" / "shadow").write_text("root:*:1::::::\nadmin:!$y$hash:1::::::\n")
    return tmp_path


def test_an_image_shares_neither_keys_nor_an_id(image: Path) -> None:
    assert run(STATION / "anonymize.sh", image).returncode == 0
    assert not list((image / "etc" / "ssh").glob("ssh_host_*"))
    assert (image / "etc" / "machine-id").read_text() == ""
    assert (
        "PasswordAuthentication no"
        in (image / "etc/ssh/sshd_config.d/10-lineguard.conf").read_text()
    )


@pytest.mark.parametrize("field", ["$y$hash", "", "x"])
def test_an_image_with_an_account_that_is_open_is_refused(image: Path, field: str) -> None:
    with (image / "etc" / "shadow").open("a") as shadow:
        shadow.write(f"guest:{field}:1::::::\n")
    done = run(STATION / "anonymize.sh", image)
    assert done.returncode == 1 and "not locked: guest" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "--target is needed; one of: cpu openvino gpu"),
        (("--target", "vax"), 2, "there is no target 'vax'"),
        (("--target",), 2, "--target needs a value"),
        (("--tarket", "cpu"), 2, "unknown option '--tarket'"),
        (("--target", "cpu", "--offline", "/nowhere"), 2, "/nowhere: no such wheelhouse"),
    ],
)
def test_a_wrong_use_of_the_installer_is_said_in_one_line(
    words: tuple[str, ...], code: int, said: str
) -> None:
    done = run(STATION / "install.sh", *words)
    assert done.returncode == code and said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Return an environment that sees this one's packages, and has files that slim.py takes."""
    venv.create(tmp_path / "env", with_pip=False)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = tmp_path / "env" / "lib" / version / "site-packages"
    (site / "beside.pth").write_text(f"{sysconfig.get_path('platlib')}\n{REPOSITORY}\n")
    (site / "numpy" / "linalg" / "tests").mkdir(parents=True)
    (site / "numpy" / "linalg" / "tests" / "test_linalg.py").write_text("")
    return site


def slim(site: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(site.parents[2] / "bin" / "python"), "-B", str(STATION / "slim.py"), *words],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_what_a_station_never_loads_is_taken_out_and_named(environment: Path) -> None:
    pytest.importorskip("onnxruntime")
    done = slim(environment)
    if "torch" in done.stdout and "here" in done.stdout:
        pytest.skip("this environment has torch, which a station must not have")
    assert done.returncode == 0, done.stderr
    assert "numpy's own test suite" in done.stdout and "numpy/linalg/tests" in done.stdout
    assert not (environment / "numpy" / "linalg" / "tests").exists()


def test_a_dry_run_takes_nothing_out(environment: Path) -> None:
    done = slim(environment, "--dry-run")
    assert done.returncode == 0 and "numpy/linalg/tests" in done.stdout
    assert (environment / "numpy" / "linalg" / "tests" / "test_linalg.py").exists()


def test_a_station_that_does_not_run_without_it_gets_it_back(environment: Path) -> None:
    # A package of the runtime's name that cannot be imported: the self-check must fail.
    (environment / "onnxruntime.py").write_text("raise ImportError('broken')\n")
    done = slim(environment)
    assert done.returncode == 1 and "all of it was put back" in done.stderr
    assert (environment / "numpy" / "linalg" / "tests" / "test_linalg.py").exists()


def test_the_systems_own_python_is_never_thinned() -> None:
    done = run("/usr/bin/env", "-i", "python3", STATION / "slim.py")
    assert done.returncode == 1 and "with a station's own" in done.stderr
