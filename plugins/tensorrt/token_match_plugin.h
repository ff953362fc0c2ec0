// TokenMatch: metric [B, N, C], slots [M] -> map [B, N], index [B, M], sim [B, N]. The contents of slots are never read.
#pragma once

#include "../kernels/cuda/token_ops.h"
#include "token_plugin.h"

namespace tmdeploy::tensorrt {

struct TokenMatchOp {
  static constexpr const char* kName = "TokenMatch";

  MatchAttributes attributes;
  std::int32_t input_count = 2;

  explicit TokenMatchOp(const Fields& fields) : attributes(fields.attributes<MatchAttributes>()) {}

  static std::vector<Slot> inputs(std::int32_t count) {
    require(count == 2, "needs metric and slots");
    return {Slot::kData, Slot::kCount};
  }
  static std::vector<Slot> outputs() { return {Slot::kPlan, Slot::kPlan, Slot::kFloat}; }
  static std::int32_t same_type(std::int32_t /*output*/) { return -1; }

  void output_shapes(const DimsExprs* in, DimsExprs* out) const {
    require(in[0].nbDims == 3 && in[1].nbDims == 1, "a tensor has the wrong number of dimensions");
    const IDimensionExpr* second[] = {in[0].d[1], in[1].d[0], in[0].d[1]};
    for (int i = 0; i < 3; ++i) {
      out[i].nbDims = 2;
      out[i].d[0] = in[0].d[0];
      out[i].d[1] = second[i];
    }
  }

  MatchParams params(const nvinfer1::Dims& metric, std::int64_t slots) const {
    return {attributes, metric.d[0], metric.d[1], metric.d[2], slots};
  }

  std::size_t workspace(const DynamicPluginTensorDesc* in) const {
    require_rank(in[0].max, 3);
    return cuda::match_workspace(params(in[0].max, in[0].max.d[1]));  // it does not depend on the slots
  }

  void run(const PluginTensorDesc* in, const PluginTensorDesc* out, const void* const* inputs, void* const* outputs,
           void* workspace, cudaStream_t stream) const {
    require_rank(in[0].dims, 3);
    require_rank(in[1].dims, 1);
    const MatchParams p = params(in[0].dims, in[1].dims.d[0]);
    require(same_dims(out[0].dims, {p.batch, p.tokens}) && same_dims(out[1].dims, {p.batch, p.slots}) &&
                same_dims(out[2].dims, {p.batch, p.tokens}),
            "an output has the wrong shape");
    require(out[0].type == DataType::kINT32 && out[1].type == DataType::kINT32 && out[2].type == DataType::kFLOAT,
            "an output has the wrong type");
    require_memory(in, inputs, 1);
    require_memory(out, outputs, 3);
    const char* problem = cuda::token_match(
        p, element_type(in[0].type), inputs[0], static_cast<std::int32_t*>(outputs[0]),
        static_cast<std::int32_t*>(outputs[1]), static_cast<float*>(outputs[2]), workspace,
        workspace == nullptr ? 0 : cuda::match_workspace(p), stream);
    if (problem != nullptr) throw PluginError(problem);
  }
};

}  // namespace tmdeploy::tensorrt
