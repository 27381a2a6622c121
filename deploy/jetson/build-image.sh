#!/usr/bin/env bash
# Makes a flashable tree out of NVIDIA's BSP and sample root file system, with a station in it. You
# download the two archives from NVIDIA under NVIDIA's licence; nothing of theirs is shipped here.
set -euo pipefail
umask 022

usage() {
	cat <<'EOF'
build-image.sh --board BOARD --bsp FILE --rootfs FILE --hashes FILE --wheelhouse DIR --out DIR [--dry-run]

  --board BOARD     of deploy/jetson/boards.toml
  --bsp FILE        Jetson_Linux_R*_aarch64.tbz2
  --rootfs FILE     Tegra_Linux_Sample-Root-Filesystem_R*_aarch64.tbz2
  --hashes FILE     both archives' SHA-256 from NVIDIA's release page, as sha256sum writes them
  --wheelhouse DIR  of deploy/station/wheelhouse.sh, for the board's target
  --out DIR         made; the tree is DIR/Linux_for_Tegra. Run again, it goes on where it stopped
  --dry-run         check everything, print the plan, do nothing

The image has no password, no key and no name: each station makes its own at first boot.
Exit codes: 0 done; 2 wrong use; 65 an archive is not what it should be; 70 a step failed; 77 not root;
78 something is missing.
EOF
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
board="" bsp="" rootfs="" hashes="" wheelhouse="" out="" dry=""
say() { printf 'build-image: %s\n' "$*"; }
fail() {
	printf 'build-image: %s\n' "${*:2}" >&2
	exit "$1"
}

while (($#)); do
	case "$1" in
	--board | --bsp | --rootfs | --hashes | --wheelhouse | --out)
		[[ -n "${2:-}" ]] || fail 2 "$1 needs a value; see --help"
		declare "${1#--}=$2"
		shift
		;;
	--dry-run) dry=yes ;;
	-h | --help)
		usage
		exit 0
		;;
	*) fail 2 "unknown option '$1'; see --help" ;;
	esac
	shift
done

# -- checks: all of them before anything is written -------------------------------------------------

check_hash() {
	local file=$1 expected
	expected=$(awk -v name="$(basename "$file")" '{sub(/^\*/, "", $2)} $2 == name {print $1}' "$hashes")
	[[ "$expected" =~ ^[0-9a-f]{64}$ ]] || fail 65 \
		"$hashes: no SHA-256 of $(basename "$file"); take it from NVIDIA's release page"
	[[ $(sha256sum "$file" | cut -d' ' -f1) == "$expected" ]] || fail 65 \
		"$file: its SHA-256 is not the one in $hashes; download it again"
}

check() {
	local name
	for name in board bsp rootfs hashes wheelhouse out; do
		[[ -n "${!name}" ]] || fail 2 "--$name is needed; see --help"
	done
	local described
	described=$(python3 "$repository/deploy/station/table.py" boards "$board" 2>&1) || fail 2 "$described"
	eval "$described"
	for name in bsp rootfs hashes; do
		[[ -f "${!name}" ]] || fail 78 "--$name: there is no file ${!name}"
	done
	compgen -G "$wheelhouse/lineguard-*.whl" >/dev/null || fail 78 \
		"$wheelhouse: no wheel of lineguard; make it with: deploy/station/wheelhouse.sh $BOARD_TARGET"
	for name in "$bsp" "$rootfs"; do
		[[ "$(basename "$name")" =~ _R${BOARD_L4T}[._] ]] || fail 65 \
			"$(basename "$name"): the board '$board' needs L4T R$BOARD_L4T"
		check_hash "$name"
	done
	[[ -n "$dry" ]] || ((EUID == 0)) || fail 77 "it makes a root file system; run it as root"
}

plan() {
	say "board       $board ($BOARD_CONF, L4T R$BOARD_L4T)"
	say "BSP         $bsp"
	say "root fs     $rootfs"
	say "station     $BOARD_TARGET from $wheelhouse"
	say "power mode  $BOARD_POWER_MODE, from the first boot on"
	say "tree        $out/Linux_for_Tegra"
	say "login       none: root and every other account are locked; SSH by key alone"
}

# -- steps: each is done once -----------------------------------------------------------------------

step() {
	local name=$1
	if [[ -e "$out/.done/$name" ]]; then
		say "$name: done before"
		return
	fi
	say "$name"
	"step_$name" || fail 70 "$name failed; mend what it says above and run this again"
	mkdir -p "$out/.done"
	touch "$out/.done/$name"
}

step_extract() {
	rm -rf --one-file-system "$tree"
	tar -xpf "$bsp" -C "$out" && tar -xpf "$rootfs" -C "$tree/rootfs"
}
step_binaries() { (cd "$tree" && ./apply_binaries.sh >"$out/apply_binaries.log" 2>&1); }

# NVIDIA's first boot would ask for a user on a screen that no station has. Its own tool makes one;
# the password is random, told to nobody, and locked at once.
step_account() {
	(cd "$tree" && ./tools/l4t_create_default_user.sh --accept-license -u station-admin \
		-n lineguard-unnamed -p "$(head -c 32 /dev/urandom | base64)" >"$out/account.log" 2>&1) || return 1
	chroot "$tree/rootfs" usermod -L station-admin && chroot "$tree/rootfs" usermod -L root
}

step_station() {
	local at
	trap 'for at in dev proc; do umount "$tree/rootfs/$at" 2>/dev/null || true; done' EXIT
	mount --bind /dev "$tree/rootfs/dev" && mount -t proc proc "$tree/rootfs/proc" || return 1
	"$repository/deploy/station/install.sh" --target "$BOARD_TARGET" --root "$tree/rootfs" \
		--offline "$wheelhouse" || return 1
	# lineguard-power-mode.service sees to it at every boot.
	printf '%s\n' "$BOARD_POWER_MODE" >"$tree/rootfs/etc/lineguard/power-mode" || return 1
	umount "$tree/rootfs/dev" "$tree/rootfs/proc"
}

# What no two stations may share is made at first boot; an image that carries it gives it to all.
step_anonymous() { "$repository/deploy/station/anonymize.sh" "$tree/rootfs"; }

step_manifest() {
	python3 "$here/manifest.py" write "$tree" "$board" "$(git -C "$repository" rev-parse HEAD 2>/dev/null || echo unknown)"
}

check
plan
tree=$out/Linux_for_Tegra
if [[ -n "$dry" ]]; then
	say "dry run: nothing was done"
	exit 0
fi
mkdir -p "$out"
for name in extract binaries account station anonymous manifest; do step "$name"; done
say "done; flash it with: deploy/jetson/flash.sh --board $board --tree $tree"
