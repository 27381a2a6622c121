"""A kind is found by its name, and only what is named is imported."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pipeline.errors import ConfigError, MissingExtra
from pipeline.plugins import FAMILIES, kinds, load, vendor
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_has_options_and_a_maker(family: str) -> None:
    assert kinds(family)
    for kind in kinds(family):
        plugin = load(family, kind)
        assert issubclass(plugin.Options, BaseModel)
        assert callable(plugin.create)
        settings = plugin.Options.model_config
        assert settings.get("extra") == "forbid", f"{family}.{kind} takes unknown keys"
        assert settings.get("frozen"), f"{family}.{kind} can be changed after it was checked"


def test_what_the_kinds_of_a_family_share_is_no_kind() -> None:
    assert not [kind for family in FAMILIES for kind in kinds(family) if kind.startswith("_")]


@pytest.mark.parametrize("kind", ["abacus", "_broker", "__init__", "", "..config", "file.py"])
def test_an_unknown_kind_names_the_known_ones(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"there is no kind .*use one of: file, mqtt"):
        load("publishers", kind)


def test_a_package_that_is_missing_says_what_to_install() -> None:
    with pytest.raises(MissingExtra, match=r"'no_such_package'.*pip install 'lineguard\[cpu\]'"):
        vendor("no_such_package", "cpu")


def test_a_package_that_is_there_is_returned() -> None:
    assert vendor("json", "cpu").dumps([1]) == "[1]"


def test_a_missing_package_is_a_config_error() -> None:
    assert issubclass(MissingExtra, ConfigError)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a folder in which a third party's package with two cameras is installed."""
    (tmp_path / "thirdparty.py").write_text("class Options: pass\ndef create(): return 'third'\n")
    info = tmp_path / "thirdparty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[lineguard.cameras]\nthird = thirdparty\nbroken = no_such_module\n"
    )
    return tmp_path


def asked(folder: Path, code: str) -> Any:
    """Run a line of Python in a process that finds ``folder``; return what it printed."""
    return subprocess.run(
        [sys.executable, "-c", f"from pipeline.plugins import kinds, load\n{code}"],
        env={"PYTHONPATH": f"{folder}:{REPOSITORY}", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_third_party_registers_a_kind(installed: Path) -> None:
    code = "print('third' in kinds('cameras'), load('cameras', 'third').create())"
    assert asked(installed, code).stdout == "True third\n"


def test_a_third_party_that_cannot_be_imported_is_one_line(installed: Path) -> None:
    said = asked(installed, "load('cameras', 'broken')").stderr.splitlines()[-1]
    assert said.startswith("pipeline.errors.ConfigError: lineguard.cameras: 'broken'")
    assert "install its package again" in said
