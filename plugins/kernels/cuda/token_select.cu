// TokenSelect. One block of 512 threads an image, one launch: the order of the scores (ranking.cuh), the slots by a prefix
// sum, and for leftover = nearest the proposals of the tokens that go to those that stay (proposal.cuh).
// Shared memory: keys (later the tile and the token list), ranks: 40 KB at 4096 tokens.
#include "proposal.cuh"
#include "token_ops.h"

namespace tmdeploy::cuda {
namespace {

constexpr int kFastChannels = 64;
constexpr int kFastTokens = 256;
constexpr int kFastChunk = 32;
constexpr int kChunk = 16;

struct SelectShape {
  int tokens, channels, slots, num_prefix, kept;
  float eps;
  bool deterministic, by_index, aligned;
  Leftover leftover;
  Dtype score_type;  // read in one place: not worth a kernel each
};

__host__ __device__ inline std::size_t padded(std::size_t bytes) { return (bytes + 15) / 16 * 16; }

// [keys | tile, list] [warp totals] [ranks]; the list is written when the keys have been used. The tile is a multiple of 16.

__host__ __device__ inline std::size_t front_bytes(int count, bool nearest, std::size_t tile_bytes) {
  const std::size_t keys = sizeof(Key) * static_cast<std::size_t>(key_capacity(count));
  const std::size_t tile = nearest ? tile_bytes + sizeof(std::uint16_t) * static_cast<std::size_t>(count) : 0;
  return padded(keys > tile ? keys : tile);
}

TM_DEVICE float score_at(const void* score, Dtype type, std::int64_t i) {
  if (type == Dtype::kFloat32) return static_cast<const float*>(score)[i];
  if (type == Dtype::kFloat16) return to_float(static_cast<const Half*>(score)[i]);
  return to_float(static_cast<const BFloat16*>(score)[i]);
}

// The plan of image blockIdx.x, by its block. T: the metric's type. front: bytes of the part that keys, tile and list
// share.
template <class T, int kChannels, int kChunkSize>
TM_DEVICE void plan_image(unsigned char* memory, const void* score, const T* metric, const SelectShape& s, int front,
                          std::int32_t* map, std::int32_t* index, float* sim, std::int32_t* count) {
  Key* key = reinterpret_cast<Key*>(memory);
  std::uint16_t* list = reinterpret_cast<std::uint16_t*>(memory + sizeof(ProposalTile<kChunkSize>));
  int* warp_totals = reinterpret_cast<int*>(memory + front);
  std::uint16_t* rank = reinterpret_cast<std::uint16_t*>(warp_totals + kPlanWarps);

  const std::int64_t image = blockIdx.x;
  map += image * s.tokens;
  index += image * s.slots;
  sim += image * s.tokens;
  const int thread = static_cast<int>(threadIdx.x);
  const int patches = s.tokens - s.num_prefix;
  const int stay = s.kept - s.num_prefix;

  for (int n = thread; n < s.num_prefix; n += kPlanThreads) {
    map[n] = n;
    index[n] = n;
    sim[n] = 1.0F;
  }
  if (thread == 0) {
    count[image] = s.slots;
    if (s.slots > s.kept) index[s.kept] = -1;
  }
  for (int i = thread; i < patches; i += kPlanThreads)
    key[i] = make_key(orderable(score_at(score, s.score_type, image * s.tokens + s.num_prefix + i)), i);
  rank_keys<kPlanThreads>(key, patches, rank);

  const bool nearest = s.leftover == Leftover::kNearest;
  scan_flags<kPlanThreads>(
      patches, warp_totals, [&](int i) { return rank[i] < stay; },
      [&](int i, bool stays, int before) {
        const int token = s.num_prefix + i;
        sim[token] = 1.0F;
        if (stays) {
          const int slot = s.num_prefix + (s.by_index ? before : rank[i]);
          map[token] = slot;
          index[slot] = token;
        } else if (!nearest) {
          map[token] = s.leftover == Leftover::kFuse ? s.kept : -1;
        }
        if (nearest) list[stays ? before : stay + i - before] = static_cast<std::uint16_t>(token);
      });
  if (!nearest) return;

  ProposalTile<kChunkSize>& tile = *reinterpret_cast<ProposalTile<kChunkSize>*>(memory);
  const TokenList kept_tokens = {list, 0, 0};
  const TokenList left_tokens = {list + stay, 0, 0};
  for (int first = 0; first < patches - stay; first += kTileRows) {
    __syncthreads();  // the last rows' norms have been read
    propose<T, kChannels, kChunkSize>(
        metric + image * s.tokens * s.channels, s.channels, s.aligned, left_tokens, first, patches - stay, kept_tokens,
        stay, s.eps, s.deterministic, tile, [&](int i, float value, int column) {
          const int token = left_tokens[i];
          map[token] = s.num_prefix + (s.by_index ? column : rank[kept_tokens[column] - s.num_prefix]);
          sim[token] = value;
        });
  }
}

// Grid: one block an image.
template <class T, int kChannels, int kChunkSize>
__global__ void __launch_bounds__(kPlanThreads)
    select_image(const void* score, const T* metric, const SelectShape s, int front, std::int32_t* map,
                 std::int32_t* index, float* sim, std::int32_t* count) {
  TM_SHARED_MEMORY(memory);
  plan_image<T, kChannels, kChunkSize>(memory, score, metric, s, front, map, index, sim, count);
}

__host__ __device__ inline SelectShape shape_of(const SelectParams& p, Dtype score_type) {
  SelectShape s{};
  s.tokens = static_cast<int>(p.tokens);
  s.channels = static_cast<int>(p.channels);
  s.slots = static_cast<int>(p.slots);
  s.num_prefix = static_cast<int>(p.num_prefix);
  s.kept = static_cast<int>(p.kept);
  s.eps = p.metric_eps;
  s.deterministic = p.deterministic;
  s.by_index = p.order == SelectOrder::kIndex;
  s.leftover = p.leftover;
  s.score_type = score_type;
  return s;
}

}  // namespace

#ifndef TMDEPLOY_DEVICE_ONLY  // aot/ includes this file for what is above
namespace {

template <class T, int kChannels, int kChunkSize>
cudaError_t run(const SelectParams& p, const SelectShape& s, const void* score, const T* metric, std::int32_t* map,
                std::int32_t* index, float* sim, std::int32_t* count, cudaStream_t stream) {
  const int patches = s.tokens - s.num_prefix;
  const std::size_t front = front_bytes(patches, s.leftover == Leftover::kNearest, sizeof(ProposalTile<kChunkSize>));
  const std::size_t bytes = front + sizeof(int) * kPlanWarps + sizeof(std::uint16_t) * static_cast<std::size_t>(patches);
  return launch(select_image<T, kChannels, kChunkSize>, p.batch, kPlanThreads, bytes, stream, score, metric, s,
                static_cast<int>(front), map, index, sim, count);
}

template <class T>
cudaError_t run(const SelectParams& p, Dtype score_type, const void* score, const void* metric, std::int32_t* map,
                std::int32_t* index, float* sim, std::int32_t* count, cudaStream_t stream) {
  SelectShape s = shape_of(p, score_type);
  s.aligned = p.channels % 4 == 0 && reinterpret_cast<std::uintptr_t>(metric) % (4 * sizeof(T)) == 0;
  const T* metrics = static_cast<const T*>(metric);
  if (p.channels == kFastChannels && p.tokens <= kFastTokens && s.aligned)
    return run<T, kFastChannels, kFastChunk>(p, s, score, metrics, map, index, sim, count, stream);
  return run<T, 0, kChunk>(p, s, score, metrics, map, index, sim, count, stream);
}

}  // namespace

const char* token_select(const SelectParams& p, Dtype score_type, const void* score, Dtype metric_type,
                         const void* metric, std::int32_t* map, std::int32_t* index, float* sim, std::int32_t* count,
                         cudaStream_t stream) {
  if (p.batch < 0 || p.tokens < 0 || p.channels < 0 || p.slots < 0) return "TokenSelect: a dimension is negative";
  if (const char* wrong = problem(p)) return wrong;
  if (p.tokens > kMaxTokens) return "TokenSelect: more than 4096 tokens";
  if (p.channels > INT32_MAX / 2) return "TokenSelect: the metric is too wide";
  if (p.batch > INT32_MAX) return "TokenSelect: the batch is too large";
  if (p.batch == 0) return nullptr;
  if (count == nullptr) return "TokenSelect: a tensor is null";
  if (p.tokens > 0 && (score == nullptr || map == nullptr || index == nullptr || sim == nullptr))
    return "TokenSelect: a tensor is null";
  if (p.leftover == Leftover::kNearest && metric == nullptr) return "TokenSelect: leftover = nearest needs a metric";
  if (score_type < Dtype::kFloat32 || score_type > Dtype::kBFloat16) return "TokenSelect: unknown element type";
  cudaError_t status = cudaSuccess;
  switch (p.leftover == Leftover::kNearest ? metric_type : Dtype::kFloat32) {
    case Dtype::kFloat32:
      status = run<float>(p, score_type, score, metric, map, index, sim, count, stream);
      break;
    case Dtype::kFloat16:
      status = run<Half>(p, score_type, score, metric, map, index, sim, count, stream);
      break;
    case Dtype::kBFloat16:
      status = run<BFloat16>(p, score_type, score, metric, map, index, sim, count, stream);
      break;
    default:
      return "TokenSelect: unknown element type";
  }
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

#endif  // TMDEPLOY_DEVICE_ONLY

}  // namespace tmdeploy::cuda
