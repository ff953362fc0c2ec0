#!/usr/bin/env bash
# A wheel with the native library for ONNX Runtime inside and, where nvcc is, the PTX of the TensorRT plugins.
#   scripts/build_wheel.sh [FOLDER]      default: dist
# Works on a copy of the tracked files, so that the checkout keeps running what it ran before.
set -euo pipefail
cd "$(dirname "$0")/.."
output="$(realpath -m "${1:-dist}")"
bin="$(realpath "${TMDEPLOY_VENV:-.venv}")/bin"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --no-dereference -t "$work"
"$bin/tmdeploy" plugins build --fetch-headers --output "$work/tmdeploy/native/lib"
if command -v nvcc >/dev/null; then
    "$bin/python" scripts/build_ptx.py --output "$work/tmdeploy/tensorrt_plugin/ptx"
else
    echo "build_wheel: no nvcc, so the wheel has no ahead-of-time TensorRT plugins" >&2
fi
"$bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$output" "$work"
ls "$output"/tmdeploy_vit-*.whl
