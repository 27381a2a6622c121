#!/usr/bin/env bash
# Checks of everything under deploy/ and docker/ that need neither root nor a network. A tool that is
# not here is named, and with CI=true that is a failure: a check that was skipped has checked nothing.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit

failed=0
check() {
	local tool=$1
	shift
	if ! command -v "$tool" >/dev/null; then
		printf 'SKIPPED %s: %s is not installed (pip install lineguard[deploy])\n' "$*" "$tool"
		[[ -z "${CI:-}" ]] || failed=1
		return
	fi
	if "$tool" "$@"; then printf 'well    %s %s\n' "$tool" "${*: -1}"; else
		printf 'WRONG   %s %s\n' "$tool" "$*"
		failed=1
	fi
}

mapfile -t scripts < <(grep -rlE '^#!/usr/bin/env bash' deploy docker)
check shellcheck "${scripts[@]}"
check shfmt -d "${scripts[@]}"
check hadolint docker/Dockerfile docker/Dockerfile.jetson
check check-jsonschema --quiet --builtin-schema vendor.compose-spec docker/compose*.yaml
for target in cpu openvino gpu jetson; do
	LINEGUARD_CONFIG=./demo RENDER_GID=1 LINEGUARD_JETPACK=jetson-jp72 check docker-compose \
		-f docker/compose.yaml -f "docker/compose.$target.yaml" config --quiet
done
LINEGUARD_CONFIG=./demo check docker-compose -f docker/compose.yaml -f docker/compose.cpu.yaml \
	-f docker/compose.demo.yaml config --quiet
for file in deploy/fleet/k8s/base/[!k]*.yaml; do check kubernetes-validate --quiet --strict "$file"; done
check hcl2tojson --quiet --output /dev/null docker/docker-bake.hcl
for target in $(python3 deploy/station/table.py targets); do
	check deploy/locks/sbom.sh "$target" /dev/null
done
if command -v docker-buildx >/dev/null; then # not on PyPI: from the distribution, or with Docker
	docker-buildx bake -f docker/docker-bake.hcl --print cpu openvino gpu jetson-jp72 jetson-jp62 >/dev/null &&
		printf 'well    docker-buildx bake --print\n' || failed=1
else
	printf 'SKIPPED docker-buildx bake --print: not installed; it was parsed above, and tests/deploy/test_targets.py reads it\n'
fi
exit "$failed"
