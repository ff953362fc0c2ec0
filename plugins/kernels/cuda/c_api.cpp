#include "c_api.h"

#include "token_ops.h"

namespace {

tmdeploy::MatchParams match_params(const int64_t dims[5]) {
  tmdeploy::MatchParams p{};
  p.batch = dims[0];
  p.tokens = dims[1];
  p.channels = dims[2];
  p.slots = dims[3];
  p.num_prefix = dims[4];
  return p;
}

}  // namespace

size_t tmdeploy_cuda_match_workspace(const int64_t dims[5]) {
  return tmdeploy::cuda::match_workspace(match_params(dims));
}

const char* tmdeploy_cuda_match(const int64_t dims[5], const int32_t attributes[3], float metric_eps,
                                const void* metric, int32_t* map, int32_t* index, float* sim, void* workspace,
                                size_t workspace_bytes, void* stream) {
  tmdeploy::MatchParams p = match_params(dims);
  p.order = static_cast<tmdeploy::MatchOrder>(attributes[1]);
  p.deterministic = attributes[2] != 0;
  p.metric_eps = metric_eps;
  return tmdeploy::cuda::token_match(p, static_cast<tmdeploy::Dtype>(attributes[0]), metric, map, index, sim, workspace,
                                     workspace_bytes, static_cast<cudaStream_t>(stream));
}

const char* tmdeploy_cuda_select(const int64_t dims[6], const int32_t attributes[5], float metric_eps,
                                 const void* score, const void* metric, int32_t* map, int32_t* index, float* sim,
                                 int32_t* count, void* stream) {
  tmdeploy::SelectParams p{};
  p.batch = dims[0];
  p.tokens = dims[1];
  p.channels = dims[2];
  p.slots = dims[3];
  p.kept = dims[4];
  p.num_prefix = dims[5];
  p.leftover = static_cast<tmdeploy::Leftover>(attributes[2]);
  p.order = static_cast<tmdeploy::SelectOrder>(attributes[3]);
  p.deterministic = attributes[4] != 0;
  p.metric_eps = metric_eps;
  return tmdeploy::cuda::token_select(p, static_cast<tmdeploy::Dtype>(attributes[0]), score,
                                      static_cast<tmdeploy::Dtype>(attributes[1]), metric, map, index, sim, count,
                                      static_cast<cudaStream_t>(stream));
}

const char* tmdeploy_cuda_reduce(const int64_t dims[4], const int32_t attributes[2], const void* x, const int32_t* map,
                                 const int32_t* index, const float* weight, void* y, float* wsum, void* stream) {
  tmdeploy::ReduceParams p{};
  p.batch = dims[0];
  p.tokens = dims[1];
  p.slots = dims[2];
  p.features = dims[3];
  p.mode = static_cast<tmdeploy::ReduceMode>(attributes[1]);
  return tmdeploy::cuda::token_reduce(p, static_cast<tmdeploy::Dtype>(attributes[0]), x, map, index, weight, y, wsum,
                                      static_cast<cudaStream_t>(stream));
}
