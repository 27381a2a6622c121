#!/usr/bin/env bash
# Builds a container image without a container engine's daemon and runs it hardened: read-only, no
# capabilities, no new privileges, no network, user 10001. In it: the self-check, the repository's
# clip against its golden records, and a health check that turns red when the station hangs.
#
#   images.sh [--stand-in] TARGET BASE    e.g. images.sh cpu docker.io/library/debian:bookworm-slim
#
# Needs root, buildah, podman and BASE in their storage (base.sh makes one); CA_BUNDLE names a
# certificate bundle to see the network with, where a plant has its own. --stand-in takes a BASE of
# another architecture than the target's, and builds a copy of the repository whose targets.toml
# allows that: it shows that recipe and lock fit together, not that the image runs on its machine.
set -euo pipefail

stand_in=""
[[ "${1:-}" != --stand-in ]] || { stand_in=yes && shift; }
usage="usage: images.sh [--stand-in] TARGET BASE"
target=${1:?$usage} base=${2:?$usage}
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
image=localhost/lineguard-check:$target
described=$(python3 "$repository/deploy/station/table.py" targets "$target") || exit 2
eval "$described"
work=$(mktemp -d)
name=lineguard-check-$$
wrong() {
	printf 'WRONG: %s\n' "$*" >&2
	exit 1
}
step() { printf '\n== %s\n' "$*"; }
clean() {
	podman rm -f -t 0 "$name" >/dev/null 2>&1 || true
	rm -rf "$work"
}
trap clean EXIT

# Control groups are the host's business: what is checked here is the image.
hardened=(--cgroups=disabled --no-healthcheck --read-only --cap-drop=all --network=none
	--security-opt=no-new-privileges --ulimit nofile=1024:1024 --ulimit nproc=4096:4096
	--tmpfs /tmp:size=64m --tmpfs /run/lineguard:mode=0777
	--volume "$repository/tests/replay:/replay:ro" --volume "$work/config:/etc/lineguard:ro"
	--tmpfs /var/lib/lineguard:mode=0777)

# The folder that is built: the repository, or a copy of it for a stand-in.
context_for() {
	local arch context=$work/repository
	arch=$(podman image inspect --format '{{.Architecture}}' "$base") || wrong "there is no image $base"
	[[ ",$TARGET_ARCH," != *",$arch,"* ]] || { printf '%s' "$repository" && return; }
	[[ -n "$stand_in" ]] || wrong "$base is for $arch, '$target' for $TARGET_ARCH; see --stand-in"
	mkdir "$context"
	cp -r "$repository"/{.dockerignore,pyproject.toml,README.md,LICENSE,LICENSING.md} \
		"$repository"/{pipeline,configs,models,deploy,docker} "$context/"
	sed -i "/^\[$target\]/,/^\[/ s/^arch = .*/arch = [\"$arch\"]/" "$context/deploy/targets.toml"
	printf '%s' "$context"
}

context=$(context_for)
step "build $target on $base${stand_in:+, which stands in for $TARGET_BASE_IMAGE}"
dockerfile=docker/Dockerfile
[[ "$target" != jetson-* ]] || dockerfile=docker/Dockerfile.jetson
buildah bud --isolation chroot --pull-never --layers --format docker --quiet \
	--build-arg BASE_IMAGE="$base" --build-arg TARGET="$target" --build-arg JETPACK="${target#jetson-jp}" \
	${CA_BUNDLE:+--volume "$CA_BUNDLE:/etc/ssl/certs/ca-certificates.crt:ro"} \
	--file "$context/$dockerfile" --target "${target%%-*}" --tag "$image" "$context"
podman image inspect --format '{{.Size}}' "$image" | awk '{printf "%.0f MB\n", $1 / 1e6}'

step "what the image says of itself"
[[ $(podman image inspect --format '{{.Config.User}}' "$image") == 10001:10001 ]] || wrong "its user"
podman image inspect --format '{{json .HealthCheck}}' "$image" | grep lineguard || wrong "no health check"

step "self-check, hardened"
mkdir "$work/config"
podman run --rm "${hardened[@]}" --entrypoint /opt/lineguard/current/bin/python "$image" \
	-B /usr/libexec/lineguard/verify.py --image

if [[ "$TARGET_DEVICE" == cuda && ! -e /dev/nvidiactl ]]; then
	step "self-check of the GPU, where there is none: red"
	! podman run --rm "${hardened[@]}" --entrypoint /opt/lineguard/current/bin/python "$image" \
		-B /usr/libexec/lineguard/verify.py --image --device cuda >"$work/gpu.txt" 2>&1 ||
		wrong "it says that a GPU is at work"
	grep "WRONG .*the device 'cuda' cannot be used here" "$work/gpu.txt" || wrong "$(cat "$work/gpu.txt")"
fi

step "replay, hardened, without a network"
sed "s#\.\./models#/opt/lineguard/current/share/lineguard/models#; s#{kind: onnx}#{kind: $TARGET_RUNTIME}#" \
	"$repository/configs/demo.yaml" >"$work/config/demo.yaml"
chmod -R a+rX "$work"
podman run --rm "${hardened[@]}" "$image" replay /replay/drawn.mp4 \
	--config /etc/lineguard/demo.yaml --against /replay/drawn.golden.jsonl \
	--store /var/lib/lineguard/replay | # /tmp is too small for its reserve
	tail -n 4

step "health: green while it runs, red when it hangs"
sed "/^publishers:/,\$d; s#{kind: onnx}#{kind: $TARGET_RUNTIME}#" "$repository/docker/demo/station.yaml" >"$work/config/station.yaml"
chmod -R a+rX "$work"
podman run --detach --name "$name" "${hardened[@]}" "$image" >/dev/null
healthy() { podman exec "$name" lineguard health; }
within() {
	local until=$((SECONDS + $1))
	shift
	while ! "$@" >"$work/health.txt" 2>&1; do
		((SECONDS < until)) || return 1
		sleep 1
	done
}
unhealthy() { ! healthy; }
within 60 healthy || { podman logs "$name" && wrong "it never became healthy: $(cat "$work/health.txt")"; }
printf 'green\n'
station=$(pgrep -P "$(podman inspect --format '{{.State.Pid}}' "$name")")
kill -STOP "$station"
within 60 unhealthy || wrong "it hangs, and the health check stays green"
printf 'red: %s\n' "$(cat "$work/health.txt")"
kill -CONT "$station"
within 60 healthy || wrong "it works again, and the health check stays red"
printf 'green again\n'
step "the image does what it says"
