#!/usr/bin/env bash
# Makes a disk image of a station: Debian, the station, and nothing that two stations may share.
# Write it to a disk (dd, or any image writer) and switch on: a PC with UEFI boots it.
set -euo pipefail
umask 022

usage() {
	cat <<'EOF'
build-image.sh --target TARGET --out IMAGE [--offline WHEELHOUSE] [--config DIR] [--size GIB]
               [--kernel PACKAGE] [--tree DIR]

  --target TARGET        cpu, openvino or gpu (deploy/targets.toml)
  --out IMAGE            the image; IMAGE.json beside it says what is in it
  --offline WHEELHOUSE   packages of deploy/station/wheelhouse.sh; without it, from PyPI
  --config DIR           goes onto the partition LINEGUARD: station files, ca.crt, update.env,
                         orders.env, updates.pub, authorized_keys. Any machine can still change it before the
                         first boot
  --size GIB             of the image (default 6)
  --kernel PACKAGE       default linux-image-amd64; linux-image-cloud-amd64 for virtual machines
  --tree DIR             take this Debian instead of making one with mmdebstrap

The image has no password, no key and no name: each station makes its own at first boot.
Exit codes: 0 done; 2 wrong use; 69 a package cannot be had; 70 a step failed; 77 not root; 78 a tool
or a file is missing.
EOF
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target="" out="" offline="" config="" size=6 kernel=linux-image-amd64 tree=""
loader=usr/lib/systemd/boot/efi/systemd-bootx64.efi
packages=systemd,systemd-sysv,systemd-boot-efi,udev,dbus,initramfs-tools,zstd,kmod,iproute2
packages+=,python3,python3-venv,openssl,ca-certificates,openssh-server,nftables,chrony
say() { printf 'build-image: %s\n' "$*"; }
fail() {
	printf 'build-image: %s\n' "${*:2}" >&2
	exit "$1"
}

while (($#)); do
	case "$1" in
	--target | --out | --offline | --config | --size | --kernel | --tree)
		[[ -n "${2:-}" ]] || fail 2 "$1 needs a value; see --help"
		declare "${1#--}=$2"
		shift
		;;
	-h | --help)
		usage
		exit 0
		;;
	*) fail 2 "unknown option '$1'; see --help" ;;
	esac
	shift
done

check() {
	local tool
	[[ -n "$target" && -n "$out" ]] || fail 2 "--target and --out are needed; see --help"
	[[ "$size" =~ ^[1-9][0-9]?$ ]] || fail 2 "--size: whole GiB from 1 to 99"
	[[ -z "$config" || -d "$config" ]] || fail 78 "--config: there is no folder $config"
	((EUID == 0)) || fail 77 "it makes a root file system; run it as root"
	for tool in sfdisk mke2fs mkfs.vfat mcopy; do
		command -v "$tool" >/dev/null || fail 78 \
			"there is no $tool; install it with: apt-get install fdisk e2fsprogs dosfstools mtools"
	done
	[[ -n "$tree" ]] || command -v mmdebstrap >/dev/null || fail 78 \
		"there is no mmdebstrap; install it with: apt-get install mmdebstrap"
}

unmount() {
	local at
	for at in dev proc; do ! mountpoint -q "$root/$at" || umount "$root/$at"; done
}
clean() {
	unmount
	rm -rf --one-file-system "$work"
}

# -- the root file system ---------------------------------------------------------------------------

make_root() {
	say "Debian"
	if [[ -n "$tree" ]]; then cp -a "$tree" "$root"; else
		mmdebstrap --quiet --variant=minbase --architectures=amd64 \
			--include="$packages,$kernel" bookworm "$root" || fail 69 "Debian cannot be had"
	fi
	[[ -f "$root/$loader" ]] || fail 78 "$tree: no $loader in it; it needs the packages $packages"
	compgen -G "$root/boot/vmlinuz-*" >/dev/null || fail 78 "$tree: no kernel in it"
}

install_station() {
	say "station $target"
	if [[ -z "$offline" ]]; then
		cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
		cp -L /etc/resolv.conf "$root/etc/resolv.conf"
	fi
	mount -t proc proc "$root/proc"
	mount --bind /dev "$root/dev"
	"$here/install.sh" --target "$target" --root "$root" ${offline:+--offline "$offline"}
	unmount
}

configure() {
	say "start-up, network, firewall"
	printf 'lineguard-unnamed\n' >"$root/etc/hostname"
	printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
	cat >"$root/etc/fstab" <<-'EOF'
		LABEL=lineguard-root / ext4 noatime,errors=remount-ro 0 1
		tmpfs /tmp tmpfs mode=1777,nosuid,nodev,size=256M 0 0
	EOF
	printf '[Match]\nType=ether\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/80-dhcp.network"
	rm -f "$root/etc/resolv.conf"
	printf '#!/usr/sbin/nft -f\nflush ruleset\ninclude "/etc/nftables.d/lineguard.nft"\n' \
		>"$root/etc/nftables.conf"
	chroot "$root" usermod -L root
	chroot "$root" systemctl -q enable systemd-networkd ssh nftables chrony 2>/dev/null
	"$here/anonymize.sh" "$root"
}

# -- the disk ---------------------------------------------------------------------------------------

# Where each partition begins and how long it is, in MiB; the rest of the disk is the root's.
efi_at=1 efi_long=96 config_at=97 config_long=16 root_at=113

partition() {
	say "disk of $size GiB"
	rm -f "$out"
	truncate -s "${size}G" "$out"
	sfdisk --quiet "$out" <<-EOF
		label: gpt
		start=${efi_at}MiB, size=${efi_long}MiB, type=uefi, name=EFI
		start=${config_at}MiB, size=${config_long}MiB, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, name=LINEGUARD
		start=${root_at}MiB, type=linux, name=lineguard-root
	EOF
	fat LG_EFI $efi_at $efi_long
	fat LINEGUARD $config_at $config_long
}

# A file system of FAT with a label of at most eleven letters, put where its partition lies.
fat() {
	truncate -s "${3}M" "$work/fat"
	mkfs.vfat -n "$1" "$work/fat" >/dev/null
	dd if="$work/fat" of="$out" bs=1M seek="$2" conv=notrunc,sparse status=none
	rm "$work/fat"
}

fill() {
	local efi="$out@@${efi_at}M"
	printf 'timeout 0\ndefault lineguard.conf\n' >"$work/loader.conf"
	cat >"$work/lineguard.conf" <<-'EOF'
		title lineguard station
		linux /vmlinuz
		initrd /initrd.img
		options root=LABEL=lineguard-root ro console=tty0 console=ttyS0,115200 panic=10
	EOF
	mmd -i "$efi" ::/EFI ::/EFI/BOOT ::/loader ::/loader/entries
	mcopy -i "$efi" "$root/$loader" ::/EFI/BOOT/BOOTX64.EFI
	mcopy -i "$efi" "$work/loader.conf" ::/loader/loader.conf
	mcopy -i "$efi" "$work/lineguard.conf" ::/loader/entries/lineguard.conf
	mcopy -i "$efi" "$(newest vmlinuz)" ::/vmlinuz
	mcopy -i "$efi" "$(newest initrd.img)" ::/initrd.img
	[[ -z "$config" ]] || mcopy -i "$out@@${config_at}M" "$config"/* ::/
	mke2fs -q -t ext4 -L lineguard-root -d "$root" -E "offset=$((root_at << 20))" "$out" \
		$(((size * 1024 - root_at - 1) * 1024))k
}

newest() { find "$root/boot" -name "$1-*" | sort -V | tail -n 1; }

describe() {
	local release
	release=$(basename "$(readlink "$root/opt/lineguard/current")")
	# shellcheck disable=SC2016 # dpkg-query's own placeholders
	chroot "$root" dpkg-query -W -f '  "${Package}": "${Version}",\n' |
		sed '$ s/,$//' |
		{ printf '{"target": "%s", "release": "%s", "packages": {\n' "$target" "$release" && cat && printf '}}\n'; } \
			>"$out.json"
}

check
work=$(mktemp -d)
root=$work/root
trap clean EXIT
make_root
install_station
configure
partition
fill
describe
say "done: $out, $(du -m "$out" | cut -f1) MiB in use"
