#!/usr/bin/env bash
# Part of boot.sh: the image's systemd and all that it starts in a container of systemd-nspawn, at the
# computer's own speed. Without firmware, kernel, disks of its own and SSH; a power cut is the death of
# all processes at once, and what they had written is there.
# shellcheck disable=SC2154,SC2034 # work, disk, ... are boot.sh's; name, ... are for it

broker_address=127.0.0.1
identity=6c673030303100000000000000000001
name="lineguard-${identity:0:12}"
# Where the container's network is. The plant's side joins it: nothing of this computer's is touched.
unshare --net sleep infinity &
network=$!

plant() { nsenter --net="/proc/$network/ns/net" "$@"; }

prepare() {
	plant ip link set lo up
	mkdir "$work/root"
	# This computer's kernel may know no FAT; the content of the partition is the same.
	truncate -s 16M "$work/configuration"
	mke2fs -q -t ext4 -d "$work/config" "$work/configuration"
	configuration=$(losetup --find --show --read-only "$work/configuration")
	root_device=$(losetup --find --show --offset $((113 << 20)) "$disk")
	mount "$root_device" "$work/root"
}

guest() {
	nsenter --target "$(pgrep --parent "$machine" --exact systemd)" --mount --uts --ipc --net --pid -- \
		/usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
		/bin/bash -c "cd /root; $*"
}

switch_on() {
	switched_on=$SECONDS
	systemd-nspawn --quiet --directory "$work/root" --boot --register=no --keep-unit --uuid="$identity" \
		--network-namespace-path="/proc/$network/ns/net" --console=pipe \
		--bind="$configuration:/dev/disk/by-label/LINEGUARD" </dev/null >>"$work/console.log" 2>&1 &
	machine=$!
	within 600 "the container does not start" guest systemctl is-active -q basic.target
	figure "started $(clock) s after it was switched on"
}

cut_power() {
	kill -9 "$(pgrep --parent "$machine" --exact systemd)"
	switched_off
}

switched_off() { wait "$machine" 2>/dev/null || true; }

clock() { printf '%s\n' $((SECONDS - switched_on)); }

clean_machine() {
	pkill -9 --parent "${machine:-0}" 2>/dev/null || true
	wait "${machine:-}" 2>/dev/null || true
	! mountpoint -q "$work/root" || umount "$work/root"
	[[ -z "${configuration:-}" ]] || losetup --detach "$configuration" "$root_device"
	kill "$network" 2>/dev/null || true
}
