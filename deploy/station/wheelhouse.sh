#!/usr/bin/env bash
# Fills a folder with all that install.sh --offline needs for one target: for plants without a
# network. Run it on a machine with one, of any architecture; carry the folder over.
#
#   wheelhouse.sh TARGET PYTHON FOLDER [ARCH]   e.g. wheelhouse.sh jetson-jp72 3.12 /media/usb/wheels
#
# ARCH is amd64 or arm64; without it, the first one that the target names.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
fail() {
	printf 'wheelhouse: %s\n' "$1" >&2
	exit 2
}
(($# == 3 || $# == 4)) || fail "usage: wheelhouse.sh TARGET PYTHON FOLDER [ARCH]"
described=$(python3 "$here/table.py" targets "$1" 2>&1) || fail "$described"
eval "$described"
[[ ",$TARGET_PYTHON," == *",$2,"* ]] || fail "the target '$1' is for Python $TARGET_PYTHON, not $2"
arch=${4:-${TARGET_ARCH%%,*}}
[[ ",$TARGET_ARCH," == *",$arch,"* ]] || fail "the target '$1' is for $TARGET_ARCH, not $arch"
case "$arch" in
arm64) machine=aarch64 ;;
*) machine=x86_64 ;;
esac
platforms=(--platform "manylinux2014_$machine")
for glibc in 17 24 26 27 28 31 34 35; do platforms+=(--platform "manylinux_2_${glibc}_$machine"); done
mkdir -p "$3"
python3 -m pip --disable-pip-version-check download --quiet --dest "$3" --only-binary :all: \
	--python-version "$2" --implementation cp "${platforms[@]}" \
	--require-hashes -r "$repository/deploy/locks/$TARGET_LOCK"
rm -f "$3"/lineguard-*.whl
SOURCE_DATE_EPOCH=1735689600 python3 -m pip --disable-pip-version-check wheel --quiet --no-deps \
	--wheel-dir "$3" "$repository"
printf 'wheelhouse: %s files, %s\n' "$(find "$3" -name '*.whl' | wc -l)" "$(du -sh "$3" | cut -f1)"
