// Order by (value descending, element ascending) on 64-bit keys that are unique by construction (docs/ops.md, rule 4):
// any sort gives the same result.
#pragma once

#include "block.cuh"

namespace tmdeploy::cuda {

using Key = unsigned long long;

// NaN orders as -inf, -0 as +0.
TM_DEVICE float orderable(float v) {
  if (v != v) return -INFINITY;
  return v == 0.0F ? 0.0F : v;
}

// `value` is orderable. Never 0, which is the padding of the sort.
TM_DEVICE Key make_key(float value, int element) {
  const std::uint32_t bits = __float_as_uint(value);
  const std::uint32_t rising = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return (static_cast<Key>(rising) << 32) | (0xFFFFFFFFU - static_cast<std::uint32_t>(element));
}

TM_DEVICE float key_value(Key key) {
  const std::uint32_t rising = static_cast<std::uint32_t>(key >> 32);
  return __uint_as_float((rising & 0x80000000U) != 0 ? rising & 0x7FFFFFFFU : ~rising);
}

TM_DEVICE int key_element(Key key) { return static_cast<int>(0xFFFFFFFFU - static_cast<std::uint32_t>(key)); }

// Up to here counting the larger keys of each key is faster than the barriers of a sort.
constexpr int kCountingLimit = 256;

// Length of the key array for n elements: the sort works on a power of two.
__host__ __device__ inline int key_capacity(int n) {
  if (n <= kCountingLimit) return n;
  int capacity = kCountingLimit;
  while (capacity < n) capacity *= 2;
  return capacity;
}

// keys: shared, key_capacity(n) long, keys[i] of element i, written by any thread before. rank: shared [n], the position
// of element i in descending order. Counting leaves the keys in place, sorting does not: see ranked_key.
template <int kThreads>
TM_DEVICE void rank_keys(Key* keys, int n, std::uint16_t* rank) {
  const int thread = static_cast<int>(threadIdx.x);
  if (n <= kCountingLimit) {
    constexpr int kParts = kThreads / kCountingLimit;  // neighbouring lanes that share one element's count
    static_assert(kThreads % kCountingLimit == 0 && kParts >= 1 && (kParts & (kParts - 1)) == 0 && kParts <= kWarpSize,
                  "an element's counters sit in one warp");
    __syncthreads();
    const int i = thread / kParts;
    int larger = 0;
    if (i < n) {
      const Key own = keys[i];
      for (int j = thread % kParts; j < n; j += kParts) larger += keys[j] > own ? 1 : 0;
    }
#pragma unroll
    for (int offset = kParts / 2; offset > 0; offset /= 2) larger += __shfl_xor_sync(kAllLanes, larger, offset);
    if (i < n && thread % kParts == 0) rank[i] = static_cast<std::uint16_t>(larger);
    __syncthreads();
    return;
  }
  const int capacity = key_capacity(n);
  for (int i = n + thread; i < capacity; i += kThreads) keys[i] = 0;
  for (int size = 2; size <= capacity; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      __syncthreads();
      for (int pair = thread; pair < capacity / 2; pair += kThreads) {
        const int low = 2 * pair - (pair & (stride - 1));
        const int high = low + stride;
        const Key a = keys[low];
        const Key b = keys[high];
        const bool descending = (low & size) == 0;
        if (descending ? a < b : a > b) {
          keys[low] = b;
          keys[high] = a;
        }
      }
    }
  }
  __syncthreads();
  for (int p = thread; p < n; p += kThreads) rank[key_element(keys[p])] = static_cast<std::uint16_t>(p);
  __syncthreads();
}

// Key of element i after rank_keys.
TM_DEVICE Key ranked_key(const Key* keys, const std::uint16_t* rank, int n, int i) {
  return n <= kCountingLimit ? keys[i] : keys[rank[i]];
}

}  // namespace tmdeploy::cuda
