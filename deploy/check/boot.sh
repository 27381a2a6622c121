#!/usr/bin/env bash
# Boots a station's disk image in QEMU as a PC would, and does to it what happens in a plant: first
# boot, a certificate from the plant's CA, a model as a signed update, a hang, a bad update, the power
# cut in the middle of an update, a restart. A broker on this side hears the verdicts over TLS.
#
#   boot.sh [--container] [--tree DIR] [--offline WHEELHOUSE]      the last two of build-image.sh
#
# --container starts the image's systemd in a container instead: minutes, where emulation takes an hour.
#
# Needs root, qemu-system-x86 and ovmf (or systemd-container), mosquitto, openssl, and what
# deploy/station/build-image.sh needs;
# PYTHON is the one on this side that has lineguard's test extras (default: .venv/bin/python). It
# emulates the processor, which every machine can, and one look of the shipped model takes an emulated
# one half a minute: so the machine gets a small model and the repository's clip made small (small.py).
# Times are those of the emulated machine. QEMU_OPTIONS go to QEMU as they are; KEEP=1 leaves the work.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
tree="" offline="" kind=qemu
while (($#)); do
	case "$1" in
	--container) kind=container ;;
	--tree | --offline) declare "${1#--}=${2:?$1 needs a value}" && shift ;;
	*) printf 'boot: unknown option %s\n' "$1" >&2 && exit 2 ;;
	esac
	shift
done
work=$(mktemp -d)
disk=$work/station.img
python=${PYTHON:-$repository/.venv/bin/python}
export PYTHONPATH=$repository
lineguard() { "$python" -m pipeline "$@"; }
topic=lineguard/v1/lineguard/demo/hall-1/line-1/demo

step() { printf '\n== %s\n' "$*"; }
figure() { printf '   %s\n' "$*"; }
wrong() {
	printf 'WRONG: %s\n' "$*" >&2
	tail -n 5 "$work/console.log" >&2 || true
	exit 1
}
clean() {
	local one
	for one in ${broker:-} ${listener:-}; do pkill --parent "$one" || true; done # a shell around each
	clean_machine
	[[ -n "${KEEP:-}" ]] || rm -rf --one-file-system "$work"
}
# Ask again and again, with a deadline that only a real fault reaches: emulation is slow.
within() {
	local until=$((SECONDS + $1)) what=$2
	shift 2
	while ! "$@" >"$work/answer.txt" 2>&1; do
		((SECONDS < until)) || wrong "$what: $(tail -n 3 "$work/answer.txt")"
		sleep 2
	done
}
send() { tar -C "$1" -cf - . | guest "mkdir -p $2 && tar -C $2 --no-same-owner -mxf -"; }
passed() { printf '%s s' $(($(clock) - since)); }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Brings name, broker_address, and: plant, prepare, guest, switch_on, cut_power, switched_off, clock,
# clean_machine.
name="" broker_address=""
# shellcheck source=/dev/null
source "$here/machine-$kind.sh"
trap clean EXIT

# -- the plant's side -------------------------------------------------------------------------------

make_plant() {
	step "a plant: authority, broker with TLS, keys of who signs"
	broker_port=$(free_port)
	"$repository/docker/demo/certificates.sh" "$work/pki" >/dev/null
	chmod -R a+rX "$work" "$work/pki"
	sed "s#/mosquitto/pki#$work/pki#; s#/mosquitto/config#$work#; s#^listener .*#listener $broker_port 127.0.0.1#" \
		"$repository/docker/demo/mosquitto.conf" >"$work/mosquitto.conf"
	printf 'user root\n' >>"$work/mosquitto.conf"
	printf 'user %s\ntopic write %s/#\ntopic read %s/update/order/#\n' "$name" "$topic" "$topic" >"$work/acl"
	printf 'user viewer\ntopic read lineguard/#\ntopic write %s/update/order/#\n' "$topic" >>"$work/acl"
	chmod 0600 "$work/acl"
	plant mosquitto -c "$work/mosquitto.conf" 2>"$work/broker.log" &
	broker=$!
	ssh-keygen -q -t ed25519 -N '' -f "$work/admin"
	lineguard models keygen "$work/plant.key" >/dev/null
}

# A program of the plant, on the line that the station is on.
at_broker() {
	plant "$1" -h localhost -p "$broker_port" --cafile "$work/pki/ca.crt" --cert "$work/pki/viewer.crt" \
		--key "$work/pki/viewer.key" -V 5 -q 1 "${@:2}"
}

listen() {
	at_broker mosquitto_sub -t "$topic/inspection" >>"$work/heard.jsonl" &
	listener=$!
}

make_config() {
	mkdir "$work/config"
	cp "$work/admin.pub" "$work/config/authorized_keys"
	cp "$work/plant.key.pub" "$work/config/updates.pub"
	cp "$work/pki/ca.crt" "$work/config/ca.crt"
	cat >"$work/config/update.env" <<-'EOF'
		SOURCE=/srv/updates
		TARGET=cpu
		KEYS=--key /etc/lineguard/pki/updates.pub
		PORTS=--health-port 9464 --steady-s 5 --probation-s 1800
	EOF
	cat >"$work/config/orders.env" <<-EOF
		TOPIC=$topic/update
		BROKER=--broker broker:$broker_port --ca /etc/lineguard/pki/ca.crt --cert /etc/lineguard/pki/station.crt --cert-key /etc/lineguard/pki/station.key
	EOF
	cat >"$work/config/line-1.yaml" <<-EOF
		station: {enterprise: lineguard, site: demo, area: hall-1, line: line-1, name: demo}
		camera: {kind: video, path: /var/lib/lineguard/small.avi, loop: true, realtime: true, fps: 4}
		trigger: {kind: presence}
		model:
		  bundle: /var/lib/lineguard/models/current
		  runtime: {kind: onnx}
		  trust: {keys: [pki/updates.pub]}
		  trial: {seconds: 1800}
		parts: {views: 2}
		recipe: {name: bare-board}
		store: {path: /var/lib/lineguard/line-1}
		health: {port: 9464, frozen_ms: 60000}
		outputs: [{kind: recording}]
		publishers:
		  - kind: mqtt
		    host: broker
		    port: $broker_port
		    confirm_s: 30
		    tls: {ca_file: pki/ca.crt, cert_file: pki/station.crt, key_file: pki/station.key}
	EOF
}

# An update on a stick: folder, sequence, and whether the bundle in it is signed.
make_stick() {
	mkdir -p "$1"
	cp -r "$work/small/bundle" "$1/payload"
	printf '%s\n' "$2" >"$1/payload/README.md" # so that each is another release
	[[ "$3" != signed ]] || lineguard models sign "$1/payload" --key "$work/plant.key" >/dev/null
	lineguard update make "$1" --key "$work/plant.key" --version "$2.0" --sequence "$2" >/dev/null
}

# What the station sees, the model it judges with, and what it must decide: found on this side.
make_model() {
	step "a small clip and a small model"
	mkdir "$work/small"
	"$python" "$repository/deploy/check/small.py" "$repository/tests/replay/drawn.mp4" "$work/small"
	lineguard models golden "$work/small/bundle" "$work/small/picture.png"
	cat >"$work/small/replay.yaml" <<-'EOF'
		station: {name: demo}
		camera: {kind: video, path: small.avi}
		trigger: {kind: presence}
		model: {bundle: bundle, runtime: {kind: onnx}, trial: {seconds: 1800}}
		parts: {views: 2}
		recipe: {name: bare-board}
		store: {path: store}
		outputs: [{kind: recording}]
	EOF
	lineguard replay "$work/small/small.avi" --config "$work/small/replay.yaml" \
		--update-golden "$work/small/golden.jsonl" | grep frames:
	[[ $(wc -l <"$work/small/golden.jsonl") == 4 ]] || wrong "the clip shows four boards"
}

# -- the machine ------------------------------------------------------------------------------------

# Asked with the shell: the program takes an emulated processor a quarter of a minute to begin.
ready() { guest "exec 3<>/dev/tcp/127.0.0.1/9464 && printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3 && grep -m 1 ' 200 ' <&3"; }
station() { guest systemctl show -P "$1" lineguard@line-1; }
restarted() { (($(station NRestarts) >= 1)); }
# Read with its chain of hashes checked from the first record to the last.
records() {
	guest "cd / && /opt/lineguard/current/bin/python -B -c '
from pathlib import Path
from pipeline.store import read_records
for record in read_records(Path(\"/var/lib/lineguard/line-1\")):
    print(record.id)'"
}
apply() {
	guest lineguard update apply "$1" --target cpu --key /etc/lineguard/pki/updates.pub --health-port 9464 \
		--trial-s 1800 --steady-s 5 --probation-s "$2" --restart "'systemctl restart lineguard@line-1'"
}
slot() { guest basename "\$(readlink /var/lib/lineguard/models/$1)"; }
in_phase() { guest "grep -q '\"phase\": \"$1\"' /var/lib/lineguard/models/update.state"; }
heard() { (($(wc -l <"$work/heard.jsonl") > $1)); }

# -- what happens to it -----------------------------------------------------------------------------

first_boot() {
	step "first boot"
	switch_on
	within 1800 "no identity" guest test -e /var/lib/lineguard-identity/done
	[[ $(guest hostname) == "$name" ]] || wrong "its name is $(guest hostname)"
	[[ $(guest stat -c %a%U%G /etc/lineguard/pki/station.key) == 640rootlineguard ]] || wrong "modes of its key"
	guest "grep -qx '[0-9a-f]\{32\}' /etc/machine-id" || wrong "no machine id"
	guest "test \"\$(ls /etc/ssh/ssh_host_*_key)\" = /etc/ssh/ssh_host_ed25519_key" || wrong "its host keys"
	figure "it is called $name; made its host key and a station key that nobody else has"
	within 1800 "a station without a certificate should say so and stop" guest \
		"systemctl show -P ExecMainStatus lineguard@line-1 | grep -qx 78"
	figure "without a certificate: $(guest journalctl -u lineguard@line-1 -o cat | grep -m 1 'lineguard: ')"
}

enrol() {
	step "the plant signs its certificate and gives it a model"
	guest cat /etc/lineguard/pki/station.csr >"$work/station.csr"
	openssl x509 -req -in "$work/station.csr" -CA "$work/pki/ca.crt" -CAkey "$work/pki/ca.key" -CAcreateserial \
		-days 2 -extfile <(printf 'extendedKeyUsage=clientAuth') -out "$work/station.crt" 2>/dev/null
	guest "cat >/etc/lineguard/pki/station.crt" <"$work/station.crt"
	guest "echo '$broker_address broker' >>/etc/hosts" # the plant's name service
	guest "cat >/var/lib/lineguard/small.avi" <"$work/small/small.avi"
	make_stick "$work/first" 1 signed
	send "$work/first" /root/first
	listen
	since=$(clock)
	apply /root/first 1800 || wrong "the first model is not taken"
	ready || wrong "it is not ready"
	guest lineguard health --timeout-s 60 || wrong "its own health check says otherwise"
	figure "READY with a signed model, $(passed) after the order (the model proved itself twice)"
	first=$(slot current)
}

verdicts() {
	step "verdicts"
	within 2400 "no verdict at the broker" heard 3
	figure "$(wc -l <"$work/heard.jsonl") verdicts came to the broker over TLS"
}

answered() { at_broker mosquitto_sub -t "$topic/update/answer/model" -C 1 -W 5 | grep '"ok": true'; }
by_message() {
	step "an update is ordered by message"
	make_stick "$work/third" 4 signed
	send "$work/third" /srv/updates/model
	since=$(clock)
	lineguard update order "$work/third" |
		at_broker mosquitto_pub -s -r -t "$topic/update/order/model"
	within 2400 "the order has no answer" answered
	[[ $(slot current) == 4.0-* ]] || wrong "at work: $(slot current)"
	figure "$(slot current) is at work $(passed) after the message"
}

replay() {
	step "the clip again, against this side's verdicts"
	guest systemctl stop lineguard@line-1
	send "$work/small" /tmp/replay
	guest chmod -R a+rX /tmp/replay
	since=$(clock)
	guest "cd /tmp && runuser -u lineguard -- env HOME=/nonexistent lineguard replay /tmp/replay/small.avi \
		--config /tmp/replay/replay.yaml --against /tmp/replay/golden.jsonl" >"$work/replay.txt" ||
		wrong "the replay differs: $(tail -n 5 "$work/replay.txt")"
	figure "$(grep frames: "$work/replay.txt"), verdicts as on this side, $(passed)"
}

hang() {
	step "it hangs"
	since=$(clock)
	guest systemctl kill --kill-whom=main -s STOP lineguard@line-1
	within 1200 "nobody noticed" restarted
	figure "systemd killed it after $(passed) ($(guest journalctl -u lineguard@line-1 -o cat | grep -m 1 -i 'watchdog timeout'))"
	within 2400 "it does not come back" ready
	figure "READY again after $(passed)"
}

bad_update() {
	step "an update with a model that nobody signed"
	make_stick "$work/bad" 2 unsigned
	send "$work/bad" /root/bad
	since=$(clock)
	! apply /root/bad 1800 >"$work/bad.txt" 2>&1 || wrong "it stays at work"
	[[ $(slot current) == "$first" ]] || wrong "at work: $(slot current)"
	within 2400 "it does not come back" ready
	figure "went back after $(passed): $(tail -n 1 "$work/bad.txt" | cut -c1-150)"
}

power_cut() {
	step "the power is cut in the probation of an update"
	make_stick "$work/second" 3 signed
	send "$work/second" /root/second
	guest sync
	records >"$work/before.txt"
	apply /root/second 1800 >"$work/second.txt" 2>&1 &
	local ordered=$!
	within 2400 "no probation" in_phase probation
	cut_power
	wait $ordered || true
	switch_on
	within 2400 "the update is not ended" in_phase idle
	guest "test -e /var/lib/lineguard/models/releases/$(slot current).complete" || wrong "half a release"
	within 2400 "it does not come back" ready
	records >"$work/after.txt"
	[[ -z $(comm -23 <(sort "$work/before.txt") <(sort "$work/after.txt")) ]] || wrong "records are lost"
	figure "$(wc -l <"$work/before.txt") records before are all there; $(slot current) is at work, before it $(slot previous)"
}

restart() {
	step "restart"
	guest systemctl stop lineguard@line-1
	records | sort >"$work/before.txt"
	guest systemctl poweroff || true
	switched_off
	switch_on
	within 2400 "it is not ready" ready
	records | sort >"$work/after.txt"
	[[ -z $(comm -23 "$work/before.txt" "$work/after.txt") ]] || wrong "records are lost"
	python3 -c 'import json, sys; print("\n".join(json.loads(l)["id"] for l in sys.stdin))' <"$work/heard.jsonl" |
		sort -u >"$work/told.txt"
	[[ -z $(comm -23 "$work/told.txt" "$work/after.txt") ]] || wrong "the broker heard what no record says"
	figure "$(wc -l <"$work/before.txt") records are all there, their chain whole; all $(wc -l <"$work/told.txt") that the broker heard are among them"
}

make_plant
make_config
make_model
step "the image"
"$repository/deploy/station/build-image.sh" --target cpu --out "$disk" --config "$work/config" --size 4 \
	--kernel linux-image-cloud-amd64 ${tree:+--tree "$tree"} ${offline:+--offline "$offline"} | tail -n 1
prepare
first_boot
enrol
verdicts
hang
bad_update
power_cut
restart
by_message
replay
guest systemctl poweroff || true
switched_off
step "the image does what it says, $SECONDS s in all"
