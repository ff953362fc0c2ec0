#!/bin/sh
# usage: docker/build-native.sh cpu|gpu OUT      run in a builder stage, from the source root
# Builds plugins/ and leaves the shared libraries in OUT. Without plugins/CMakeLists.txt OUT stays empty.
set -eu
kind=$1 out=$2
mkdir -p "$out"
if [ ! -f plugins/CMakeLists.txt ]; then
  echo "no plugins/CMakeLists.txt: the image gets no native library; models run by their function bodies"
  exit 0
fi
if [ "$kind" = gpu ]; then
  # NVIDIA's images have had the headers in either place.
  headers=$(find /usr/include /opt/tensorrt -name NvInfer.h 2>/dev/null | head -n 1)
  [ -n "$headers" ] || { echo "error: no NvInfer.h in /usr/include or /opt/tensorrt: is BASE NVIDIA's TensorRT image?" >&2; exit 1; }
  command -v nvcc >/dev/null || { echo "error: no nvcc: is BASE NVIDIA's TensorRT image?" >&2; exit 1; }
fi
if ! command -v cmake >/dev/null || ! command -v c++ >/dev/null; then
  apt-get update
  apt-get install -y --no-install-recommends cmake g++ make
fi
# From the sources: the installed package does not bring plugins/.
export PYTHONPATH=$PWD
if [ "$kind" = gpu ]; then
  TENSORRT_ROOT=$(dirname "$headers")
  export TENSORRT_ROOT
  /opt/venv/bin/tmdeploy plugins build --ort --cuda --tensorrt --fetch-headers --output "$out"
else
  /opt/venv/bin/tmdeploy plugins build --fetch-headers --output "$out"
fi
