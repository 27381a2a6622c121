#!/usr/bin/env bash
# Takes out of a root file system what no two stations may share, and every way in but an SSH key.
# What is taken is made again on each station at its first boot. Used by every image build.
#
#   anonymize.sh ROOT
set -euo pipefail

root=${1:?usage: anonymize.sh ROOT}
[[ -d "$root/etc" && "$(cd "$root" && pwd)" != / ]] || {
	printf 'anonymize: %s: no root file system of an image\n' "$root" >&2
	exit 2
}
rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed"
: >"$root/etc/machine-id"
install -d "$root/etc/ssh/sshd_config.d"
printf 'PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nHostKey /etc/ssh/ssh_host_ed25519_key\n' \
	>"$root/etc/ssh/sshd_config.d/10-lineguard.conf"
# An empty second field is a login without any password; one that is neither ! nor * is a password.
if open=$(grep -E '^[^:]+:([^!*:][^:]*)?:' "$root/etc/shadow" | cut -d: -f1 | paste -sd' ') && [[ -n "$open" ]]; then
	printf 'anonymize: these accounts of the image are not locked: %s\n' "$open" >&2
	exit 1
fi
