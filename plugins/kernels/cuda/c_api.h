// token_ops.h behind C names, for ctypes (tests, scripts/gpu_check.py). Enums travel as their numbers; stream is a
// cudaStream_t. Returns null or what is wrong.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define TMDEPLOY_EXPORT __attribute__((visibility("default")))
#else
#define TMDEPLOY_EXPORT
#endif

extern "C" {
TMDEPLOY_EXPORT size_t tmdeploy_cuda_match_workspace(const int64_t dims[5]);
// dims: batch, tokens, channels, slots, num_prefix; attributes: dtype, order, deterministic
TMDEPLOY_EXPORT const char* tmdeploy_cuda_match(const int64_t dims[5], const int32_t attributes[3], float metric_eps,
                                                const void* metric, int32_t* map, int32_t* index, float* sim,
                                                void* workspace, size_t workspace_bytes, void* stream);
// dims: batch, tokens, channels, slots, kept, num_prefix; attributes: score's dtype, metric's dtype, leftover, order,
// deterministic
TMDEPLOY_EXPORT const char* tmdeploy_cuda_select(const int64_t dims[6], const int32_t attributes[5], float metric_eps,
                                                 const void* score, const void* metric, int32_t* map, int32_t* index,
                                                 float* sim, int32_t* count, void* stream);
// dims: batch, tokens, slots, features; attributes: dtype, mode
TMDEPLOY_EXPORT const char* tmdeploy_cuda_reduce(const int64_t dims[4], const int32_t attributes[2], const void* x,
                                                 const int32_t* map, const int32_t* index, const float* weight, void* y,
                                                 float* wsum, void* stream);
}
