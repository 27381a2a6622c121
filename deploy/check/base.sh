#!/usr/bin/env bash
# Makes a base image for images.sh where no registry is at hand: Debian, and if asked a Python of
# another version than Debian's.
#
#   base.sh IMAGE [SUITE [PYTHON]]      e.g. base.sh docker.io/library/debian:bookworm-slim bookworm
#
# PYTHON is a folder with a CPython that was built on that SUITE (bin/, lib/); it goes to /usr/local,
# where it comes before Debian's. Needs root, mmdebstrap, buildah and Debian's mirror.
set -euo pipefail

image=${1:?usage: base.sh IMAGE [SUITE [PYTHON]]} suite=${2:-bookworm} python=${3:-}
packages=ca-certificates
# What a CPython's own modules link against, and its venv and pip need.
[[ -z "$python" ]] || packages+=,libbz2-1.0,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,libuuid1,zlib1g
work=$(mktemp -d)
container=""
clean() {
	[[ -z "$container" ]] || buildah rm "$container" >/dev/null
	rm -rf --one-file-system "$work"
}
trap clean EXIT

mmdebstrap --quiet --variant=minbase --include="$packages" "$suite" "$work/root"
if [[ -n "$python" ]]; then
	cp -a "$python"/lib/libpython*.so* "$work/root/usr/local/lib/"
	cp -a "$python"/lib/python3.* "$work/root/usr/local/lib/"
	rm -rf "$work"/root/usr/local/lib/python3.*/{test,idlelib,tkinter,config-*,site-packages/*}
	find "$work/root/usr/local/lib" -name __pycache__ -prune -exec rm -rf {} +
	cp -aL "$python/bin/python3" "$work/root/usr/local/bin/python3"
	chroot "$work/root" ldconfig
	# Its pip brings certificates of its own; Debian's takes the system's.
	printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$work/root/etc/pip.conf"
fi
container=$(buildah from scratch)
buildah add --quiet "$container" "$work/root" / >/dev/null
buildah config --cmd bash --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
buildah commit --quiet --format docker "$container" "$image" >/dev/null
printf 'base: %s: Debian %s%s\n' "$image" "$suite" "${python:+, $(chroot "$work/root" python3 --version)}"
