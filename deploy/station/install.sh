#!/usr/bin/env bash
# Installs a station: the program, its user, its units. The same script works on a running machine,
# in a chroot, in the root file system of a Jetson image and in a container image, and may be run
# again at any time: what is right already is left alone.
set -euo pipefail

usage() {
	cat <<'EOF'
install.sh --target TARGET [--root DIR] [--offline WHEELHOUSE] [--wheel FILE]
install.sh --uninstall [--purge] [--root DIR]

  --target TARGET       cpu, openvino, gpu, jetson-jp72, jetson-jp62 (deploy/targets.toml)
  --root DIR            install into this tree instead of the running system
  --offline WHEELHOUSE  take every package from this folder and use no network (make it with
                        deploy/station/wheelhouse.sh); every hash is checked all the same
  --wheel FILE          lineguard as a wheel; without it, it is built from this checkout
  --stage ID            only make the release ID, and do not put it to work (lineguard update)
  --no-units            for container images: leave out units, udev rules and the like, and the
                        target's system packages, which the image's recipe brings
  --dry-run             say what would be done
  --uninstall           remove the program and its units; configuration and records stay
  --purge               with --uninstall: remove configuration, keys and records too

Exit codes: 0 done; 2 wrong use; 69 a package cannot be had; 70 the station does not run after it was
installed (the one before stays in use); 77 not root; 78 this system does not fit the target.
EOF
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
target="" root="" offline="" wheel="" stage="" units=yes dry="" action=install purge=""
changes=0
folders="/etc/lineguard 755 root:root
/etc/lineguard/pki 750 root:lineguard
/var/lib/lineguard 750 lineguard:lineguard
/var/lib/lineguard/models 755 root:root
/var/cache/lineguard 750 lineguard:lineguard"
enabled=(lineguard-firstboot.service lineguard-power-mode.service lineguard-resume.service
	lineguard-orders.service lineguard-update.timer)

say() { printf 'install: %s\n' "$*"; }
fail() {
	printf 'install: %s\n' "${*:2}" >&2
	exit "$1"
}
changed() {
	changes=$((changes + 1))
	say "$*"
}

while (($#)); do
	case "$1" in
	--target | --root | --offline | --wheel | --stage)
		[[ -n "${2:-}" ]] || fail 2 "$1 needs a value; see --help"
		declare "${1#--}=$2"
		shift
		;;
	--no-units) units="" ;;
	--dry-run) dry=yes ;;
	--uninstall) action=uninstall ;;
	--purge) purge=yes ;;
	-h | --help)
		usage
		exit 0
		;;
	*) fail 2 "unknown option '$1'; see --help" ;;
	esac
	shift
done

# Run a command in the tree that is installed into, with an environment of its own: only what leads
# to a plant's mirror or proxy is passed on.
inside() {
	if [[ -z "$root" ]]; then
		"$@"
		return
	fi
	local passed=() name
	for name in PIP_INDEX_URL PIP_CERT SSL_CERT_FILE http_proxy https_proxy no_proxy; do
		[[ -z "${!name:-}" ]] || passed+=("$name=${!name}")
	done
	chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
		"${passed[@]}" "$@"
}

# -- what is there ----------------------------------------------------------------------------------

check_system() {
	inside /bin/true 2>/dev/null || fail 78 \
		"programs of $root cannot be run; for another architecture install qemu-user-static"
	local version arch
	version=$(inside python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
		fail 78 "there is no python3; install it with: apt-get install python3"
	[[ ",$TARGET_PYTHON," == *",$version,"* ]] || fail 78 \
		"the target '$target' is for Python $TARGET_PYTHON, this system has $version"
	arch=$(inside dpkg --print-architecture)
	[[ ",$TARGET_ARCH," == *",$arch,"* ]] || fail 78 \
		"the target '$target' is for $TARGET_ARCH, this system is $arch"
	system_packages
}

system_packages() {
	local missing=() package
	local list=python3-venv
	[[ -z "$units" ]] || list+=",openssl${TARGET_APT:+,$TARGET_APT}"
	IFS=, read -ra wanted <<<"$list"
	for package in "${wanted[@]}"; do
		# shellcheck disable=SC2016 # dpkg-query's own placeholder
		[[ "$(inside dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] ||
			missing+=("$package")
	done
	((${#missing[@]})) || return 0
	[[ -z "$offline" ]] || fail 78 "--offline fetches nothing, and these are missing;" \
		"install them first: apt-get install ${missing[*]}"
	changed "system packages: ${missing[*]}"
	[[ -z "$dry" ]] || return 0
	# shellcheck disable=SC2016 # the inner shell's arguments
	inside env DEBIAN_FRONTEND=noninteractive sh -c \
		'apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"' sh "${missing[@]}" \
		>/dev/null || fail 69 "apt-get could not install: ${missing[*]}"
}

# -- user and files ---------------------------------------------------------------------------------

make_user() {
	if ! inside getent passwd lineguard >/dev/null; then
		changed "user lineguard"
		[[ -n "$dry" ]] || inside useradd --system --user-group --no-create-home \
			--home-dir /var/lib/lineguard --shell /usr/sbin/nologin --comment "lineguard station" lineguard
	fi
	[[ -z "$dry" ]] || return 0
	local group
	IFS=, read -ra groups <<<"$TARGET_GROUPS"
	for group in "${groups[@]}"; do
		inside getent group "$group" >/dev/null || inside groupadd --system "$group"
		[[ " $(inside id -nG lineguard) " == *" $group "* ]] && continue
		changed "lineguard joins the group $group"
		inside usermod -aG "$group" lineguard
	done
}

# Put one file in place, and only if it differs.
put() {
	local from=$1 to=$2 mode=$3
	[[ -f "$root$to" ]] && cmp -s "$from" "$root$to" && [[ $(stat -c %a "$root$to") == "$mode" ]] && return 0
	changed "$to"
	[[ -n "$dry" ]] || install -D -m "$mode" "$from" "$root$to"
}

make_folders() {
	local path mode owner
	while read -r path mode owner; do
		[[ -d "$root$path" && $(stat -c %a "$root$path") == "$mode" ]] && continue
		changed "$path"
		[[ -n "$dry" ]] && continue
		inside mkdir -p "$path"
		inside chown "$owner" "$path"
		inside chmod "$mode" "$path"
	done <<<"$folders"
}

put_files() {
	local file mode drop unit
	while IFS= read -r file; do
		mode=644
		[[ -x "$file" ]] && mode=755
		put "$file" "${file#"$here/rootfs"}" "$mode"
	done < <(find "$here/rootfs" -type f | sort)
	drop=$(mktemp)
	drop_in >"$drop"
	for unit in lineguard@ lineguard-engine@; do
		put "$drop" "/usr/lib/systemd/system/$unit.service.d/target.conf" 644
	done
	rm -f "$drop"
	enable_units
}

drop_in() {
	printf '# What the target "%s" needs; from deploy/targets.toml.\n[Service]\n' "$target"
	printf 'SupplementaryGroups=%s\n' "${TARGET_GROUPS//,/ }"
	tr , '\n' <<<"$TARGET_DEVICES" | sed 's/^/DeviceAllow=/'
	[[ -z "$TARGET_SOCKETS" ]] || tr , '\n' <<<"$TARGET_SOCKETS" | sed 's/^/BindPaths=-/'
}

enable_units() {
	local unit
	inside sh -c 'command -v systemctl' >/dev/null || return 0
	for unit in "${enabled[@]}"; do
		inside systemctl --root=/ is-enabled -q "$unit" 2>/dev/null && continue
		changed "$unit is enabled"
		[[ -n "$dry" ]] || inside systemctl --root=/ -q enable "$unit"
	done
	if [[ -z "$root" && -d /run/systemd/system && $changes -gt 0 && -z "$dry" ]]; then
		systemctl daemon-reload
		systemd-tmpfiles --create lineguard.conf
		udevadm control --reload
	fi
}

# -- the program ------------------------------------------------------------------------------------

find_wheel() {
	if [[ -z "$wheel" && -n "$offline" ]]; then
		wheel=$(find "$offline" -maxdepth 1 -name 'lineguard-*.whl' | sort -V | tail -n 1)
	fi
	if [[ -z "$wheel" && -z "$offline" ]]; then
		work=$(mktemp -d)
		trap 'rm -rf "$work"' EXIT
		say "building lineguard from $repository"
		python3 -m venv "$work/venv"
		# Dates of a fixed day make the same source give the same bytes, so the same release.
		SOURCE_DATE_EPOCH=1735689600 "$work/venv/bin/python" -m pip wheel -q --no-deps -w "$work" \
			"$repository" || fail 69 "lineguard cannot be built here; give --wheel"
		wheel=$(find "$work" -maxdepth 1 -name 'lineguard-*.whl')
	fi
	[[ -f "$wheel" ]] || fail 2 "${wheel:-$offline}: no wheel of lineguard here"
}

# A release is named after its content: version, target, lock and the wheel's own bytes.
release_id() {
	[[ -z "$stage" ]] || { printf '%s' "$stage" && return; }
	printf '%s-%s-%s' "$(basename "$wheel" | cut -d- -f2)" "$target" \
		"$(cat "$repository/deploy/locks/$TARGET_LOCK" "$wheel" | sha256sum | cut -c1-12)"
}

install_release() {
	local id at
	id=$(release_id)
	at=/opt/lineguard/releases/$id
	if [[ ! -e "$root$at.complete" ]]; then
		changed "release $id"
		[[ -n "$dry" ]] || build_release "$at"
	fi
	[[ "$(readlink "$root/opt/lineguard/current")" != "releases/$id" ]] || return 0
	changed "in use: $id"
	[[ -z "$dry" ]] || return 0
	[[ ! -L "$root/opt/lineguard/current" ]] ||
		point "$(readlink "$root/opt/lineguard/current")" "$root/opt/lineguard/previous"
	point "releases/$id" "$root/opt/lineguard/current"
	install -d "$root/usr/local/bin"
	point /opt/lineguard/current/bin/lineguard "$root/usr/local/bin/lineguard"
}

# A link is replaced by renaming another over it: there is no moment without one.
point() {
	ln -sfn "$1" "$2.new"
	mv -T "$2.new" "$2"
}

build_release() {
	local at=$1 scratch=/opt/lineguard/.scratch
	rm -rf "${root:-}$at.complete" "${root:-}$at" "${root:-}$scratch"
	install -d "$root$scratch" "$root/opt/lineguard/releases"
	install -m 644 "$wheel" "$repository/deploy/locks/$TARGET_LOCK" "$here/slim.py" "$here/verify.py" \
		"$root$scratch/"
	local source=() site=()
	if [[ -n "$offline" ]]; then
		cp -r "$offline" "$root$scratch/wheelhouse"
		source=(--no-index --find-links "$scratch/wheelhouse")
	fi
	[[ -z "$TARGET_SYSTEM_SITE" ]] || site=(--system-site-packages)
	inside python3 -m venv "${site[@]}" "$at" || fail 70 "no environment can be made at $at"
	say "packages of $TARGET_LOCK, each checked against its hash"
	local pip=(inside "$at/bin/python" -m pip --disable-pip-version-check install --quiet
		--no-compile --no-cache-dir --only-binary :all: "${source[@]}")
	"${pip[@]}" --require-hashes -r "$scratch/$TARGET_LOCK" 2>"$root$scratch/pip.txt" || refused_by_pip
	"${pip[@]}" --no-deps "$scratch/$(basename "$wheel")" ||
		fail 70 "the wheel of lineguard cannot be installed"
	finish_release "$at" "$scratch"
}

refused_by_pip() {
	cat "$root$scratch/pip.txt" >&2
	! grep -q 'DO NOT MATCH THE HASHES' "$root$scratch/pip.txt" || fail 69 \
		"a package is not the one that $TARGET_LOCK names: its hash differs; make the wheelhouse again"
	fail 69 "a package of $TARGET_LOCK cannot be had; is the network or the wheelhouse complete?"
}

# Make it small, prove that it runs, then mark it complete: only a complete release is ever used.
finish_release() {
	local at=$1 scratch=$2 keep=() device
	IFS=, read -ra devices <<<"$TARGET_KEEP"
	for device in "${devices[@]}"; do keep+=(--keep "$device"); done
	inside "$at/bin/python" -B "$scratch/slim.py" "${keep[@]}" >"$root$scratch/slim.txt" ||
		fail 70 "the station does not run as installed: $(grep WRONG "$root$scratch/slim.txt")"
	# pip was needed to get here and never again: a release is replaced, not changed.
	inside "$at/bin/python" -B -m pip uninstall -q -y setuptools pip 2>/dev/null
	inside "$at/bin/python" -B "$scratch/verify.py" ||
		fail 70 "the station does not run as installed; the release before it stays in use"
	# Its folder is read-only to the station, so the bytecode of its own code is made now.
	inside "$at/bin/python" -m compileall -q "$(inside "$at/bin/python" -c \
		'import sysconfig; print(sysconfig.get_path("purelib"))')/pipeline"
	# And that of what each start imports: without, it compiles half of its start again and again.
	inside env -u PYTHONDONTWRITEBYTECODE "$at/bin/python" -c 'import pipeline.cli.main, prometheus_client'
	mv "$root$scratch/slim.txt" "$root$at/removed.txt"
	rm -rf "${root:-}$scratch"
	sync
	# A staged release is marked by the updater, after it has proved itself.
	[[ -n "$stage" ]] || touch "$root$at.complete"
}

# -- away with it -----------------------------------------------------------------------------------

uninstall() {
	local file unit
	if [[ -z "$root" && -d /run/systemd/system ]]; then
		systemctl stop 'lineguard@*' lineguard-orders.service lineguard-update.timer
	fi
	if inside sh -c 'command -v systemctl' >/dev/null; then
		for unit in "${enabled[@]}"; do
			inside systemctl --root=/ -q disable "$unit" 2>/dev/null || true # it may not be there
		done
	fi
	while IFS= read -r file; do rm -f "$root${file#"$here/rootfs"}"; done < <(find "$here/rootfs" -type f)
	rm -rf "$root"/usr/lib/systemd/system/lineguard{,-engine}@.service.d "$root/opt/lineguard" \
		"$root/var/cache/lineguard" "$root/usr/libexec/lineguard" "$root/usr/local/bin/lineguard"
	if [[ -n "$purge" ]]; then
		rm -rf "$root/etc/lineguard" "$root/var/lib/lineguard" "$root/var/lib/lineguard-identity"
		! inside getent passwd lineguard >/dev/null || inside userdel lineguard
		say "removed, with configuration, keys and records"
	else
		say "removed; configuration (/etc/lineguard) and records (/var/lib/lineguard) stay"
	fi
}

root=${root%/}
if [[ "$action" == install ]]; then
	[[ -n "$target" ]] || fail 2 "--target is needed; one of: $(python3 "$here/table.py" targets)"
	described=$(python3 "$here/table.py" targets "$target" 2>&1) || fail 2 "$described"
	eval "$described"
	[[ -z "$offline" || -d "$offline" ]] || fail 2 "$offline: no such wheelhouse"
fi
((EUID == 0)) || fail 77 "it changes the system; run it as root"
[[ -z "$root" || -d "$root/etc" ]] || fail 78 "$root: no root file system here (no etc/)"
if [[ "$action" == uninstall ]]; then
	uninstall
	exit 0
fi
check_system
if [[ -n "$stage" ]]; then
	[[ "$stage" =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || fail 2 "--stage: '$stage' is no name of a release"
	find_wheel
	build_release "/opt/lineguard/releases/$stage"
	exit 0
fi
make_user
make_folders
[[ -z "$units" ]] || put_files
find_wheel
install_release
say "done: $changes changes"
