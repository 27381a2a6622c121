#!/usr/bin/env bash
# Flashes Jetson boards with a tree of build-image.sh: looks at the tree and at the boards, prints
# what will happen, asks, and only then calls NVIDIA's tool. Nothing is tried twice by itself.
set -euo pipefail

usage() {
	cat <<'EOF'
flash.sh --board BOARD --tree DIR [--boards N] [--dry-run] [--yes]

  --board BOARD   of deploy/jetson/boards.toml
  --tree DIR      Linux_for_Tegra, as build-image.sh left it
  --boards N      flash so many boards at once; all of them in recovery mode on USB (default 1)
  --dry-run       look at everything, print the plan and the command, do nothing
  --yes           do not ask

Exit codes: 0 done; 2 wrong use; 65 the tree is not what it should be; 69 no such board on USB;
70 NVIDIA's tool failed; 77 not root; 130 you said no.
EOF
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
board="" tree="" boards=1 dry="" yes=""
say() { printf 'flash: %s\n' "$*"; }
fail() {
	printf 'flash: %s\n' "${*:2}" >&2
	exit "$1"
}

while (($#)); do
	case "$1" in
	--board | --tree | --boards)
		[[ -n "${2:-}" ]] || fail 2 "$1 needs a value; see --help"
		declare "${1#--}=$2"
		shift
		;;
	--dry-run) dry=yes ;;
	--yes) yes=yes ;;
	-h | --help)
		usage
		exit 0
		;;
	*) fail 2 "unknown option '$1'; see --help" ;;
	esac
	shift
done

check_tree() {
	tool=tools/kernel_flash/l4t_initrd_flash.sh
	[[ -x "$tree/$tool" ]] || fail 65 "$tree: no $tool; is this NVIDIA's Linux_for_Tegra?"
	[[ -e "$tree/rootfs/bin/sh" || -L "$tree/rootfs/bin" ]] || fail 65 \
		"$tree/rootfs: no root file system in it; extract NVIDIA's sample root file system there"
	local release="$tree/rootfs/etc/nv_tegra_release"
	[[ -f "$release" ]] || fail 65 "$tree: NVIDIA's binaries are not applied; run apply_binaries.sh"
	grep -q "^# R$BOARD_L4T " "$release" || fail 65 \
		"$tree: it holds $(head -c 5 "$release" | tail -c 3) of L4T, the board '$board' needs R$BOARD_L4T"
	cmp -s "$tree/kernel/Image" "$tree/rootfs/boot/Image" || fail 65 \
		"$tree: kernel/Image and rootfs/boot/Image differ; the board would not boot the kernel it was given"
	[[ -e "$tree/rootfs/opt/lineguard/$(readlink "$tree/rootfs/opt/lineguard/current").complete" ]] || fail 65 \
		"$tree: no station in it; make the tree with build-image.sh"
	[[ "$(cat "$tree/rootfs/etc/lineguard/power-mode" 2>/dev/null)" == "$BOARD_POWER_MODE" ]] || fail 65 \
		"$tree: it does not ask for the power mode $BOARD_POWER_MODE of '$board'; make it with build-image.sh"
	python3 "$here/manifest.py" check "$tree" "$board" 2>"$notes" || fail 65 "$(cat "$notes")"
}

check_usb() {
	local found=() line
	while read -r line; do found+=("$line"); done < <(
		lsusb -d 0955: 2>/dev/null | grep -o '0955:[0-9a-f]\{4\}' || true
	)
	((${#found[@]})) || fail 69 \
		"no Jetson in recovery mode on USB; hold the recovery button while you switch it on"
	for line in "${found[@]}"; do
		[[ "$line" =~ ^$BOARD_USB$ ]] || fail 69 \
			"a device $line is on USB, the board '$board' has $BOARD_USB; unplug it, or is it not in recovery mode?"
	done
	((${#found[@]} == boards)) || fail 69 \
		"${#found[@]} boards are in recovery mode on USB, $boards should be; see --boards"
}

# The USB id tells the family, the module's EEPROM which module it is: this one counts.
check_module() {
	local id
	id=$(cd "$tree" && ./nvautoflash.sh --print_boardid 2>/dev/null | grep -o 'p[0-9]\{4\}' | head -n 1) || true
	[[ -n "$id" ]] || fail 69 "the board's EEPROM cannot be read; is its USB cable one for data?"
	[[ "$id" == "$BOARD_BOARD_ID" ]] || fail 69 \
		"the module on USB is a $id, the board '$board' has a $BOARD_BOARD_ID; flashing it would not boot"
}

plan() {
	say "boards      $boards x $board ($BOARD_CONF, module $BOARD_BOARD_ID)"
	say "tree        $tree: $(head -n 1 "$tree/rootfs/etc/nv_tegra_release" | cut -d, -f1-2)"
	say "station     $(basename "$(readlink "$tree/rootfs/opt/lineguard/current")")"
	say "goes to     $BOARD_BOOT; all that is there is lost"
	say "power mode  $BOARD_POWER_MODE, set by lineguard-power-mode.service at first boot"
	say "command     (cd $tree && ${command[*]})"
}

notes=$(mktemp)
trap 'rm -f "$notes"' EXIT
[[ -n "$board" ]] || fail 2 "--board is needed; see --help"
[[ -n "$tree" ]] || fail 2 "--tree is needed; see --help"
[[ "$boards" =~ ^[1-9][0-9]?$ ]] || fail 2 "--boards: a number from 1 to 99"
described=$(python3 "$here/../station/table.py" boards "$board" 2>&1) || fail 2 "$described"
eval "$described"
check_tree
check_usb
check_module
IFS=, read -ra command <<<"./$tool,$BOARD_ARGUMENTS"
((boards == 1)) || command+=(--massflash "$boards")
command+=("$BOARD_CONF" internal)
plan
if [[ -n "$dry" ]]; then
	say "dry run: nothing was done"
	exit 0
fi
((EUID == 0)) || fail 77 "NVIDIA's tool needs root"
if [[ -z "$yes" ]]; then
	read -rp "flash: type the board's name to go on: " answer
	[[ "$answer" == "$board" ]] || fail 130 "nothing was done"
fi
(cd "$tree" && "${command[@]}") || fail 70 "NVIDIA's tool failed; unplug the board, put it into recovery mode and try again"
say "done; press reset if the board does not start by itself"
