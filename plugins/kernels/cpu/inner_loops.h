// The inner loops, compiled once for every instruction set (inner_loops_*.cpp) and chosen at run time (dispatch.cpp).
//
// The files that are compiled for newer processors keep everything but their table in an unnamed namespace and use no
// library templates: an inline function the linker merges across files could otherwise run on a processor without the
// instructions.
#pragma once

#include <cstdint>

#include "kernels/common/op_params.h"

namespace tmdeploy::cpu {

// Cosine similarity of rows (docs/ops.md, rules 1 to 3). Rows are packed into panels, [panel][channel][row of panel],
// so that one load serves several rows. Real is what norms and dots accumulate in.
template <class Real>
struct SimilarityLoops {
  std::int64_t a_panel;  // rows of a panel
  std::int64_t b_panel;

  // Rows `tokens` of metric [., channels] to panels; `norms` of rows that only fill the last panel are NaN.
  using Pack = void (*)(const void* metric, Dtype type, const std::int32_t* tokens, std::int64_t count,
                        std::int64_t channels, Real* packed, Real* norms);
  Pack pack_a;
  Pack pack_b;

  // For the rows of A's panels [first, last): the largest similarity to any of B's rows, and the first row that has it.
  void (*best)(const Real* a, const Real* a_norms, std::int64_t first, std::int64_t last, std::int64_t a_count,
               const Real* b, const Real* b_norms, std::int64_t b_count, std::int64_t channels, Real eps, float* value,
               std::int32_t* where);
};

// Rows of TokenReduce in float32. No multiplication is fused with an addition: the sums are the reference's.
struct RowLoops {
  void (*widen)(const void* x, Dtype type, float* out, std::int64_t n);
  void (*narrow)(const float* in, Dtype type, void* out, std::int64_t n);
  void (*start)(const void* x, Dtype type, float weight, float* sum, std::int64_t n);      // sum = weight x
  void (*add)(const void* x, Dtype type, float weight, float* sum, std::int64_t n);        // sum += weight x
  void (*divide)(const float* sum, float divisor, Dtype type, void* out, std::int64_t n);  // out = sum / divisor
  void (*larger)(const void* x, Dtype type, float* most, std::int64_t n);                  // NaN wins
  double (*squares)(const void* x, Dtype type, std::int64_t n);                            // sum of squares
};

struct InnerLoops {
  const char* name;
  SimilarityLoops<double> wide;
  SimilarityLoops<float> narrow;
  RowLoops rows;
};

// The best set for this processor. The environment variable TMDEPLOY_ISA (baseline, avx2, avx512) can only lower it.
const InnerLoops& inner_loops();

}  // namespace tmdeploy::cpu
