#!/usr/bin/env bash
# Runs the installer for real in a fresh Debian: twice, replays the repository's clip there and
# compares every verdict with the golden records, then again without a network, then removes it all.
#
#   installer.sh [--arch ARCH] [--tree DIR] [--boards N] [TARGET]
#
# Needs root, mmdebstrap, PyPI and Debian's mirror. --arch arm64 needs qemu-user registered
# (binfmt_misc). --tree takes a fresh Debian that is there, and its architecture. --boards replays
# the clip's first N boards instead of all four: one takes an emulated processor a minute.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
arch=amd64 tree="" boards="" target=cpu
while (($#)); do
	case "$1" in
	--arch | --tree | --boards)
		declare "${1#--}=${2:?$1 needs a value}"
		shift
		;;
	*) target=$1 ;;
	esac
	shift
done
work=$(mktemp -d)
root=$work/root
installer=$repository/deploy/station/install.sh
described=$(python3 "$repository/deploy/station/table.py" targets "$target") || exit 2
eval "$described"
[[ -z "$tree" ]] || arch=$(chroot "$tree" dpkg --print-architecture)

unmount() {
	local at
	for at in "$root/proc" "$root/dev"; do
		! mountpoint -q "$at" || umount "$at"
	done
}
clean() {
	unmount
	rm -rf --one-file-system "$work" # never into a /dev that could not be unmounted
}
trap clean EXIT
step() { printf '\n== %s\n' "$*"; }
wrong() {
	printf 'WRONG: %s\n' "$*" >&2
	exit 1
}

fresh() {
	unmount
	rm -rf --one-file-system "$root"
	if [[ -n "$tree" ]]; then cp -a "$tree" "$root"; else
		mmdebstrap --quiet --variant=minbase --architectures="$arch" \
			--include=python3,python3-venv,ca-certificates,openssl bookworm "$root"
	fi
	cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
	cp -L /etc/resolv.conf "$root/etc/resolv.conf"
	mount -t proc proc "$root/proc"
	mount --bind /dev "$root/dev"
}

replays() {
	local at=/tmp/replay recording=drawn.mp4 golden=drawn.golden.jsonl
	rm -rf "${root:?}$at"
	mkdir "$root$at"
	cp "$repository"/tests/replay/drawn.{mp4,golden.jsonl} "$here/first_boards.py" "$root$at/"
	# An emulated processor needs its time to load a model.
	sed "s#\.\./models#/opt/lineguard/current/share/lineguard/models#
		s#{kind: onnx}#{kind: $TARGET_RUNTIME}#; /^  runtime:/a\  trial: {seconds: 1800}" \
		"$repository/configs/demo.yaml" >"$root$at/demo.yaml"
	if [[ -n "$boards" ]]; then
		chroot "$root" /opt/lineguard/current/bin/python -B $at/first_boards.py $at/$recording $at/$golden "$boards" $at
		recording=pictures golden=golden.jsonl
	fi
	chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/nonexistent PYTHONDONTWRITEBYTECODE=1 \
		setpriv --reuid=lineguard --regid=lineguard --init-groups \
		/usr/local/bin/lineguard replay $at/$recording \
		--config $at/demo.yaml --against $at/$golden >"$work/replay.txt" ||
		{ cat "$work/replay.txt" && wrong "the verdicts of the replay differ"; }
	tail -n 4 "$work/replay.txt"
}

doctor_is_content() {
	chroot "$root" /usr/local/bin/lineguard doctor >"$work/doctor.txt" || wrong "$(cat "$work/doctor.txt")"
	local package
	for package in pymodbus asyncua gpiod; do
		grep "^well *$package: " "$work/doctor.txt" || wrong "no $package: the station reaches no such PLC"
	done
}

modes_are_right() {
	local loose
	loose=$(find "$root/opt/lineguard" "$root/etc/lineguard" "$root/var/lib/lineguard" \
		"$root/usr/libexec/lineguard" -perm /o+w -not -type l)
	[[ -z "$loose" ]] || wrong "everybody may write: $loose"
	[[ $(stat -c %a "$root/etc/lineguard/pki") == 750 ]] || wrong "the folder of keys is open"
	loose=$(find "$root/opt/lineguard" -uid "$(chroot "$root" id -u lineguard)")
	[[ -z "$loose" ]] || wrong "the station may change its own program: $loose"
	chroot "$root" setpriv --reuid=lineguard --regid=lineguard --init-groups \
		test ! -w /opt/lineguard/current/bin/lineguard || wrong "the station may change its own program"
}

step "a fresh Debian ($arch), target $target, first time"
fresh
"$installer" --target "$target" --root "$root" | tee "$work/first.txt"
step "second time"
"$installer" --target "$target" --root "$root" | tee "$work/second.txt"
grep -qx 'install: done: 0 changes' "$work/second.txt" || wrong "the second run changed something"
du -sm "$root/opt/lineguard/current/" | sed 's/\t.*/ MiB installed/'
modes_are_right
step "what the doctor says"
doctor_is_content
step "replay against the golden records, as the user lineguard"
replays
step "identity at first boot, twice"
chroot "$root" /usr/libexec/lineguard/firstboot
chroot "$root" stat -c '%a %U %G' /etc/lineguard/pki/station.key | grep -qx '640 root lineguard' ||
	wrong "the station's key has wrong modes"
chroot "$root" /usr/libexec/lineguard/firstboot | grep -q 'already' || wrong "a second identity"
chroot "$root" openssl req -in /etc/lineguard/pki/station.csr -noout -verify -subject 2>&1
step "removed; configuration and records stay"
touch "$root/var/lib/lineguard/ledger.sqlite"
"$installer" --uninstall --root "$root"
[[ -e "$root/var/lib/lineguard/ledger.sqlite" && ! -e "$root/opt/lineguard" ]] || wrong "uninstall"
find "$root/usr" -name '*lineguard*' | grep . && wrong "uninstall left these behind"

step "without a network, from a wheelhouse"
python=$(chroot "$root" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$repository/deploy/station/wheelhouse.sh" "$target" "$python" "$work/wheels" "$arch"
fresh
unshare --net "$installer" --target "$target" --root "$root" --offline "$work/wheels"
replays
step "a wheel that was changed is refused, and what is installed stays in use"
before=$(readlink "$root/opt/lineguard/current")
printf ' ' >>"$(find "$work/wheels" -name 'pydantic-*.whl')"
printf ' ' >>"$(find "$work/wheels" -name 'lineguard-*.whl')" # another release
if unshare --net "$installer" --target "$target" --root "$root" --offline "$work/wheels" 2>"$work/refused.txt"; then
	wrong "a changed wheel was installed"
fi
tail -n 1 "$work/refused.txt" | grep 'its hash differs' || wrong "$(cat "$work/refused.txt")"
[[ $(readlink "$root/opt/lineguard/current") == "$before" ]] || wrong "the release in use changed"
replays
step "the installer does what it says"
