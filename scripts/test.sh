#!/usr/bin/env bash
# Everything that has to pass, on a fresh machine: lint, types, tests.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh export,dev,rtx
bin="${TMDEPLOY_VENV:-.venv}/bin"
# The oracle for our own ViT. Without its dependencies: torchvision would replace torch by a CUDA build.
"$bin/python" -m pip install --quiet --disable-pip-version-check --no-deps torchvision==0.28.0 timm==1.0.31
"$bin/python" -m pip install --quiet --disable-pip-version-check huggingface_hub pyyaml
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
# One thread a worker: torch and ONNX Runtime would each take all cores otherwise.
OMP_NUM_THREADS=1 exec "$bin/python" -m pytest -n "${TMDEPLOY_TEST_WORKERS:-2}" "$@"
