# docker buildx bake -f docker/docker-bake.hcl [TARGET...]; the targets are those of deploy/targets.toml.

variable "REGISTRY" {
  default = "lineguard"
}

variable "VERSION" {
  default = "dev"
}

variable "REVISION" {
  default = ""
}

group "default" {
  targets = ["cpu", "openvino"]
}

target "_common" {
  context = "."
  attest = [
    "type=sbom",
    "type=provenance,mode=max",
  ]
  labels = {
    "org.opencontainers.image.title"    = "lineguard"
    "org.opencontainers.image.licenses" = "AGPL-3.0-or-later"
    "org.opencontainers.image.version"  = VERSION
    "org.opencontainers.image.revision" = REVISION
  }
}

target "cpu" {
  inherits   = ["_common"]
  dockerfile = "docker/Dockerfile"
  target     = "cpu"
  args       = { TARGET = "cpu", BASE_IMAGE = "debian:bookworm-slim" }
  platforms  = ["linux/amd64", "linux/arm64"]
  tags       = ["${REGISTRY}/station:${VERSION}-cpu"]
}

target "openvino" {
  inherits   = ["_common"]
  dockerfile = "docker/Dockerfile"
  target     = "openvino"
  args       = { TARGET = "openvino", BASE_IMAGE = "debian:bookworm-slim" }
  platforms  = ["linux/amd64"]
  tags       = ["${REGISTRY}/station:${VERSION}-openvino"]
}

target "gpu" {
  inherits   = ["_common"]
  dockerfile = "docker/Dockerfile"
  target     = "gpu"
  args       = { TARGET = "gpu", BASE_IMAGE = "debian:bookworm-slim" }
  platforms  = ["linux/amd64"]
  tags       = ["${REGISTRY}/station:${VERSION}-gpu"]
}

target "jetson-jp72" {
  inherits   = ["_common"]
  dockerfile = "docker/Dockerfile.jetson"
  target     = "jetson"
  args       = { JETPACK = "72", BASE_IMAGE = "ubuntu:24.04" }
  platforms  = ["linux/arm64"]
  tags       = ["${REGISTRY}/station:${VERSION}-jetson-jp72"]
}

target "jetson-jp62" {
  inherits   = ["_common"]
  dockerfile = "docker/Dockerfile.jetson"
  target     = "jetson"
  args       = { JETPACK = "62", BASE_IMAGE = "ubuntu:22.04" }
  platforms  = ["linux/arm64"]
  tags       = ["${REGISTRY}/station:${VERSION}-jetson-jp62"]
}
