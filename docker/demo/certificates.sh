#!/usr/bin/env bash
# Makes a certificate authority for trying things out, and certificates for the demo's broker, its
# station and a viewer. Nothing of it belongs in a plant or in a repository.
#
#   certificates.sh FOLDER
set -euo pipefail
umask 077

folder=${1:?usage: certificates.sh FOLDER}
mkdir -p "$folder"
cd "$folder"
[[ ! -e ca.key ]] || {
	printf 'certificates: %s has an authority already; remove the folder to make another\n' "$folder" >&2
	exit 1
}

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" 2>/dev/null; }
sign() {
	key "$1"
	openssl req -new -key "$1.key" -subj "/CN=$1" |
		openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile <(printf '%s' "$2") \
			-out "$1.crt" 2>/dev/null
}

key ca
openssl req -x509 -new -key ca.key -subj "/CN=lineguard demo authority" -days 30 -out ca.crt \
	-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
sign broker "subjectAltName=DNS:broker,DNS:localhost,IP:127.0.0.1"
sign demo "extendedKeyUsage=clientAuth"
sign viewer "extendedKeyUsage=clientAuth"
# The containers run as this user.
if ((EUID == 0)); then chown 10001:10001 ./*.key && chown 10001:10001 .; fi
chmod 0644 ./*.crt
openssl rand -base64 24 >grafana-password
chmod 0644 grafana-password # Grafana reads it as a user of its own; the folder is closed
printf 'certificates: %s, valid for 30 days\n' "$folder"
