// What the three ops of the domain `tmdeploy` are told: shapes and attributes (docs/ops.md is normative).
// Shared by the CPU and CUDA kernels and by every wrapper; plain C++17, no framework's header.
#pragma once

#include <cstdint>

#include "op_attributes.h"

// The count rules below also run on the GPU, where no host launcher checks them (cuda/aot/).
#ifdef __CUDACC__
#define TM_HOST_DEVICE __host__ __device__
#else
#define TM_HOST_DEVICE
#endif

namespace tmdeploy {

// Element type of the tensors whose type follows the model: metric, score and x. Everything else is float32 or int32.
enum class Dtype : std::int32_t { kFloat32, kFloat16, kBFloat16 };

// metric [batch, tokens, channels] -> map [batch, tokens], index [batch, slots], sim [batch, tokens]
struct MatchParams : MatchAttributes {
  std::int64_t batch;
  std::int64_t tokens;
  std::int64_t channels;
  std::int64_t slots;
};

// score [batch, tokens], metric [batch, tokens, channels] (kNearest only) -> map, index, sim, count [batch]
struct SelectParams : SelectAttributes {
  std::int64_t batch;
  std::int64_t tokens;
  std::int64_t channels;  // 0 without a metric
  std::int64_t slots;
  std::int64_t kept;  // = slots unless the leftover is fused
};

// x [batch, tokens, features], map, index, weight [batch, tokens] or null -> y [batch, slots, features], wsum [batch, slots]
struct ReduceParams : ReduceAttributes {
  std::int64_t batch;
  std::int64_t tokens;
  std::int64_t slots;
  std::int64_t features;
};

// Null where the counts obey docs/ops.md, else what is wrong (a string literal).
TM_HOST_DEVICE inline const char* problem(const MatchParams& p) {
  if (p.num_prefix < 0 || p.num_prefix > p.tokens) return "num_prefix is outside [0, tokens]";
  const std::int64_t removed = p.tokens - p.slots;
  if (removed < 0) return "slots exceed the tokens";
  if (removed > (p.tokens - p.num_prefix) / 2) return "more tokens to merge than half of those after the prefix";
  return nullptr;
}

TM_HOST_DEVICE inline const char* problem(const SelectParams& p) {
  if (p.num_prefix < 0 || p.num_prefix > p.tokens) return "num_prefix is outside [0, tokens]";
  if (p.kept > p.tokens) return "more tokens to keep than there are";
  const std::int64_t least = p.tokens > p.num_prefix ? p.num_prefix + 1 : p.num_prefix;
  if (p.kept < least) return "at least one token after the prefix is kept";
  const std::int64_t fused = p.leftover == Leftover::kFuse && p.kept < p.tokens ? 1 : 0;
  if (p.slots != p.kept + fused) return "slots do not fit the tokens kept";
  if (p.leftover == Leftover::kNearest && p.channels <= 0) return "leftover = nearest needs a metric";
  return nullptr;
}

}  // namespace tmdeploy
