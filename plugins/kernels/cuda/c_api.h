// token_ops.h behind C names, for ctypes (tests, scripts/gpu_check.py). `attributes` are the op's, in the order of
// op_attributes.h, choices by their numbers, dtypes by theirs; stream is a cudaStream_t. Returns null or what is wrong.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define TMDEPLOY_EXPORT __attribute__((visibility("default")))
#else
#define TMDEPLOY_EXPORT
#endif

extern "C" {
// dims: batch, tokens, channels, slots
TMDEPLOY_EXPORT size_t tmdeploy_cuda_match_workspace(const int64_t dims[4], const double* attributes);
TMDEPLOY_EXPORT const char* tmdeploy_cuda_match(const int64_t dims[4], const double* attributes, int32_t dtype,
                                                const void* metric, int32_t* map, int32_t* index, float* sim,
                                                void* workspace, size_t workspace_bytes, void* stream);
// dims: batch, tokens, channels, slots, kept
TMDEPLOY_EXPORT const char* tmdeploy_cuda_select(const int64_t dims[5], const double* attributes, int32_t score_dtype,
                                                 int32_t metric_dtype, const void* score, const void* metric,
                                                 int32_t* map, int32_t* index, float* sim, int32_t* count,
                                                 void* stream);
// dims: batch, tokens, slots, features
TMDEPLOY_EXPORT const char* tmdeploy_cuda_reduce(const int64_t dims[4], const double* attributes, int32_t dtype,
                                                 const void* x, const int32_t* map, const int32_t* index,
                                                 const float* weight, void* y, float* wsum, void* stream);
}
