"""Prints one entry of a TOML page of this folder tree as shell variables, or the names of all.

python3 table.py targets                 cpu openvino gpu jetson-jp72 jetson-jp62
python3 table.py targets cpu             TARGET_EXTRAS=cpu,web,monitor,signing ...
python3 table.py boards agx-orin         BOARD_USB='0955:7[0-9a-f]23' ...
"""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

DEPLOY = Path(__file__).resolve().parent.parent
FILES = {"targets": DEPLOY / "targets.toml", "boards": DEPLOY / "jetson" / "boards.toml"}


def read(file: Path) -> dict[str, dict[str, Any]]:
    """Return what a page says: tables whose keys have a text, texts in one line, true or false.

    That is all of TOML that these pages use, and each such value is JSON. Python 3.10 has no reader
    of TOML, and the system's Python of a Jetson with JetPack 6 has nothing else either.

    Raises:
        ValueError: a line is none of these.
    """
    page: dict[str, dict[str, Any]] = {}
    name = ""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("[") and line.endswith("]"):
            name = line[1:-1]
            page[name] = {}
        elif line and not line.startswith("#"):
            key, _, value = line.partition(" = ")
            try:
                page[name][key] = json.loads(value)
            except (KeyError, ValueError) as error:
                raise ValueError(f"{file}:{number}: not `key = value` in a table") from error
    return page


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
