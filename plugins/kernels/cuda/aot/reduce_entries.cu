// TokenReduce: `block_slots` slots of an image a block.
#include "entry.cuh"

#include "../token_reduce.cu"

namespace tmdeploy::cuda {
namespace {

// kWidth 0: the mlerps.
template <class T, int kFeatures, int kWidth>
TM_DEVICE void reduce_entry(const T* x, const std::int32_t* map, const std::int32_t* index, const float* weight,
                            int batch, int tokens, int slots, int features, int block_slots,
                            const ReduceAttributes& attributes, T* y, float* wsum) {
  TM_SHARED_MEMORY(memory);
  if (slots <= 0 || block_slots < 1) return;
  ReduceShape s{};
  s.tokens = tokens;
  s.slots = slots;
  s.features = features;
  s.block_slots = block_slots;
  s.blocks = (slots + block_slots - 1) / block_slots;
  s.mode = attributes.mode;
  if (static_cast<std::int64_t>(blockIdx.x) >= static_cast<std::int64_t>(batch) * s.blocks) return;
  constexpr int kStep = kWidth > 0 ? kWidth : 1;
  if (tokens > kMaxTokens || slots > kMaxTokens + 1 || block_slots > kMaxSlots || features % kStep != 0 ||
      features > INT32_MAX / kMaxSlots || (kFeatures > 0 && features != kFeatures)) {
    const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) / s.blocks * slots +
                               static_cast<std::int64_t>(blockIdx.x) % s.blocks * block_slots;
    const int here = min(block_slots, slots - static_cast<int>(first % slots));
    for (int m = static_cast<int>(threadIdx.x); m < here; m += kReduceThreads) wsum[first + m] = kNan;
    for (std::int64_t f = threadIdx.x; f < static_cast<std::int64_t>(here) * features; f += kReduceThreads)
      y[first * features + f] = from_float<T>(kNan);
    return;
  }
  if constexpr (kWidth == 0)
    mlerp_block<T>(memory, x, map, index, weight, s, y, wsum);
  else
    reduce_block<T, kFeatures, kWidth>(memory, x, map, index, weight, s, y, wsum);
}

}  // namespace
}  // namespace tmdeploy::cuda

// Weighted, with half the blocks a processor: the 16-bit kernels would spill.
#define TM_REDUCE_ENTRY(name, T, features, width, blocks)                                                         \
  TM_ENTRY(tmdeploy::cuda::kReduceThreads, blocks)                                                                \
  name(const T* x, const std::int32_t* map, const std::int32_t* index, int batch, int tokens, int slots,          \
       int feature_count, int block_slots, TM_REDUCE_ATTRIBUTES(TM_CODE) T* y, float* wsum) {                     \
    using namespace tmdeploy;                                                                                     \
    ReduceAttributes attributes;                                                                                  \
    TM_REDUCE_ATTRIBUTES(TM_DECODE)                                                                               \
    tmdeploy::cuda::reduce_entry<T, features, width>(x, map, index, nullptr, batch, tokens, slots, feature_count, \
                                                     block_slots, attributes, y, wsum);                           \
  }                                                                                                               \
  TM_ENTRY_END(name)                                                                                              \
  TM_ENTRY(tmdeploy::cuda::kReduceThreads, ((blocks) + 1) / 2)                                                    \
  name##_weighted(const T* x, const std::int32_t* map, const std::int32_t* index, const float* weight, int batch, \
                  int tokens, int slots, int feature_count, int block_slots, TM_REDUCE_ATTRIBUTES(TM_CODE) T* y,  \
                  float* wsum) {                                                                                  \
    using namespace tmdeploy;                                                                                     \
    ReduceAttributes attributes;                                                                                  \
    TM_REDUCE_ATTRIBUTES(TM_DECODE)                                                                               \
    tmdeploy::cuda::reduce_entry<T, features, width>(x, map, index, weight, batch, tokens, slots, feature_count,  \
                                                     block_slots, attributes, y, wsum);                           \
  }                                                                                                               \
  TM_ENTRY_END(name##_weighted)

// blocks: of a processor, as many as leave enough registers.
#define TM_REDUCE_ENTRIES(type, T, width, blocks)                      \
  TM_REDUCE_ENTRY(tmdeploy_reduce_##type##_192, T, 192, width, blocks) \
  TM_REDUCE_ENTRY(tmdeploy_reduce_##type##_384, T, 384, width, blocks) \
  TM_REDUCE_ENTRY(tmdeploy_reduce_##type##_768, T, 768, width, blocks) \
  TM_REDUCE_ENTRY(tmdeploy_reduce_##type##_1024, T, 1024, width, 3)    \
  TM_REDUCE_ENTRY(tmdeploy_reduce_##type##_wide, T, 0, width, 3)       \
  TM_REDUCE_ENTRY(tmdeploy_reduce_##type, T, 0, 1, 3)                  \
  TM_REDUCE_ENTRY(tmdeploy_reduce_##type##_mlerp, T, 0, 0, 1)

TM_REDUCE_ENTRIES(f32, float, 4, 4)
TM_REDUCE_ENTRIES(f16, tmdeploy::cuda::Half, 8, 3)
TM_REDUCE_ENTRIES(bf16, tmdeploy::cuda::BFloat16, 8, 3)

// threads; most tokens; most slots of a block; bytes: once, a token, a slot of the block
TM_LAYOUT(tmdeploy_reduce_layout) = {
    tmdeploy::cuda::kReduceThreads,
    static_cast<int>(tmdeploy::cuda::kMaxTokens),
    tmdeploy::cuda::kMaxSlots,
    static_cast<int>(sizeof(tmdeploy::cuda::Groups)),
    static_cast<int>(3 * sizeof(std::uint16_t)),
    static_cast<int>(sizeof(std::uint16_t)),
};

#ifdef TMDEPLOY_EMULATE
TM_NEEDED tmdeploy_reduce_bytes(int tokens, int block_slots) {
  tmdeploy::cuda::ReduceShape s{};
  s.tokens = tokens;
  s.block_slots = block_slots;
  // `local`, the last part, is two lists of the tokens
  const tmdeploy::cuda::ReduceMemory m = tmdeploy::cuda::reduce_memory(nullptr, s);
  return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(m.local + 2 * tokens));
}
#endif
