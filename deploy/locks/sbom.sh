#!/usr/bin/env bash
# Writes what a target's station is made of as CycloneDX: every package of its lock, with its hashes.
# An image of `docker buildx bake` carries one of its own, with the system's packages too.
#
#   sbom.sh TARGET FILE      e.g. sbom.sh cpu station.cdx.json
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
fail() {
	printf 'sbom: %s\n' "$1" >&2
	exit 2
}
(($# == 2)) || fail "usage: sbom.sh TARGET FILE"
command -v cyclonedx-py >/dev/null || fail "there is no cyclonedx-py; pip install 'lineguard[deploy]'"
described=$(python3 "$here/../station/table.py" targets "$1" 2>&1) || fail "$described"
eval "$described"
cyclonedx-py requirements --output-reproducible --output-format JSON --output-file "$2" "$here/$TARGET_LOCK"
