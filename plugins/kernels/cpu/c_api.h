/* The kernels behind a plain C interface, for tests and for other languages (libtmdeploy_kernels.so).
 *
 * Types: 0 float32, 1 float16, 2 bfloat16. `attributes` are the op's, in the order of op_attributes.h, choices by their
 * numbers. Every function returns null, or what is wrong. `threads` > 1 starts that many for the call. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TMDEPLOY_EXPORT __attribute__((visibility("default")))

TMDEPLOY_EXPORT const char* tmdeploy_instruction_set(void);

TMDEPLOY_EXPORT const char* tmdeploy_token_match(int64_t batch, int64_t tokens, int64_t channels, int64_t slots,
                                                 const double* attributes, const void* metric, int32_t metric_type,
                                                 int32_t* map, int32_t* index, float* sim, int32_t threads);

/* metric may be null unless the leftover is `nearest`. */
TMDEPLOY_EXPORT const char* tmdeploy_token_select(int64_t batch, int64_t tokens, int64_t channels, int64_t slots,
                                                  int64_t kept, const double* attributes, const void* score,
                                                  int32_t score_type, const void* metric, int32_t metric_type,
                                                  int32_t* map, int32_t* index, float* sim, int32_t* count,
                                                  int32_t threads);

/* weight may be null. */
TMDEPLOY_EXPORT const char* tmdeploy_token_reduce(int64_t batch, int64_t tokens, int64_t slots, int64_t features,
                                                  const double* attributes, const void* x, int32_t x_type,
                                                  const int32_t* map, const int32_t* index, const float* weight,
                                                  void* y, float* wsum, int32_t threads);

#ifdef __cplusplus
}
#endif
