// The three ops of docs/ops.md on the CPU. Plans are those of the PyTorch reference bit for bit.
//
// Every function returns null, or what is wrong (a string literal); it neither throws nor allocates: the caller brings
// `scratch` of at least the bytes that the function beside it asks for, with the same ParallelFor, any alignment.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/op_params.h"
#include "kernels/cpu/parallel.h"

namespace tmdeploy::cpu {

struct Plan {
  std::int32_t* map;    // [batch, tokens]
  std::int32_t* index;  // [batch, slots]
  float* sim;           // [batch, tokens]
};

std::size_t match_scratch(const MatchParams& params, const ParallelFor& parallel);
const char* token_match(const MatchParams& params, const void* metric, Dtype metric_type, const Plan& plan,
                        void* scratch, const ParallelFor& parallel);

std::size_t select_scratch(const SelectParams& params, const ParallelFor& parallel);
const char* token_select(const SelectParams& params, const void* score, Dtype score_type, const void* metric,
                         Dtype metric_type, const Plan& plan, std::int32_t* count, void* scratch,
                         const ParallelFor& parallel);

// weight may be null: 1 everywhere. y has x's type. A plan that points outside its range is refused; what y and wsum
// hold then is undefined.
std::size_t reduce_scratch(const ReduceParams& params, const ParallelFor& parallel);
const char* token_reduce(const ReduceParams& params, const void* x, Dtype x_type, const std::int32_t* map,
                         const std::int32_t* index, const float* weight, void* y, float* wsum, void* scratch,
                         const ParallelFor& parallel);

}  // namespace tmdeploy::cpu
