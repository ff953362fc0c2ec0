// What the threads of a warp or block do together. Every thread of the block must call these.
#pragma once

#include "platform.cuh"

namespace tmdeploy::cuda {

TM_DEVICE double warp_sum(double v) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(kAllLanes, v, offset);
  return v;
}

TM_DEVICE float warp_sum(float v) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(kAllLanes, v, offset);
  return v;
}

TM_DEVICE float warp_max(float v) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, offset));
  return v;
}

// emit(i, flagged, before) for every i in [0, n): `before` counts the flagged elements below i.
// warp_totals: shared, one int a warp. Ends with a barrier.
template <int kThreads, class Flag, class Emit>
TM_DEVICE void scan_flags(int n, int* warp_totals, Flag flag, Emit emit) {
  constexpr int kWarps = kThreads / kWarpSize;
  int base = 0;
  for (int first = 0; first < n; first += kThreads) {
    const int i = first + static_cast<int>(threadIdx.x);
    const bool flagged = i < n && flag(i);
    const unsigned mask = __ballot_sync(kAllLanes, flagged);
    if (lane_id() == 0) warp_totals[warp_id()] = __popc(mask);
    __syncthreads();
    int before = base + __popc(mask & ((1U << lane_id()) - 1U));
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const int total = warp_totals[w];
      if (w < warp_id()) before += total;
      base += total;
    }
    if (i < n) emit(i, flagged, before);
    __syncthreads();
  }
}

}  // namespace tmdeploy::cuda
