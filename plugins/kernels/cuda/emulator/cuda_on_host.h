// The part of CUDA that the kernels use, on the host: the same device code, compiled by a C++ compiler, runs without a GPU.
//
// The threads of a block are fibers (ucontext) of one host thread. A fiber runs until a barrier, a shuffle or a ballot,
// then the scheduler picks another one at random (seeded), so a missing barrier shows as a wrong result for some seed.
// Reported as errors: a barrier or warp operation that not all threads reach, or that they reach at different lines; a
// thread that ends while others wait for it. Shared memory has exactly the bytes asked for, filled with NaNs: with
// AddressSanitizer every access outside it is found.
//
// Not covered: two threads that run between the same barriers really do interleave only there, so lost updates and races
// that need finer interleaving are invisible; memory order and visibility (a missing __threadfence or volatile); the
// GPU's own arithmetic where it is not IEEE (none is used, but -ftz or -use_fast_math would not show); partial-warp masks
// (refused); registers, occupancy, bank conflicts, alignment faults of vector accesses (UBSan sees those); blocks that
// run at the same time; streams, graphs and anything else of the runtime.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define TM_SHARED_MEMORY(name) unsigned char* const name = ::emulator::shared_memory()

typedef struct CUstream_st* cudaStream_t;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9, cudaErrorLaunchFailure = 719 };
const char* cudaGetErrorString(cudaError_t error);

namespace emulator {

struct Index {
  unsigned x;
};

// Most threads of a block and bytes of shared memory without an opt-in, as on every GPU this is compiled for.
constexpr int kMaxThreads = 1024;
constexpr std::size_t kMaxShared = 48 * 1024;

void seed(std::uint64_t value);
cudaError_t launch(std::int64_t grid, int block, std::size_t shared_bytes, const std::function<void()>& kernel);
unsigned char* shared_memory();
void block_barrier(int line);
// Every lane of the warp gives 8 bytes and sees all 32 of the others'.
const std::uint64_t* warp_exchange(unsigned mask, std::uint64_t value, int line);

template <class T>
T shuffle(unsigned mask, T value, int source_lane, int line) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t), "one word a lane");
  std::uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  const std::uint64_t taken = warp_exchange(mask, word, line)[source_lane];
  T result;
  std::memcpy(&result, &taken, sizeof(T));
  return result;
}

unsigned ballot(unsigned mask, bool predicate, int line);

}  // namespace emulator

extern emulator::Index threadIdx;
extern emulator::Index blockIdx;

#define __syncthreads() ::emulator::block_barrier(__LINE__)
#define __syncwarp() static_cast<void>(::emulator::warp_exchange(0xFFFFFFFFU, 0, __LINE__))
#define __shfl_sync(mask, value, source) ::emulator::shuffle(mask, value, (source) % 32, __LINE__)
#define __shfl_xor_sync(mask, value, bits) \
  ::emulator::shuffle(mask, value, static_cast<int>(threadIdx.x % 32U) ^ (bits), __LINE__)
#define __shfl_up_sync(mask, value, delta)                                                              \
  ::emulator::shuffle(mask, value,                                                                      \
                      static_cast<int>(threadIdx.x % 32U) - (static_cast<int>(threadIdx.x % 32U) >= (delta) ? (delta) : 0), \
                      __LINE__)
#define __ballot_sync(mask, predicate) ::emulator::ballot(mask, predicate, __LINE__)

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int min(int a, int b) { return a < b ? a : b; }

// Compiled with -ffp-contract=off, as these are on a GPU.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }

inline float __uint_as_float(std::uint32_t bits) {
  float v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}
inline std::uint32_t __float_as_uint(float v) {
  std::uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits;
}

// 16-bit floats as their bits; the conversions are exact or round to nearest even, as the hardware's.
struct __half {
  std::uint16_t bits;
};
struct __nv_bfloat16 {
  std::uint16_t bits;
};
inline __half __ushort_as_half(std::uint16_t bits) { return {bits}; }
inline std::uint16_t __half_as_ushort(__half v) { return v.bits; }
inline std::uint16_t __bfloat16_as_ushort(__nv_bfloat16 v) { return v.bits; }
float __half2float(__half v);
__half __float2half_rn(float v);
__nv_bfloat16 __float2bfloat16_rn(float v);
