// Chooses the inner loops for the processor that runs, once a process.
#include <cstdlib>
#include <cstring>

#include "kernels/cpu/inner_loops.h"

namespace tmdeploy::cpu {

extern const SimilarityLoops<double> similarity_baseline;
extern const SimilarityLoops<float> fast_similarity_baseline;
extern const RowLoops rows_baseline;
#if defined(TMDEPLOY_X86)
extern const SimilarityLoops<double> similarity_avx2, similarity_avx512;
extern const SimilarityLoops<float> fast_similarity_avx2, fast_similarity_avx512;
extern const RowLoops rows_avx2, rows_avx512;
#endif

namespace {

InnerLoops choose() {
  const char* const limit = std::getenv("TMDEPLOY_ISA");
  const auto allowed = [&](const char* name) { return limit == nullptr || std::strcmp(limit, name) == 0; };
#if defined(TMDEPLOY_X86)
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                        __builtin_cpu_supports("f16c");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (has_avx512 && allowed("avx512")) return {"avx512", similarity_avx512, fast_similarity_avx512, rows_avx512};
  if (has_avx2 && (allowed("avx2") || allowed("avx512"))) return {"avx2", similarity_avx2, fast_similarity_avx2, rows_avx2};
#else
  static_cast<void>(allowed);
#endif
  return {"baseline", similarity_baseline, fast_similarity_baseline, rows_baseline};
}

}  // namespace

const InnerLoops& inner_loops() {
  static const InnerLoops chosen = choose();
  return chosen;
}

}  // namespace tmdeploy::cpu
