// TokenMatch, one image a block.
#include "entry.cuh"

#include "../token_match.cu"

namespace tmdeploy::cuda {
namespace {

template <class T, bool kFast>
TM_DEVICE void match_entry(const T* metric, int batch, int tokens, int channels, int slots,
                           const MatchAttributes& attributes, std::int32_t* map, std::int32_t* index, float* sim) {
  TM_SHARED_MEMORY(memory);
  if (static_cast<std::int64_t>(blockIdx.x) >= batch) return;
  const MatchParams p{attributes, batch, tokens, channels, slots};
  if (tokens > kMaxTokens || problem(p) != nullptr ||
      (kFast && (channels != kFastChannels || tokens > kFastTokens))) {
    refuse_plan(kPlanThreads, blockIdx.x, tokens, slots, map, index, sim);
    return;
  }
  MatchShape s = shape_of(p);
  s.aligned = aligned_to_four(metric, channels);
  plan_image<T, kFast ? kFastChannels : 0, kFast ? kFastChunk : kChunk>(memory, metric, s, map, index, sim);
}

}  // namespace
}  // namespace tmdeploy::cuda

#define TM_MATCH_ENTRY(name, T, fast)                                                                               \
  TM_ENTRY(tmdeploy::cuda::kPlanThreads, 1)                                                                         \
  name(const T* metric, const std::int64_t* /*slots*/, int batch, int tokens, int channels, int slot_count,         \
       TM_MATCH_ATTRIBUTES(TM_CODE) std::int32_t* map, std::int32_t* index, float* sim) {                           \
    using namespace tmdeploy;                                                                                       \
    MatchAttributes attributes;                                                                                     \
    TM_MATCH_ATTRIBUTES(TM_DECODE)                                                                                  \
    tmdeploy::cuda::match_entry<T, fast>(metric, batch, tokens, channels, slot_count, attributes, map, index, sim); \
  }                                                                                                                 \
  TM_ENTRY_END(name)

TM_MATCH_ENTRY(tmdeploy_match_f32, float, false)
TM_MATCH_ENTRY(tmdeploy_match_f16, tmdeploy::cuda::Half, false)
TM_MATCH_ENTRY(tmdeploy_match_bf16, tmdeploy::cuda::BFloat16, false)
TM_MATCH_ENTRY(tmdeploy_match_f32_fast, float, true)
TM_MATCH_ENTRY(tmdeploy_match_f16_fast, tmdeploy::cuda::Half, true)
TM_MATCH_ENTRY(tmdeploy_match_bf16_fast, tmdeploy::cuda::BFloat16, true)

// threads; most tokens; fast: channels, most tokens; bytes: tile, fast tile, once, a key, a proposal
TM_LAYOUT(tmdeploy_match_layout) = {
    tmdeploy::cuda::kPlanThreads,
    static_cast<int>(tmdeploy::cuda::kMaxTokens),
    tmdeploy::cuda::kFastChannels,
    tmdeploy::cuda::kFastTokens,
    static_cast<int>(sizeof(tmdeploy::cuda::ProposalTile<tmdeploy::cuda::kChunk>)),
    static_cast<int>(sizeof(tmdeploy::cuda::ProposalTile<tmdeploy::cuda::kFastChunk>)),
    static_cast<int>(sizeof(int) * tmdeploy::cuda::kPlanWarps),
    static_cast<int>(sizeof(tmdeploy::cuda::Key)),
    static_cast<int>(2 * sizeof(std::uint16_t)),
};

#ifdef TMDEPLOY_EMULATE
TM_NEEDED tmdeploy_match_bytes(int tokens, int num_prefix, int fast) {
  using namespace tmdeploy::cuda;
  tmdeploy::MatchParams p{};
  p.tokens = p.slots = tokens;
  p.num_prefix = num_prefix;
  const std::size_t tile = fast != 0 ? sizeof(ProposalTile<kFastChunk>) : sizeof(ProposalTile<kChunk>);
  return static_cast<std::int64_t>(tile + proposal_bytes(shape_of(p).count_a));
}
#endif
