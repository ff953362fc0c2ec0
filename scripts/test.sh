#!/usr/bin/env bash
# Everything that has to pass, on a fresh machine: lint, types, documentation site, tests.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh export,dev,rtx,docs
bin="${TMDEPLOY_VENV:-.venv}/bin"
# The oracle for our own ViT. Without its dependencies: torchvision would replace torch by a CUDA build.
"$bin/python" -m pip install --quiet --disable-pip-version-check --no-deps torchvision==0.28.0 timm==1.0.31
"$bin/python" -m pip install --quiet --disable-pip-version-check huggingface_hub pyyaml
# TensorRT's headers, for the plugin's tests.
"$bin/python" -c "from tmdeploy.native import tensorrt_headers as h; h.find_tensorrt_headers() or h.download_tensorrt_headers()"
# NVIDIA's own plugin registry, without a GPU: the TensorRT plugin is loaded into it.
"$bin/python" -m pip install --quiet --disable-pip-version-check --no-deps tensorrt-lean-cu13-libs==11.4.0.106
TMDEPLOY_LEAN_RUNTIME="$(realpath "$bin"/../lib/python3*/site-packages/tensorrt_lean_libs/libnvinfer_lean.so.11)"
export TMDEPLOY_LEAN_RUNTIME
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
scripts/docs.sh "$(mktemp -d)"
# The container images have a script of their own, scripts/test_docker.sh.
# One thread a worker: torch and ONNX Runtime would each take all cores otherwise.
OMP_NUM_THREADS=1 exec "$bin/python" -m pytest -n "${TMDEPLOY_TEST_WORKERS:-2}" --ignore=tests/docker "$@"
