// The kernels of the CUDA provider: launched on the stream ONNX Runtime computes on; nothing waits, copies, allocates.
#pragma once

#include "kernels/cpu/token_ops.h"
#include "kernels/cuda/token_ops.h"
#include "onnxruntime/runtime.h"

namespace tmdeploy::ort {

class CudaDevice {
 public:
  static constexpr const char* kProvider = "CUDAExecutionProvider";

  OrtStatusPtr init(const OrtKernelInfo*) { return nullptr; }

  OrtStatusPtr match(OrtKernelContext* context, const MatchParams& params, const Tensor& metric,
                     const cpu::Plan& plan) const {
    cudaStream_t stream = nullptr;
    TMDEPLOY_RETURN_IF_ERROR(stream_of(context, stream));
    // No workspace: memory of the arena, given back here, could go to another run's stream before the kernel is done.
    return refusal(kWhere, cuda::token_match(params, dtype_of(metric.type), metric.data, plan.map, plan.index, plan.sim,
                                             nullptr, 0, stream));
  }

  OrtStatusPtr select(OrtKernelContext* context, const SelectParams& params, const Tensor& score, const Tensor& metric,
                      const cpu::Plan& plan, std::int32_t* count) const {
    cudaStream_t stream = nullptr;
    TMDEPLOY_RETURN_IF_ERROR(stream_of(context, stream));
    return refusal(kWhere,
                   cuda::token_select(params, dtype_of(score.type), score.data, dtype_of(metric.type), metric.data,
                                      plan.map, plan.index, plan.sim, count, stream));
  }

  OrtStatusPtr reduce(OrtKernelContext* context, const ReduceParams& params, const Tensor& x, const std::int32_t* map,
                      const std::int32_t* index, const float* weight, void* y, float* wsum) const {
    cudaStream_t stream = nullptr;
    TMDEPLOY_RETURN_IF_ERROR(stream_of(context, stream));
    return refusal(kWhere,
                   cuda::token_reduce(params, dtype_of(x.type), x.data, map, index, weight, y, wsum, stream));
  }

 private:
  static constexpr const char* kWhere = "tmdeploy on CUDA";  // the launchers name the op themselves

  static OrtStatusPtr stream_of(const OrtKernelContext* context, cudaStream_t& stream) {
    void* raw = nullptr;
    TMDEPLOY_RETURN_IF_ERROR(api().KernelContext_GetGPUComputeStream(context, &raw));
    stream = static_cast<cudaStream_t>(raw);
    return nullptr;
  }
};

}  // namespace tmdeploy::ort
