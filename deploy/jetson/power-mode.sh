#!/usr/bin/env bash
# Sets a Jetson's power mode by its name: the numbers differ from module to module.
#
#   power-mode.sh NAME [--conf FILE] [--dry-run]
set -euo pipefail

name="" conf=/etc/nvpmodel.conf dry=""
fail() {
	printf 'power-mode: %s\n' "${*:2}" >&2
	exit "$1"
}
while (($#)); do
	case "$1" in
	--conf)
		conf=${2:?--conf needs a file}
		shift
		;;
	--dry-run) dry=yes ;;
	*) name=$1 ;;
	esac
	shift
done
[[ -n "$name" ]] || fail 2 "usage: power-mode.sh NAME [--conf FILE] [--dry-run]"
[[ -r "$conf" ]] || fail 78 "$conf: cannot be read; is this a Jetson?"
modes=$(sed -n 's/^< POWER_MODEL ID=\([0-9]*\) NAME=\([^ ]*\) >.*/\1 \2/p' "$conf")
[[ -n "$modes" ]] || fail 78 "$conf: no power mode in it"
id=$(awk -v name="$name" '$2 == name {print $1}' <<<"$modes")
[[ -n "$id" ]] || fail 2 "this module has no mode '$name', only: $(cut -d' ' -f2 <<<"$modes" | paste -sd' ')"
printf 'power-mode: %s is mode %s\n' "$name" "$id"
[[ -n "$dry" ]] || nvpmodel -m "$id"
