#!/usr/bin/env bash
# Make a virtual environment with tmdeploy in it. Used by demo.sh and test.sh; safe to run again.
#   scripts/setup.sh [EXTRAS]      default: export
# TMDEPLOY_VENV chooses the place (default .venv), PYTHON the interpreter, TMDEPLOY_TORCH the torch requirement.
set -euo pipefail
cd "$(dirname "$0")/.."
extras="${1:-export}"
venv="${TMDEPLOY_VENV:-.venv}"
# Pinned: a looser requirement can pull gigabytes of CUDA packages that the CPU default does not need.
torch="${TMDEPLOY_TORCH:-torch==2.13.0}"
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$torch"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
# The native kernels are several times faster than function bodies, but need CMake, a C++ compiler and headers.
if [ "${TMDEPLOY_NATIVE:-1}" != 0 ] && ! "$venv/bin/tmdeploy" plugins build --fetch-headers; then
    echo "setup: no native library (see above); the function bodies inside the files will run" >&2
fi
