"""Prints one entry of a TOML file of this folder tree as shell variables, or the names of all.

python3 table.py targets                 cpu openvino gpu jetson-jp72 jetson-jp62
python3 table.py targets cpu             TARGET_EXTRAS='cpu,web,update' ...
python3 table.py boards agx-orin         BOARD_USB='0955:7023' ...
"""

import shlex
import sys
from pathlib import Path
from typing import Any

DEPLOY = Path(__file__).resolve().parent.parent
FILES = {"targets": DEPLOY / "targets.toml", "boards": DEPLOY / "jetson" / "boards.toml"}


def read(file: Path) -> dict[str, dict[str, Any]]:
    """Return what a TOML file says."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10: pip brings the same reader
        from pip._vendor import tomli as tomllib
    with file.open("rb") as stream:
        return dict(tomllib.load(stream))


def main(words: list[str]) -> int:
    """Print what is asked for; return 2 where there is no such entry."""
    kind, *names = words
    entries = read(FILES[kind])
    if not names:
        sys.stdout.write(" ".join(entries) + "\n")
        return 0
    if names[0] not in entries:
        known = ", ".join(entries)
        sys.stderr.write(f"there is no {kind[:-1]} '{names[0]}'; use one of: {known}\n")
        return 2
    for key, value in entries[names[0]].items():
        joined = ",".join(value) if isinstance(value, list) else value
        joined = "yes" if joined is True else "" if joined is False else joined
        sys.stdout.write(f"{kind[:-1].upper()}_{key.upper()}={shlex.quote(joined)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
