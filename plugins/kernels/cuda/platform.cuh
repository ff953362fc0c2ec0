// The few things the device code needs from CUDA, so that the same lines also compile for the host (emulator/).
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef TMDEPLOY_EMULATE
#include "emulator/cuda_on_host.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define TM_SHARED_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]
#endif

#define TM_DEVICE __device__ __forceinline__

namespace tmdeploy::cuda {

constexpr int kWarpSize = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFU;

TM_DEVICE int lane_id() { return static_cast<int>(threadIdx.x) % kWarpSize; }
TM_DEVICE int warp_id() { return static_cast<int>(threadIdx.x) / kWarpSize; }

// Start a kernel; no allocation, no synchronisation, so a stream in capture mode takes it.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), std::int64_t grid, int block, std::size_t shared_bytes,
                   cudaStream_t stream, Arguments... arguments) {
#ifdef TMDEPLOY_EMULATE
  static_cast<void>(stream);
  return ::emulator::launch(grid, block, shared_bytes, [=] { kernel(arguments...); });
#else
  kernel<<<static_cast<unsigned>(grid), static_cast<unsigned>(block), shared_bytes, stream>>>(arguments...);
  return cudaGetLastError();
#endif
}

}  // namespace tmdeploy::cuda
