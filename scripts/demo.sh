#!/usr/bin/env bash
# The main job on a fresh machine: export, validate, bench and infer with the checkpoint in examples/.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh export
exec "${TMDEPLOY_VENV:-.venv}/bin/tmdeploy" demo "$@"
