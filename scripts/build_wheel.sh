#!/usr/bin/env bash
# A wheel with the native library for ONNX Runtime inside and, where nvcc is, the PTX of the TensorRT plugins.
#   scripts/build_wheel.sh [FOLDER]      default: dist
# `pip wheel .` does the same without the PTX, and takes a wheel without the library where that cannot be built.
# Works on a copy of the tracked files, so that nothing else that lies in the checkout gets into the wheel.
set -euo pipefail
cd "$(dirname "$0")/.."
output="$(realpath -m "${1:-dist}")"
bin="$(realpath "${TMDEPLOY_VENV:-.venv}")/bin"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --no-dereference -t "$work"
if command -v nvcc >/dev/null; then
    "$bin/python" scripts/build_ptx.py --output "$work/tmdeploy/tensorrt/plugin/ptx"
else
    echo "build_wheel: no nvcc, so the wheel has no ahead-of-time TensorRT plugins" >&2
fi
TMDEPLOY_NATIVE=1 "$bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$output" "$work"
ls "$output"/tmdeploy_vit-*.whl
