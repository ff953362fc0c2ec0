#include "c_api.h"

#include "token_ops.h"

namespace {

constexpr const char* kUnknown = "an unknown attribute value";

tmdeploy::MatchParams match_params(const int64_t dims[4]) { return {{}, dims[0], dims[1], dims[2], dims[3]}; }

}  // namespace

size_t tmdeploy_cuda_match_workspace(const int64_t dims[4], const double* attributes) {
  tmdeploy::MatchParams p = match_params(dims);
  return tmdeploy::read_codes<tmdeploy::MatchAttributes>(attributes, p) ? tmdeploy::cuda::match_workspace(p) : 0;
}

const char* tmdeploy_cuda_match(const int64_t dims[4], const double* attributes, int32_t dtype, const void* metric,
                                int32_t* map, int32_t* index, float* sim, void* workspace, size_t workspace_bytes,
                                void* stream) {
  tmdeploy::MatchParams p = match_params(dims);
  if (!tmdeploy::read_codes<tmdeploy::MatchAttributes>(attributes, p)) return kUnknown;
  return tmdeploy::cuda::token_match(p, static_cast<tmdeploy::Dtype>(dtype), metric, map, index, sim, workspace,
                                     workspace_bytes, static_cast<cudaStream_t>(stream));
}

const char* tmdeploy_cuda_select(const int64_t dims[5], const double* attributes, int32_t score_dtype,
                                 int32_t metric_dtype, const void* score, const void* metric, int32_t* map,
                                 int32_t* index, float* sim, int32_t* count, void* stream) {
  tmdeploy::SelectParams p{{}, dims[0], dims[1], dims[2], dims[3], dims[4]};
  if (!tmdeploy::read_codes<tmdeploy::SelectAttributes>(attributes, p)) return kUnknown;
  return tmdeploy::cuda::token_select(p, static_cast<tmdeploy::Dtype>(score_dtype), score,
                                      static_cast<tmdeploy::Dtype>(metric_dtype), metric, map, index, sim, count,
                                      static_cast<cudaStream_t>(stream));
}

const char* tmdeploy_cuda_reduce(const int64_t dims[4], const double* attributes, int32_t dtype, const void* x,
                                 const int32_t* map, const int32_t* index, const float* weight, void* y, float* wsum,
                                 void* stream) {
  tmdeploy::ReduceParams p{{}, dims[0], dims[1], dims[2], dims[3]};
  if (!tmdeploy::read_codes<tmdeploy::ReduceAttributes>(attributes, p)) return kUnknown;
  return tmdeploy::cuda::token_reduce(p, static_cast<tmdeploy::Dtype>(dtype), x, map, index, weight, y, wsum,
                                      static_cast<cudaStream_t>(stream));
}
