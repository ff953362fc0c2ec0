#!/bin/sh
# usage: docker/finish-venv.sh VENV NATIVE      run in a builder stage
# Makes an environment ready to be copied into a final stage: native libraries in, tests out, bytecode compiled.
set -eu
venv=$1 native=$2
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
if [ -n "$(ls "$native")" ]; then
  mkdir -p "$site/tmdeploy/native/lib"
  cp -P "$native"/* "$site/tmdeploy/native/lib/"
  rm -f "$site/tmdeploy/native/no_library.txt"
fi
# The packages' own tests, about 50 MB that nothing imports.
find "$site" -type d \( -name tests -o -path '*/onnx/backend/test' \) -prune -exec rm -rf {} +
# The image is read-only when it runs, so bytecode is made now, by hash: file times differ from build to build.
# sympy (of onnx-ir) and pygments (of rich) are hardly ever imported and would cost more than all others together.
"$venv/bin/python" -m compileall -f -q --invalidation-mode unchecked-hash -x '/(sympy|mpmath|pygments|transformers)/' "$site"
