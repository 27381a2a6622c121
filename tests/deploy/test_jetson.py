"""Building and flashing a Jetson, against a tree that looks like NVIDIA's."""

import hashlib
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

JETSON = REPOSITORY / "deploy" / "jetson"
ROOTFS = REPOSITORY / "deploy" / "station" / "rootfs"
POWER_MODE = ROOTFS / "usr" / "libexec" / "lineguard" / "power-mode"
RELEASE = "# R39 (release), REVISION: 2.0, GCID: 1, BOARD: generic, EABI: aarch64\n"


def program(file: Path, body: str) -> None:
    """Write a shell script that stands for one of NVIDIA's."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)


@dataclass
class Bench:
    """A host with a BSP tree, and what is plugged into its USB.

    Attributes:
        tree: stands for Linux_for_Tegra.
        bin: first in PATH; holds lsusb.
    """

    tree: Path
    bin: Path

    def plugged(self, *ids: str) -> None:
        lines = "\n".join(f"echo 'Bus 001 Device 00{i}: ID {d} NVIDIA'" for i, d in enumerate(ids))
        program(self.bin / "lsusb", lines)

    def flash(self, *words: str, board: str = "orin-nano") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(JETSON / "flash.sh"), "--board", board, "--tree", str(self.tree), *words],
            env={**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}"},
            capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def manifest(self, board: str = "orin-nano") -> None:
        subprocess.run(
            [sys.executable, str(JETSON / "manifest.py"), "write", str(self.tree), board, "abc"],
            check=True,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path / "Linux_for_Tegra", tmp_path / "bin")
    root = made.tree / "rootfs"
    for folder in (root / "bin", root / "etc", root / "boot", made.tree / "kernel"):
        folder.mkdir(parents=True)
    program(root / "bin" / "sh", "")
    (root / "etc" / "nv_tegra_release").write_text(RELEASE)
    for image in (made.tree / "kernel" / "Image", root / "boot" / "Image"):
        image.write_bytes(b"kernel")
    release = root / "opt" / "lineguard" / "releases" / "1-jetson"
    release.mkdir(parents=True)
    release.with_name("1-jetson.complete").touch()
    (root / "opt" / "lineguard" / "current").symlink_to("releases/1-jetson")
    (root / "etc" / "lineguard").mkdir()
    (root / "etc" / "lineguard" / "power-mode").write_text("15W\n")
    program(made.tree / "tools" / "kernel_flash" / "l4t_initrd_flash.sh", 'echo "$@" > flashed')
    program(made.tree / "nvautoflash.sh", "echo p3767-0005")
    made.plugged("0955:7523")
    made.manifest()
    return made


def test_a_dry_run_prints_the_plan_and_does_nothing(bench: Bench) -> None:
    done = bench.flash("--dry-run")
    assert done.returncode == 0, done.stderr
    assert "1 x orin-nano (jetson-orin-nano-devkit, module p3767)" in done.stdout
    assert "goes to     nvme0n1p1" in done.stdout
    assert not (bench.tree / "flashed").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="NVIDIA's tool, and so flash.sh, needs root")
def test_a_board_is_flashed_with_its_configuration(bench: Bench) -> None:
    done = bench.flash("--yes")
    assert done.returncode == 0, done.stderr
    assert (bench.tree / "flashed").read_text().split()[-2:] == [
        "jetson-orin-nano-devkit",
        "internal",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="NVIDIA's tool, and so flash.sh, needs root")
def test_many_boards_are_flashed_at_once(bench: Bench) -> None:
    bench.plugged("0955:7523", "0955:7523", "0955:7523")
    assert bench.flash("--yes", "--boards", "3").returncode == 0
    assert "--massflash 3" in (bench.tree / "flashed").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="NVIDIA's tool, and so flash.sh, needs root")
def test_nobody_is_flashed_who_did_not_say_the_boards_name(bench: Bench) -> None:
    assert bench.flash().returncode != 0
    assert not (bench.tree / "flashed").exists()


def spoil_rootfs(bench: Bench) -> None:
    (bench.tree / "rootfs" / "bin" / "sh").unlink()


def spoil_binaries(bench: Bench) -> None:
    (bench.tree / "rootfs" / "etc" / "nv_tegra_release").unlink()


def spoil_release(bench: Bench) -> None:
    (bench.tree / "rootfs" / "etc" / "nv_tegra_release").write_text(RELEASE.replace("R39", "R36"))


def spoil_kernel(bench: Bench) -> None:
    (bench.tree / "kernel" / "Image").write_bytes(b"another")


def spoil_both_kernels(bench: Bench) -> None:
    for image in ("kernel/Image", "rootfs/boot/Image"):
        (bench.tree / image).write_bytes(b"another")


def spoil_station(bench: Bench) -> None:
    (bench.tree / "rootfs" / "opt" / "lineguard" / "current").unlink()


def spoil_power_mode(bench: Bench) -> None:
    (bench.tree / "rootfs" / "etc" / "lineguard" / "power-mode").write_text("MAXN_SUPER\n")
    bench.manifest()


def spoil_tool(bench: Bench) -> None:
    (bench.tree / "tools" / "kernel_flash" / "l4t_initrd_flash.sh").unlink()


def spoil_manifest(bench: Bench) -> None:
    (bench.tree / "image-manifest.json").unlink()


def build_for_another(bench: Bench) -> None:
    bench.manifest("agx-orin")


def plug_nothing(bench: Bench) -> None:
    bench.plugged()


def plug_a_running_one(bench: Bench) -> None:
    bench.plugged("0955:7020")


def plug_a_thor(bench: Bench) -> None:
    bench.plugged("0955:7026")


def plug_two(bench: Bench) -> None:
    bench.plugged("0955:7523", "0955:7523")


def plug_another_module(bench: Bench) -> None:
    program(bench.tree / "nvautoflash.sh", "echo p3701-0000")


def cut_the_cable(bench: Bench) -> None:
    program(bench.tree / "nvautoflash.sh", "exit 1")


@pytest.mark.parametrize(
    ("spoil", "code", "said"),
    [
        (spoil_tool, 65, "is this NVIDIA's Linux_for_Tegra?"),
        (spoil_rootfs, 65, "no root file system in it"),
        (spoil_binaries, 65, "binaries are not applied; run apply_binaries.sh"),
        (spoil_release, 65, "it holds R36 of L4T, the board 'orin-nano' needs R39"),
        (spoil_kernel, 65, "kernel/Image and rootfs/boot/Image differ"),
        (spoil_both_kernels, 65, "hash mismatch"),
        (spoil_station, 65, "no station in it"),
        (spoil_power_mode, 65, "does not ask for the power mode 15W"),
        (spoil_manifest, 65, "make the tree with build-image.sh"),
        (build_for_another, 65, "built for the board 'agx-orin', not for 'orin-nano'"),
        (plug_nothing, 69, "hold the recovery button"),
        (plug_a_running_one, 69, "a device 0955:7020 is on USB"),
        (plug_a_thor, 69, "a device 0955:7026 is on USB"),
        (plug_two, 69, "2 boards are in recovery mode on USB, 1 should be"),
        (plug_another_module, 69, "the module on USB is a p3701"),
        (cut_the_cable, 69, "EEPROM cannot be read"),
    ],
)
def test_what_would_not_boot_is_refused_in_one_line(
    bench: Bench, spoil: Callable[[Bench], None], code: int, said: str
) -> None:
    spoil(bench)
    done = bench.flash("--yes")
    assert done.returncode == code
    assert said in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (bench.tree / "flashed").exists()


def test_an_unknown_board_is_refused_with_the_known_ones(bench: Bench) -> None:
    done = bench.flash(board="nano")
    assert done.returncode == 2 and "use one of: agx-orin" in done.stderr


@dataclass
class Downloads:
    """What a person has downloaded from NVIDIA, and a wheelhouse."""

    folder: Path

    def build(self, *words: str, board: str = "orin-nano") -> "subprocess.CompletedProcess[str]":
        d = self.folder
        return subprocess.run(
            [str(JETSON / "build-image.sh"), "--board", board,
             "--bsp", str(d / "Jetson_Linux_R39.2.0_aarch64.tbz2"),
             "--rootfs", str(d / "Tegra_Linux_Sample-Root-Filesystem_R39.2.0_aarch64.tbz2"),
             "--hashes", str(d / "hashes"), "--wheelhouse", str(d / "wheels"),
             "--out", str(d / "out"), *words],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture
def downloads(tmp_path: Path) -> Downloads:
    hashes = []
    for name in ("Jetson_Linux", "Tegra_Linux_Sample-Root-Filesystem"):
        file = tmp_path / f"{name}_R39.2.0_aarch64.tbz2"
        with tarfile.open(file, "w:bz2"):
            pass
        hashes.append(f"{hashlib.sha256(file.read_bytes()).hexdigest()} *{file.name}\n")
    (tmp_path / "hashes").write_text("".join(hashes))
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "lineguard-0.1.0-py3-none-any.whl").touch()
    return Downloads(tmp_path)


def test_a_dry_build_checks_both_archives_and_prints_the_plan(downloads: Downloads) -> None:
    done = downloads.build("--dry-run")
    assert done.returncode == 0, done.stderr
    assert "login       none" in done.stdout
    assert not (downloads.folder / "out").exists()


def test_an_archive_with_another_hash_is_refused(downloads: Downloads) -> None:
    file = downloads.folder / "Jetson_Linux_R39.2.0_aarch64.tbz2"
    file.write_bytes(file.read_bytes() + b" ")
    done = downloads.build("--dry-run")
    assert done.returncode == 65 and "download it again" in done.stderr


def test_an_archive_without_a_known_hash_is_refused(downloads: Downloads) -> None:
    (downloads.folder / "hashes").write_text("")
    done = downloads.build("--dry-run")
    assert done.returncode == 65 and "no SHA-256 of Jetson_Linux_R39" in done.stderr


def test_an_archive_of_another_release_is_refused(downloads: Downloads) -> None:
    done = downloads.build("--dry-run", board="orin-nano-jp62")
    assert done.returncode == 65 and "needs L4T R36" in done.stderr


def test_a_wheelhouse_without_a_station_is_refused(downloads: Downloads) -> None:
    (downloads.folder / "wheels" / "lineguard-0.1.0-py3-none-any.whl").unlink()
    done = downloads.build("--dry-run")
    assert done.returncode == 78 and "wheelhouse.sh jetson-jp72" in done.stderr


MODES = """< PM_CONFIG DEFAULT=2 >
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
"""


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("15W", 0, "15W is mode 0"),
        ("MAXN_SUPER", 0, "MAXN_SUPER is mode 2"),
        ("30W", 2, "no mode '30W', only: 15W MAXN_SUPER"),
    ],
)
def test_a_power_mode_is_chosen_by_name(tmp_path: Path, name: str, code: int, said: str) -> None:
    conf = tmp_path / "nvpmodel.conf"
    conf.write_text(MODES)
    done = subprocess.run(
        [str(POWER_MODE), name, "--conf", str(conf), "--dry-run"],
        capture_output=True, text=True, timeout=10, check=False,
    )  # fmt: skip
    assert done.returncode == code and said in done.stdout + done.stderr


@dataclass
class Board:
    """A Jetson's file of modes, its nvpmodel, and what that was asked to do.

    Attributes:
        folder: holds all of it; ``mode`` is the number of the mode at work.
    """

    folder: Path

    def boots(self) -> "subprocess.CompletedProcess[str]":
        """Run what the unit runs at boot; the mode's name is the unit's file's in the test."""
        return subprocess.run(
            [str(POWER_MODE), "MAXN_SUPER", "--conf", str(self.folder / "nvpmodel.conf"),
             "--state", str(self.folder / "state")],
            env={**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}"},
            capture_output=True, text=True, timeout=10, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def asked(self) -> list[str]:
        file = self.folder / "asked"
        return file.read_text().split() if file.exists() else []


def board_whose_tool(tmp_path: Path, sets: str) -> Board:
    """Return a board in mode 0 whose nvpmodel, asked for mode $2, runs ``sets``."""
    (tmp_path / "nvpmodel.conf").write_text(MODES)
    (tmp_path / "mode").write_text("0\n")
    program(
        tmp_path / "nvpmodel",
        f'cd {tmp_path}\nif [ "$1" = -q ]; then echo "NV Power Mode: X"; cat mode; exit; fi\n'
        f'read answer; echo "$2" >> asked; {sets}',
    )
    return Board(tmp_path)


def test_a_boot_sets_the_power_mode_and_the_next_one_leaves_it_alone(tmp_path: Path) -> None:
    board = board_whose_tool(tmp_path, 'echo "$2" > mode')
    done = board.boots()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mode").read_text() == "2\n"
    assert "at work" in board.boots().stdout
    assert board.asked() == ["2"]


def test_a_mode_that_needs_a_restart_is_at_work_after_it(tmp_path: Path) -> None:
    board = board_whose_tool(tmp_path, '[ "$answer" = yes ] && echo "$2" > after-restart')
    assert "may need a restart" in board.boots().stderr
    (tmp_path / "after-restart").replace(tmp_path / "mode")
    assert board.boots().returncode == 0


def test_a_mode_that_never_comes_is_asked_for_once_and_then_said(tmp_path: Path) -> None:
    board = board_whose_tool(tmp_path, ":")
    for _ in range(3):
        done = board.boots()
        assert done.returncode == 70
    assert "was asked for before" in done.stderr
    assert board.asked() == ["2"]


def test_the_image_writes_the_mode_where_the_unit_looks_for_it() -> None:
    place = "/etc/lineguard/power-mode"
    units = ROOTFS / "usr" / "lib" / "systemd" / "system"
    unit = (units / "lineguard-power-mode.service").read_text()
    assert f"ConditionPathExists={place}\n" in unit
    assert f"wanted={place}\n" in POWER_MODE.read_text()
    assert f'"$BOARD_POWER_MODE" >"$tree/rootfs{place}"' in (JETSON / "build-image.sh").read_text()
    installer = (REPOSITORY / "deploy" / "station" / "install.sh").read_text()
    assert "lineguard-power-mode.service" in installer.split("enabled=(")[1].split(")")[0]


def test_no_script_of_a_board_holds_a_password() -> None:
    for file in sorted(JETSON.iterdir()):
        assert "nvidia:nvidia" not in file.read_text()
        assert file.stat().st_mode & stat.S_IWOTH == 0
