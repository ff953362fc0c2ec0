#!/usr/bin/env bash
# Writes docker/requirements/*.txt: every dependency of the images, pinned with hashes, for Python 3.11 and later.
#   docker/lock.sh            keeps the pins that still fit;  docker/lock.sh --upgrade  takes the newest
# Needs uv (pip install uv). The package index is whatever uv is configured with; it is not written to the files.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() {
  local lock="docker/requirements/$1.txt"
  shift
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-config \
    --custom-compile-command "docker/lock.sh" --output-file "$lock" "$@"
}
compile cpu pyproject.toml "$@"
compile gpu pyproject.toml docker/requirements/gpu.in --constraint docker/requirements/cpu.txt "$@"
compile export pyproject.toml --extra export docker/requirements/export.in docker/requirements/gpu.in \
  --constraint docker/requirements/gpu.txt "$@"
compile build docker/requirements/build.in "$@"
