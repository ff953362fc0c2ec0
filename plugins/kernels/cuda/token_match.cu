// TokenMatch. One block of 512 threads an image does everything in one launch: proposals (proposal.cuh), their order
// (ranking.cuh), the slots by a prefix sum, the outputs. Shared memory: a tile of vectors and 12 bytes a proposal, 46 KB at
// 4096 tokens, so no opt-in to more than 48 KB is needed.
// With a workspace and many tokens, two launches: proposals by one block for 128 rows, then the rest by one block an image.
#include "proposal.cuh"
#include "token_ops.h"

namespace tmdeploy::cuda {
namespace {

constexpr int kFastChannels = 64;
constexpr int kFastTokens = 256;  // proposals then fit one tile
constexpr int kFastChunk = 32;
constexpr int kChunk = 16;  // leaves room for the keys of 4096 tokens

// What every block is told, computed once on the host.
struct MatchShape {
  int tokens, channels, slots, num_prefix;
  int first_a, count_a, first_b, count_b, removed;
  float eps;
  bool deterministic, unsorted, aligned;
};

// Shared memory after the tile, for the proposals of one image.
struct Proposals {
  Key* key;
  std::uint16_t* destination;
  std::uint16_t* rank;
  int* warp_totals;
};

__host__ __device__ inline std::size_t proposal_bytes(int count) {
  return sizeof(Key) * static_cast<std::size_t>(key_capacity(count)) + sizeof(int) * kPlanWarps +
         2 * sizeof(std::uint16_t) * static_cast<std::size_t>(count);
}

TM_DEVICE Proposals proposals_at(unsigned char* memory, int count) {
  Proposals p;
  p.key = reinterpret_cast<Key*>(memory);
  p.warp_totals = reinterpret_cast<int*>(p.key + key_capacity(count));
  p.destination = reinterpret_cast<std::uint16_t*>(p.warp_totals + kPlanWarps);
  p.rank = p.destination + count;
  return p;
}

TM_DEVICE TokenList a_tokens(const MatchShape& s) { return {nullptr, s.first_a, 2}; }
TM_DEVICE TokenList b_tokens(const MatchShape& s) { return {nullptr, s.first_b, 2}; }

TM_DEVICE void write_identity(const MatchShape& s, std::int32_t* map, std::int32_t* index, float* sim) {
  for (int n = static_cast<int>(threadIdx.x); n < s.tokens; n += kPlanThreads) {
    map[n] = n;
    index[n] = n;
    sim[n] = 1.0F;
  }
}

// Keys and destinations of all proposals are in shared memory (a barrier may be outstanding): write the plan.
TM_DEVICE void write_plan(const MatchShape& s, const Proposals& p, std::int32_t* map, std::int32_t* index, float* sim) {
  rank_keys<kPlanThreads>(p.key, s.count_a, p.rank);
  const int kept_a = s.count_a - s.removed;
  const int first_b_slot = s.num_prefix + kept_a;
  for (int n = static_cast<int>(threadIdx.x); n < s.num_prefix; n += kPlanThreads) {
    map[n] = n;
    index[n] = n;
    sim[n] = 1.0F;
  }
  for (int j = static_cast<int>(threadIdx.x); j < s.count_b; j += kPlanThreads) {
    const int token = s.first_b + 2 * j;
    map[token] = first_b_slot + j;
    index[first_b_slot + j] = token;
    sim[token] = 1.0F;
  }
  scan_flags<kPlanThreads>(
      s.count_a, p.warp_totals, [&](int i) { return p.rank[i] >= s.removed; },
      [&](int i, bool kept, int before) {
        const int token = s.first_a + 2 * i;
        if (kept) {
          const int slot = s.num_prefix + (s.unsorted ? p.rank[i] - s.removed : before);
          map[token] = slot;
          index[slot] = token;
          sim[token] = 1.0F;
        } else {
          map[token] = first_b_slot + p.destination[i];
          sim[token] = key_value(ranked_key(p.key, p.rank, s.count_a, i));
        }
      });
}

// The plan of image blockIdx.x, by its block.
template <class T, int kChannels, int kChunkSize>
TM_DEVICE void plan_image(unsigned char* memory, const T* metric, const MatchShape& s, std::int32_t* map,
                          std::int32_t* index, float* sim) {
  const std::int64_t image = blockIdx.x;
  metric += image * s.tokens * s.channels;
  map += image * s.tokens;
  index += image * s.slots;
  sim += image * s.tokens;
  if (s.removed == 0) {
    write_identity(s, map, index, sim);
    return;
  }
  ProposalTile<kChunkSize>& tile = *reinterpret_cast<ProposalTile<kChunkSize>*>(memory);
  const Proposals p = proposals_at(memory + sizeof(ProposalTile<kChunkSize>), s.count_a);
  for (int first = 0; first < s.count_a; first += kTileRows) {
    __syncthreads();  // the last rows' norms have been read
    propose<T, kChannels, kChunkSize>(metric, s.channels, s.aligned, a_tokens(s), first, s.count_a, b_tokens(s),
                                      s.count_b, s.eps, s.deterministic, tile, [&](int i, float value, int column) {
                                        p.key[i] = make_key(value, i);
                                        p.destination[i] = static_cast<std::uint16_t>(column);
                                      });
  }
  write_plan(s, p, map, index, sim);
}

// Grid: one block an image.
template <class T, int kChannels, int kChunkSize>
__global__ void __launch_bounds__(kPlanThreads, 1)
    match_image(const T* metric, const MatchShape s, std::int32_t* map, std::int32_t* index, float* sim) {
  TM_SHARED_MEMORY(memory);
  plan_image<T, kChannels, kChunkSize>(memory, metric, s, map, index, sim);
}

// Grid: groups of 128 rows of every image. proposed_*: [batch, count_a].
template <class T, int kChannels, int kChunkSize>
__global__ void __launch_bounds__(kPlanThreads, 1)
    match_propose(const T* metric, const MatchShape s, int groups, Key* proposed_key, std::int32_t* proposed_column) {
  TM_SHARED_MEMORY(memory);
  const std::int64_t image = blockIdx.x / static_cast<unsigned>(groups);
  const int group = static_cast<int>(blockIdx.x % static_cast<unsigned>(groups));
  ProposalTile<kChunkSize>& tile = *reinterpret_cast<ProposalTile<kChunkSize>*>(memory);
  propose<T, kChannels, kChunkSize>(metric + image * s.tokens * s.channels, s.channels, s.aligned, a_tokens(s),
                                    group * kTileRows, s.count_a, b_tokens(s), s.count_b, s.eps, s.deterministic, tile,
                                    [&](int i, float value, int column) {
                                      proposed_key[image * s.count_a + i] = make_key(value, i);
                                      proposed_column[image * s.count_a + i] = column;
                                    });
}

// Grid: one block an image. A template only so that every translation unit may hold it.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    match_order(const Key* proposed_key, const std::int32_t* proposed_column, const MatchShape s, std::int32_t* map,
                std::int32_t* index, float* sim) {
  TM_SHARED_MEMORY(memory);
  const std::int64_t image = blockIdx.x;
  const Proposals p = proposals_at(memory, s.count_a);
  for (int i = static_cast<int>(threadIdx.x); i < s.count_a; i += kThreads) {
    p.key[i] = proposed_key[image * s.count_a + i];
    p.destination[i] = static_cast<std::uint16_t>(proposed_column[image * s.count_a + i]);
  }
  write_plan(s, p, map + image * s.tokens, index + image * s.slots, sim + image * s.tokens);
}

__host__ __device__ inline MatchShape shape_of(const MatchParams& p) {
  MatchShape s{};
  s.tokens = static_cast<int>(p.tokens);
  s.channels = static_cast<int>(p.channels);
  s.slots = static_cast<int>(p.slots);
  s.num_prefix = static_cast<int>(p.num_prefix);
  s.first_a = s.num_prefix + s.num_prefix % 2;
  s.first_b = s.num_prefix + 1 - s.num_prefix % 2;
  s.count_a = s.tokens > s.first_a ? (s.tokens - s.first_a + 1) / 2 : 0;
  s.count_b = s.tokens > s.first_b ? (s.tokens - s.first_b + 1) / 2 : 0;
  s.removed = s.tokens - s.slots;
  s.eps = p.metric_eps;
  s.deterministic = p.deterministic;
  s.unsorted = p.order == MatchOrder::kTomeUnsorted;
  return s;
}

}  // namespace

#ifndef TMDEPLOY_DEVICE_ONLY  // aot/ includes this file for what is above
namespace {

std::int64_t row_groups(const MatchShape& s) { return (s.count_a + kTileRows - 1) / kTileRows; }

template <class T, int kChannels, int kChunkSize>
cudaError_t run(const MatchParams& p, const MatchShape& s, const T* metric, std::int32_t* map, std::int32_t* index,
                float* sim, void* workspace, cudaStream_t stream) {
  constexpr std::size_t kTile = sizeof(ProposalTile<kChunkSize>);
  if (workspace == nullptr || s.removed == 0)
    return launch(match_image<T, kChannels, kChunkSize>, p.batch, kPlanThreads, kTile + proposal_bytes(s.count_a),
                  stream, metric, s, map, index, sim);
  Key* key = static_cast<Key*>(workspace);
  std::int32_t* column = reinterpret_cast<std::int32_t*>(key + p.batch * s.count_a);
  const std::int64_t groups = row_groups(s);
  const cudaError_t proposed = launch(match_propose<T, kChannels, kChunkSize>, p.batch * groups, kPlanThreads, kTile,
                                      stream, metric, s, static_cast<int>(groups), key, column);
  if (proposed != cudaSuccess) return proposed;
  return launch(match_order<kPlanThreads>, p.batch, kPlanThreads, proposal_bytes(s.count_a), stream, key, column, s, map,
                index, sim);
}

template <class T>
cudaError_t run(const MatchParams& p, const void* metric, std::int32_t* map, std::int32_t* index, float* sim,
                void* workspace, cudaStream_t stream) {
  MatchShape s = shape_of(p);
  s.aligned = p.channels % 4 == 0 && reinterpret_cast<std::uintptr_t>(metric) % (4 * sizeof(T)) == 0;
  const T* values = static_cast<const T*>(metric);
  if (p.channels == kFastChannels && p.tokens <= kFastTokens && s.aligned)
    return run<T, kFastChannels, kFastChunk>(p, s, values, map, index, sim, nullptr, stream);
  return run<T, 0, kChunk>(p, s, values, map, index, sim, workspace, stream);
}

}  // namespace

std::size_t match_workspace(const MatchParams& p) {
  if (problem(p) != nullptr || p.batch <= 0 || p.tokens <= kFastTokens || p.tokens > kMaxTokens) return 0;
  const MatchShape s = shape_of(p);
  return static_cast<std::size_t>(p.batch) * static_cast<std::size_t>(s.count_a) * (sizeof(Key) + sizeof(std::int32_t));
}

const char* token_match(const MatchParams& p, Dtype dtype, const void* metric, std::int32_t* map, std::int32_t* index,
                        float* sim, void* workspace, std::size_t workspace_bytes, cudaStream_t stream) {
  if (p.batch < 0 || p.tokens < 0 || p.channels < 0 || p.slots < 0) return "TokenMatch: a dimension is negative";
  if (const char* wrong = problem(p)) return wrong;
  if (p.tokens > kMaxTokens) return "TokenMatch: more than 4096 tokens";
  if (p.channels > INT32_MAX / 2) return "TokenMatch: the metric is too wide";
  if (p.batch == 0 || p.tokens == 0) return nullptr;
  const MatchShape s = shape_of(p);
  if (p.batch > INT32_MAX / (row_groups(s) + 1)) return "TokenMatch: the batch is too large";
  if ((metric == nullptr && p.channels > 0) || map == nullptr || index == nullptr || sim == nullptr)
    return "TokenMatch: a tensor is null";
  if (reinterpret_cast<std::uintptr_t>(workspace) % alignof(Key) != 0)
    return "TokenMatch: the workspace is not aligned to 8 bytes";
  const std::size_t wanted = match_workspace(p);
  void* usable = wanted > 0 && workspace_bytes >= wanted ? workspace : nullptr;
  cudaError_t status = cudaSuccess;
  switch (dtype) {
    case Dtype::kFloat32:
      status = run<float>(p, metric, map, index, sim, usable, stream);
      break;
    case Dtype::kFloat16:
      status = run<Half>(p, metric, map, index, sim, usable, stream);
      break;
    case Dtype::kBFloat16:
      status = run<BFloat16>(p, metric, map, index, sim, usable, stream);
      break;
    default:
      return "TokenMatch: unknown element type";
  }
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

#endif  // TMDEPLOY_DEVICE_ONLY

}  // namespace tmdeploy::cuda
