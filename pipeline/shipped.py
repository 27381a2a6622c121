"""Where the station files and models that come with lineguard lie."""

import sys
from pathlib import Path

from pipeline.errors import ConfigError


def shipped(relative: str) -> Path:
    """Return the path of a shipped file or folder, e.g. ``configs/demo.yaml``.

    A checkout keeps them beside the package, an installed wheel under ``share/lineguard``.

    Raises:
        ConfigError: it is in neither place.
    """
    places = (Path(__file__).resolve().parent.parent, Path(sys.prefix) / "share" / "lineguard")
    for place in places:
        if (place / relative).exists():
            return place / relative
    raise ConfigError(
        f"{relative}: not found in {places[0]} or {places[1]}; run from a checkout or reinstall"
    )
