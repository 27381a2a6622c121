"""Writes down what a flashable tree holds, and compares a tree with what was written down.

python3 manifest.py write TREE BOARD REVISION    makes TREE/image-manifest.json
python3 manifest.py check TREE BOARD             exit 1 with one line if the tree differs
"""

import hashlib
import json
import sys
from pathlib import Path

NAME = "image-manifest.json"
# What decides how a station boots and what it runs: the kernel, NVIDIA's release, our program.
WATCHED = (
    "kernel/Image",
    "rootfs/boot/Image",
    "rootfs/etc/nv_tegra_release",
    "rootfs/etc/shadow",
    "rootfs/etc/lineguard/power-mode",
    "rootfs/usr/lib/systemd/system/lineguard*",
    "rootfs/usr/libexec/lineguard/*",
    "rootfs/opt/lineguard/releases/*/lib/python3*/site-packages/pipeline/**/*.py",
)


def hashes(tree: Path) -> dict[str, str]:
    """Return the SHA-256 of every watched file of a tree, by its path."""
    files = sorted({f for pattern in WATCHED for f in tree.glob(pattern) if f.is_file()})
    return {str(f.relative_to(tree)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def write(tree: Path, board: str, revision: str) -> None:
    """Write the manifest of a tree."""
    status = tree / "rootfs" / "var" / "lib" / "dpkg" / "status"
    packages = status.read_text().count("\nPackage: ") if status.exists() else 0
    release = (tree / "rootfs" / "etc" / "nv_tegra_release").read_text().splitlines()[0]
    page = {
        "schema": 1,
        "board": board,
        "revision": revision,
        "l4t": release,
        "packages": packages,
        "sha256": hashes(tree),
    }
    (tree / NAME).write_text(json.dumps(page, indent=2) + "\n")


def differs(tree: Path, board: str) -> str | None:
    """Return in what a tree differs from its manifest, or None."""
    if not (tree / NAME).is_file():
        return f"{tree}: no {NAME}; make the tree with build-image.sh"
    page = json.loads((tree / NAME).read_text())
    if page["board"] != board:
        return f"{tree}: it was built for the board '{page['board']}', not for '{board}'"
    now = hashes(tree)
    for path in sorted({*page["sha256"], *now}):
        if now.get(path) != page["sha256"].get(path):
            return f"{tree}/{path}: differs from {NAME} (hash mismatch); build the image again"
    return None


def main(words: list[str]) -> int:
    """Run one of the two commands."""
    command, tree, board, *rest = words
    if command == "write":
        write(Path(tree), board, rest[0])
        return 0
    if wrong := differs(Path(tree), board):
        sys.stderr.write(wrong + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
