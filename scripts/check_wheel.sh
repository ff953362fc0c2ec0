#!/usr/bin/env bash
# Build wheels and a source distribution, and use them as a user would, where there is neither torch nor this checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
bin="$(realpath "${TMDEPLOY_VENV:-.venv}")/bin"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
pip=(-m pip --disable-pip-version-check --quiet)
unset TMDEPLOY_NATIVE TMDEPLOY_ORT_LIBRARY TMDEPLOY_CACHE

# With a compiler: for this platform, any Python 3, and native code runs.
scripts/build_wheel.sh "$work/dist"
"$bin/tmdeploy" export examples/digits_tome.pt -o "$work/digits.onnx" --quiet
"$bin/python" -m venv "$work/venv"
"$work/venv/bin/python" "${pip[@]}" install "$work"/dist/tmdeploy_vit-*-py3-none-linux_*.whl
cp examples/digits/3_0.png "$work"
mkdir "$work/tree"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --no-dereference -t "$work/tree"
cd "$work"
export XDG_CACHE_HOME="$work/empty"
runs_as() { venv/bin/tmdeploy inspect digits.onnx --json - 2>/dev/null | grep -q "\"lowering\": \"$1"; }
is_three() { venv/bin/tmdeploy infer digits.onnx 3_0.png --top-k 1 --json - "$@" | grep -q '"name": "3"'; }
! venv/bin/python -c "import torch" 2>/dev/null
runs_as 'native code'
is_three
is_three --no-native
venv/bin/tmdeploy doctor --json - | grep -q 'native/lib/libtmdeploy_ort.so, kernels for CPU'
# The remedy for a missing extra finds what is installed, and asks no index for a project of that name.
remedy="$(cd "$work"; ! venv/bin/tmdeploy bench digits.onnx --backend openvino 2>&1 >/dev/null)"
grep -q "pip install 'tmdeploy-vit\[openvino\]'" <<<"$remedy"
! venv/bin/python "${pip[@]}" install --dry-run --no-index 'tmdeploy-vit[openvino]' 2>refused
grep -q 'No matching distribution found for openvino' refused

# A source distribution has the kernels' sources. Without a compiler it still installs, and says what is not there.
venv/bin/python "${pip[@]}" install 'setuptools>=77'
(cd tree && mkdir -p tmdeploy/native/lib && echo stale >tmdeploy/native/lib/libtmdeploy_ort.so &&
    ../venv/bin/python -P -c "import sys; sys.path.insert(0, '.'); import setup; setup.build_sdist('../sdist')" >/dev/null)
tar tzf sdist/tmdeploy_vit-*.tar.gz >listed
grep -q '/plugins/CMakeLists.txt$' listed
! grep -q '\.so$' listed
CXX=/nonexistent "$bin/python" -m pip wheel --disable-pip-version-check --no-deps -v -w pure sdist/tmdeploy_vit-*.tar.gz >log 2>&1
[ "$(grep -c 'no native library in this wheel' log)" = 1 ]
grep -q 'function bodies will run: CXX names /nonexistent, which is no program' log
venv/bin/python "${pip[@]}" install --no-deps --force-reinstall pure/tmdeploy_vit-*-py3-none-any.whl
is_three
runs_as 'function bodies'
venv/bin/tmdeploy doctor --json - | grep -q 'the wheel was built without one: CXX names /nonexistent'
echo "wheels work without torch: one carries its native library, one says why it has none"
