#!/usr/bin/env bash
# Build the wheel, install it where there is neither torch nor this checkout, and use it as a user would.
set -euo pipefail
cd "$(dirname "$0")/.."
bin="$(realpath "${TMDEPLOY_VENV:-.venv}")/bin"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
scripts/build_wheel.sh "$work/dist"
"$bin/tmdeploy" export examples/digits_tome.pt -o "$work/digits.onnx" --quiet
"$bin/python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$work"/dist/tmdeploy_vit-*.whl
cp examples/digits/3_0.png "$work"
cd "$work"
export XDG_CACHE_HOME="$work/empty"
! venv/bin/python -c "import torch" 2>/dev/null
venv/bin/tmdeploy inspect digits.onnx --json - | grep -q '"lowering": "native'
venv/bin/tmdeploy infer digits.onnx 3_0.png --top-k 1 --json - | grep -q '"name": "3"'
venv/bin/tmdeploy infer digits.onnx 3_0.png --top-k 1 --no-native --json - | grep -q '"name": "3"'
echo "the wheel works without torch, and carries its native library"
