#!/usr/bin/env bash
# Everything that has to pass, on a fresh machine: lint, types, tests.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh export,dev
bin="${TMDEPLOY_VENV:-.venv}/bin"
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
# One thread a worker: torch and ONNX Runtime would each take all cores otherwise.
OMP_NUM_THREADS=1 exec "$bin/python" -m pytest -n "${TMDEPLOY_TEST_WORKERS:-2}" "$@"
