"""From the name of a kind in the station file to its code; what is not named is not imported."""

import importlib
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo

from pipeline.errors import ConfigError, MissingExtra

FAMILIES = ("cameras", "triggers", "runtimes", "outputs", "publishers")


class Options(BaseModel):
    """Base of every plugin's options: strict, frozen, an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _from_the_station_file(path: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base")
    return path if base is None else base / path


ConfigPath = Annotated[Path, AfterValidator(_from_the_station_file)]
"""A path in a plugin's options; a relative one starts at the folder of the station file."""


def kinds(family: str) -> tuple[str, ...]:
    """Return the names of all kinds of a family, built in and installed, sorted."""
    installed = {point.name for point in entry_points(group=f"lineguard.{family}")}
    return tuple(sorted(_built_in(family) | installed))


def load(family: str, kind: str) -> Any:
    """Import the plugin ``kind`` of ``family``.

    Returns:
        The module (or the object an entry point names), with ``Options`` and ``create``.

    Raises:
        ConfigError: there is no such kind, or an installed one cannot be imported.
    """
    # What is built in wins: no other package can take the place of a camera or an output.
    if kind in _built_in(family):
        return importlib.import_module(f"pipeline.{family}.{kind}")
    for point in entry_points(group=f"lineguard.{family}", name=kind):
        return _loaded(point)
    known = ", ".join(kinds(family))
    raise ConfigError(f"{family}: there is no kind '{kind}'; use one of: {known}")


def _built_in(family: str) -> set[str]:
    package = importlib.import_module(f"pipeline.{family}")
    return {m.name for m in pkgutil.iter_modules(package.__path__) if m.name[0] != "_"}


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{point.group}: '{point.name}' ({point.value}) cannot be imported ({error}); "
            "install its package again"
        ) from error


def vendor(name: str, extra: str) -> ModuleType:
    """Import an optional package at the moment it is needed.

    Raises:
        MissingExtra: the package cannot be imported; the message says what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra(
            f"the package '{name}' cannot be imported ({error}); "
            f"install it with: pip install 'lineguard[{extra}]'"
        ) from error
