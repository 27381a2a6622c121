#!/usr/bin/env bash
# Part of boot.sh: the image in a whole emulated PC, from its firmware on, reached by SSH.
# shellcheck disable=SC2154,SC2034 # work, disk, ... are boot.sh's; name, ... are for it

firmware=/usr/share/OVMF/OVMF_CODE_4M.fd
name="lineguard-lg0001" # of the serial number that the machine tells
broker_address=10.0.2.2 # the plant, seen from the machine
ssh_port=$(free_port)

plant() { "$@"; }

prepare() { cp "${firmware/CODE/VARS}" "$work/variables.fd"; }

guest() {
	ssh -F none -i "$work/admin" -p "$ssh_port" -o UserKnownHostsFile="$work/known" \
		-o StrictHostKeyChecking=accept-new -o ConnectTimeout=60 -o LogLevel=ERROR -o BatchMode=yes \
		-o ControlMaster=auto -o ControlPath="$work/ssh" -o ControlPersist=600 root@127.0.0.1 "$@"
}

switch_on() {
	local options=()
	read -ra options <<<"${QEMU_OPTIONS:-}"
	qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 2048 -display none \
		-serial "file:$work/console.log" -smbios type=1,serial=LG0001 -device virtio-rng-pci \
		-drive "if=pflash,format=raw,readonly=on,file=$firmware" \
		-drive "if=pflash,format=raw,file=$work/variables.fd" \
		-drive "file=$disk,format=raw,if=virtio" -device virtio-net-pci,netdev=plant \
		-netdev "user,id=plant,hostfwd=tcp:127.0.0.1:$ssh_port-:22" "${options[@]}" &
	machine=$!
	within 2400 "the machine does not answer over SSH" guest true
	figure "answers over SSH $(clock) s after it was switched on"
}

# The disk keeps what the machine has flushed, and nothing else.
cut_power() {
	kill -9 "$machine"
	switched_off
}

switched_off() {
	wait "$machine" 2>/dev/null || true
	ssh -F none -O exit -o ControlPath="$work/ssh" root@127.0.0.1 2>/dev/null || true
}

# In seconds since it was switched on: emulation may be slowed or paused.
clock() { guest cut -d. -f1 /proc/uptime; }

clean_machine() { kill -9 "${machine:-}" 2>/dev/null || true; }
