// TokenSelect, one image a block.
#include "entry.cuh"

#include "../token_select.cu"

namespace tmdeploy::cuda {
namespace {

template <class T, bool kFast>
TM_DEVICE void select_entry(const void* score, const T* metric, int batch, int tokens, int channels, int slots,
                            int kept, int score_type, const SelectAttributes& attributes, std::int32_t* map, std::int32_t* index,
                            float* sim, std::int32_t* count) {
  TM_SHARED_MEMORY(memory);
  if (static_cast<std::int64_t>(blockIdx.x) >= batch) return;
  const SelectParams p{attributes, batch, tokens, channels, slots, kept};
  if (tokens > kMaxTokens || problem(p) != nullptr ||
      (kFast && (channels != kFastChannels || tokens > kFastTokens))) {
    refuse_plan(kPlanThreads, blockIdx.x, tokens, slots, map, index, sim);
    if (threadIdx.x == 0) count[blockIdx.x] = 0;
    return;
  }
  SelectShape s = shape_of(p, static_cast<Dtype>(score_type));
  constexpr int kChunkSize = kFast ? kFastChunk : kChunk;
  const bool nearest = p.leftover == Leftover::kNearest;
  s.aligned = nearest && aligned_to_four(metric, channels);
  const int patches = tokens - static_cast<int>(p.num_prefix);
  const int front = static_cast<int>(front_bytes(patches, nearest, sizeof(ProposalTile<kChunkSize>)));
  plan_image<T, kFast ? kFastChannels : 0, kChunkSize>(memory, score, metric, s, front, map, index, sim, count);
}

}  // namespace
}  // namespace tmdeploy::cuda

// `attributes`, with the leftover that the entry is for: known to the compiler.
#define TM_SELECT_DECODE(kind)    \
  using namespace tmdeploy;       \
  SelectAttributes attributes;    \
  TM_SELECT_ATTRIBUTES(TM_DECODE) \
  attributes.leftover = Leftover::kind;

TM_ENTRY(tmdeploy::cuda::kPlanThreads)
tmdeploy_select_drop(const void* score, const std::int64_t* /*slots*/, int batch, int tokens, int slot_count,
                     int score_type, TM_SELECT_ATTRIBUTES(TM_CODE) std::int32_t* map, std::int32_t* index, float* sim,
                     std::int32_t* count) {
  TM_SELECT_DECODE(kDrop)
  tmdeploy::cuda::select_entry<float, false>(score, nullptr, batch, tokens, 0, slot_count, slot_count, score_type,
                                             attributes, map, index, sim, count);
}
TM_ENTRY_END(tmdeploy_select_drop)

TM_ENTRY(tmdeploy::cuda::kPlanThreads)
tmdeploy_select_fuse(const void* score, const std::int64_t* /*slots*/, const std::int64_t* /*kept*/, int batch,
                     int tokens, int slot_count, int kept_count, int score_type,
                     TM_SELECT_ATTRIBUTES(TM_CODE) std::int32_t* map, std::int32_t* index, float* sim,
                     std::int32_t* count) {
  TM_SELECT_DECODE(kFuse)
  tmdeploy::cuda::select_entry<float, false>(score, nullptr, batch, tokens, 0, slot_count, kept_count, score_type,
                                             attributes, map, index, sim, count);
}
TM_ENTRY_END(tmdeploy_select_fuse)

#define TM_NEAREST_ENTRY(name, T, fast)                                                                        \
  TM_ENTRY(tmdeploy::cuda::kPlanThreads)                                                                       \
  name(const void* score, const std::int64_t* /*slots*/, const T* metric, int batch, int tokens, int channels, \
       int slot_count, int score_type, TM_SELECT_ATTRIBUTES(TM_CODE) std::int32_t* map, std::int32_t* index,   \
       float* sim, std::int32_t* count) {                                                                      \
    TM_SELECT_DECODE(kNearest)                                                                                 \
    tmdeploy::cuda::select_entry<T, fast>(score, metric, batch, tokens, channels, slot_count, slot_count,      \
                                          score_type, attributes, map, index, sim, count);                     \
  }                                                                                                            \
  TM_ENTRY_END(name)

TM_NEAREST_ENTRY(tmdeploy_select_nearest_f32, float, false)
TM_NEAREST_ENTRY(tmdeploy_select_nearest_f16, tmdeploy::cuda::Half, false)
TM_NEAREST_ENTRY(tmdeploy_select_nearest_bf16, tmdeploy::cuda::BFloat16, false)
TM_NEAREST_ENTRY(tmdeploy_select_nearest_f32_fast, float, true)
TM_NEAREST_ENTRY(tmdeploy_select_nearest_f16_fast, tmdeploy::cuda::Half, true)
TM_NEAREST_ENTRY(tmdeploy_select_nearest_bf16_fast, tmdeploy::cuda::BFloat16, true)

// threads; most tokens; fast: channels, most tokens; bytes: tile, fast tile, once, a key, a token
TM_LAYOUT(tmdeploy_select_layout) = {
    tmdeploy::cuda::kPlanThreads,
    static_cast<int>(tmdeploy::cuda::kMaxTokens),
    tmdeploy::cuda::kFastChannels,
    tmdeploy::cuda::kFastTokens,
    static_cast<int>(sizeof(tmdeploy::cuda::ProposalTile<tmdeploy::cuda::kChunk>)),
    static_cast<int>(sizeof(tmdeploy::cuda::ProposalTile<tmdeploy::cuda::kFastChunk>)),
    static_cast<int>(sizeof(int) * tmdeploy::cuda::kPlanWarps),
    static_cast<int>(sizeof(tmdeploy::cuda::Key)),
    static_cast<int>(sizeof(std::uint16_t)),
};

#ifdef TMDEPLOY_EMULATE
TM_NEEDED tmdeploy_select_bytes(int tokens, int num_prefix, int nearest, int fast) {
  using namespace tmdeploy::cuda;
  const int patches = tokens - num_prefix;
  const std::size_t tile = fast != 0 ? sizeof(ProposalTile<kFastChunk>) : sizeof(ProposalTile<kChunk>);
  return static_cast<std::int64_t>(front_bytes(patches, nearest != 0, tile) + sizeof(int) * kPlanWarps +
                                   sizeof(std::uint16_t) * static_cast<std::size_t>(patches));
}
#endif
