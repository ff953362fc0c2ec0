// The kernels of the CPU provider: scratch from the session's arena, work on the session's threads.
#pragma once

#include "kernels/cpu/token_ops.h"
#include "onnxruntime/runtime.h"

namespace tmdeploy::ort {

class CpuDevice {
 public:
  static constexpr const char* kProvider = nullptr;  // what ONNX Runtime calls the CPU here

  CpuDevice() = default;
  CpuDevice(const CpuDevice&) = delete;
  CpuDevice& operator=(const CpuDevice&) = delete;
  ~CpuDevice() {
    if (allocator_ != nullptr) api().ReleaseAllocator(allocator_);
  }

  OrtStatusPtr init(const OrtKernelInfo* info) {
    return api().KernelInfoGetAllocator(info, OrtMemTypeDefault, &allocator_);
  }

  OrtStatusPtr match(OrtKernelContext* context, const MatchParams& params, const Tensor& metric,
                     const cpu::Plan& plan) const {
    const cpu::ParallelFor parallel = parallel_of(context);
    Scratch scratch(allocator_);
    TMDEPLOY_RETURN_IF_ERROR(scratch.reserve(cpu::match_scratch(params, parallel)));
    return refusal("TokenMatch", cpu::token_match(params, metric.data, dtype_of(metric.type), plan, scratch.get(),
                                                  parallel));
  }

  OrtStatusPtr select(OrtKernelContext* context, const SelectParams& params, const Tensor& score, const Tensor& metric,
                      const cpu::Plan& plan, std::int32_t* count) const {
    const cpu::ParallelFor parallel = parallel_of(context);
    Scratch scratch(allocator_);
    TMDEPLOY_RETURN_IF_ERROR(scratch.reserve(cpu::select_scratch(params, parallel)));
    return refusal("TokenSelect", cpu::token_select(params, score.data, dtype_of(score.type), metric.data,
                                                    dtype_of(metric.type), plan, count, scratch.get(), parallel));
  }

  OrtStatusPtr reduce(OrtKernelContext* context, const ReduceParams& params, const Tensor& x, const std::int32_t* map,
                      const std::int32_t* index, const float* weight, void* y, float* wsum) const {
    const cpu::ParallelFor parallel = parallel_of(context);
    Scratch scratch(allocator_);
    TMDEPLOY_RETURN_IF_ERROR(scratch.reserve(cpu::reduce_scratch(params, parallel)));
    return refusal("TokenReduce", cpu::token_reduce(params, x.data, dtype_of(x.type), map, index, weight, y, wsum,
                                                    scratch.get(), parallel));
  }

 private:
  OrtAllocator* allocator_ = nullptr;
};

}  // namespace tmdeploy::ort
