// TokenReduce: x [B, N, F], map [B, N], index [B, M] and, where there is one, weight [B, N] -> y [B, M, F], wsum [B, M].
#pragma once

#include "../kernels/cuda/token_ops.h"
#include "token_plugin.h"

namespace tmdeploy::tensorrt {

struct TokenReduceOp {
  static constexpr const char* kName = "TokenReduce";

  ReduceAttributes attributes;
  // enqueue is not told how many inputs there are: known from configuration, and serialised
  std::int32_t input_count;

  explicit TokenReduceOp(const Fields& fields)
      : attributes(fields.attributes<ReduceAttributes>()),
        input_count(static_cast<std::int32_t>(fields.integer("input_count", 3))) {
    static_cast<void>(inputs(input_count));
  }

  static std::vector<Slot> inputs(std::int32_t count) {
    require(count == 3 || count == 4, "needs x, map, index and perhaps weight");
    std::vector<Slot> slots = {Slot::kData, Slot::kPlan, Slot::kPlan};
    if (count == 4) slots.push_back(Slot::kFloat);
    return slots;
  }
  static std::vector<Slot> outputs() { return {Slot::kData, Slot::kFloat}; }
  static std::int32_t same_type(std::int32_t output) { return output == 0 ? 0 : -1; }

  void output_shapes(const DimsExprs* in, DimsExprs* out) const {
    require(in[0].nbDims == 3 && in[1].nbDims == 2 && in[2].nbDims == 2,
            "a tensor has the wrong number of dimensions");
    out[0].nbDims = 3;
    out[0].d[0] = in[0].d[0];
    out[0].d[1] = in[2].d[1];
    out[0].d[2] = in[0].d[2];
    out[1].nbDims = 2;
    out[1].d[0] = in[0].d[0];
    out[1].d[1] = in[2].d[1];
  }

  static std::size_t workspace(const DynamicPluginTensorDesc* /*in*/) { return 0; }

  void run(const PluginTensorDesc* in, const PluginTensorDesc* out, const void* const* inputs, void* const* outputs,
           void* /*workspace*/, cudaStream_t stream) const {
    require_rank(in[0].dims, 3);
    require_rank(in[2].dims, 2);
    const ReduceParams p{attributes, in[0].dims.d[0], in[0].dims.d[1], in[2].dims.d[1], in[0].dims.d[2]};
    require(same_dims(in[1].dims, {p.batch, p.tokens}), "map does not fit x");
    require(in[2].dims.d[0] == p.batch, "index does not fit x");
    require(in[1].type == DataType::kINT32 && in[2].type == DataType::kINT32, "a plan must be int32");
    const bool weighted = input_count == 4;
    if (weighted)
      require(same_dims(in[3].dims, {p.batch, p.tokens}) && in[3].type == DataType::kFLOAT, "weight does not fit x");
    require(same_dims(out[0].dims, {p.batch, p.slots, p.features}) && same_dims(out[1].dims, {p.batch, p.slots}),
            "an output has the wrong shape");
    require(out[0].type == in[0].type && out[1].type == DataType::kFLOAT, "an output has the wrong type");
    require_memory(in, inputs, input_count);
    require_memory(out, outputs, 2);
    const char* problem = cuda::token_reduce(
        p, element_type(in[0].type), inputs[0], static_cast<const std::int32_t*>(inputs[1]),
        static_cast<const std::int32_t*>(inputs[2]), weighted ? static_cast<const float*>(inputs[3]) : nullptr,
        outputs[0], static_cast<float*>(outputs[1]), stream);
    if (problem != nullptr) throw PluginError(problem);
  }
};

}  // namespace tmdeploy::tensorrt
