// The three ops on CUDA streams: plain C++, no CUDA header needed (docs/ops.md is normative).
//
// All pointers are device pointers to contiguous tensors. Nothing here allocates, synchronises or reads back, so a stream in
// capture mode takes every call. Each returns null, or what is wrong: the arguments (checked before anything is launched)
// or CUDA's own message; the string lives for ever.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/op_params.h"

typedef struct CUstream_st* cudaStream_t;  // as cuda_runtime.h has it

namespace tmdeploy::cuda {

constexpr std::int64_t kMaxTokens = 4096;

// Bytes of scratch that spread a planner of many tokens over more than one block an image; 0 = it would not help. The
// planner takes less (or none) and then runs one block an image.
std::size_t match_workspace(const MatchParams& p);

// metric [batch, tokens, channels] -> map [batch, tokens], index [batch, slots], sim [batch, tokens]
// workspace: aligned to 8 bytes.
const char* token_match(const MatchParams& p, Dtype dtype, const void* metric, std::int32_t* map, std::int32_t* index,
                        float* sim, void* workspace, std::size_t workspace_bytes, cudaStream_t stream);

// score [batch, tokens], metric [batch, tokens, channels] (leftover = nearest, else null)
// -> map [batch, tokens], index [batch, slots], sim [batch, tokens], count [batch]
const char* token_select(const SelectParams& p, Dtype score_type, const void* score, Dtype metric_type,
                         const void* metric, std::int32_t* map, std::int32_t* index, float* sim, std::int32_t* count,
                         cudaStream_t stream);

// x [batch, tokens, features], map [batch, tokens], index [batch, slots], weight [batch, tokens] or null
// -> y [batch, slots, features] of x's type, wsum [batch, slots]
// A plan that points outside its range never causes an access outside the tensors; it is answered by NaN: in every slot of
// an image whose map is wrong, in the slot whose index is wrong.
const char* token_reduce(const ReduceParams& p, Dtype dtype, const void* x, const std::int32_t* map,
                         const std::int32_t* index, const float* weight, void* y, float* wsum, cudaStream_t stream);

}  // namespace tmdeploy::cuda
