"""Prints one target of targets.toml as shell variables, or the names of all targets.

    python3 target.py                    cpu openvino gpu jetson-jp72 jetson-jp62
    python3 target.py cpu                TARGET_EXTRAS='cpu,web,update' ...
"""

import shlex
import sys
from pathlib import Path
from typing import Any

TARGETS = Path(__file__).resolve().parent.parent / "targets.toml"


def read(file: Path = TARGETS) -> dict[str, dict[str, Any]]:
    """Return what targets.toml says, by target."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10: pip brings the same reader
        from pip._vendor import tomli as tomllib
    with file.open("rb") as stream:
        return dict(tomllib.load(stream))


def main(words: list[str]) -> int:
    """Print what is asked for; return 2 where there is no such target."""
    targets = read()
    if not words:
        sys.stdout.write(" ".join(targets) + "\n")
        return 0
    if words[0] not in targets:
        sys.stderr.write(f"there is no target '{words[0]}'; use one of: {', '.join(targets)}\n")
        return 2
    for key, value in targets[words[0]].items():
        joined = ",".join(value) if isinstance(value, list) else value
        joined = "yes" if joined is True else "" if joined is False else joined
        sys.stdout.write(f"TARGET_{key.upper()}={shlex.quote(joined)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
