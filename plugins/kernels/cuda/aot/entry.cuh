// Entry kernels for TensorRT's ahead-of-time plugins: a node is one launch of one of these, from PTX in the engine.
//
// TensorRT passes the inputs' pointers, then int32 values, then the outputs' pointers. The values are what
// tmdeploy/tensorrt/plugin/ derives from dimensions, and then the op's attributes in the order of op_attributes.h. No
// launcher checks anything at run time, so each entry does: what docs/ops.md forbids is answered by a plan that TokenReduce
// refuses, or by NaN, never by an access outside the tensors.
// `slots` and `kept` carry counts as dimensions: their contents are not read.
//
// TM_ENTRY(threads, blocks_a_processor) starts an entry, TM_ENTRY_END(name) follows it; TM_LAYOUT tells the Python side the
// sizes that its launch description needs: it reads them from the PTX. TM_NEEDED, for tests on the host only, gives the
// shared memory that an entry uses.
#pragma once

#ifndef TMDEPLOY_DEVICE_ONLY
#define TMDEPLOY_DEVICE_ONLY
#endif

#include "../block.cuh"
#include "../token_ops.h"

#ifdef TMDEPLOY_EMULATE
#include "emulated_entry.h"
#define TM_ENTRY(...) extern "C" void
#define TM_ENTRY_END(name) static const bool name##_listed = tmdeploy::emulated::list_entry(#name, name);
#define TM_NEEDED extern "C" __attribute__((visibility("default"))) std::int64_t
#define TM_LAYOUT(name) \
  extern "C" __attribute__((visibility("default"))) const int name[]; \
  extern "C" const int name[]
#else
#define TM_ENTRY(...) extern "C" __global__ void __launch_bounds__(__VA_ARGS__)
#define TM_ENTRY_END(name)
#define TM_LAYOUT(name) extern "C" __constant__ const int name[]
#endif

namespace tmdeploy::cuda {

constexpr int kRefused = -2;  // in a map or an index: outside every range

TM_DEVICE void refuse_plan(int threads, std::int64_t image, int tokens, int slots, std::int32_t* map,
                           std::int32_t* index, float* sim) {
  for (int n = static_cast<int>(threadIdx.x); n < tokens; n += threads) {
    map[image * tokens + n] = kRefused;
    sim[image * tokens + n] = __builtin_nanf("");
  }
  for (int m = static_cast<int>(threadIdx.x); m < slots; m += threads) index[image * slots + m] = kRefused;
}

// An attribute from its int32: a float travels as its bits.
template <class Value>
TM_DEVICE Value from_code(int code) {
  if constexpr (std::is_same_v<Value, float>)
    return __uint_as_float(static_cast<std::uint32_t>(code));
  else if constexpr (std::is_same_v<Value, bool>)
    return code != 0;
  else
    return static_cast<Value>(code);
}

// For the lists of op_attributes.h: an entry's parameters, and what they say as a struct.
#define TM_CODE(type, name, value) int name,
#define TM_DECODE(type, name, value) attributes.name = tmdeploy::cuda::from_code<type>(name);

template <class T>
TM_DEVICE bool aligned_to_four(const T* data, int channels) {
  return channels % 4 == 0 && reinterpret_cast<std::uintptr_t>(data) % (4 * sizeof(T)) == 0;
}

}  // namespace tmdeploy::cuda
