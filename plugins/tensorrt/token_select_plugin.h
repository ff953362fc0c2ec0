// TokenSelect: score [B, N], slots [M] and one more where `leftover` needs it -> map [B, N], index [B, M], sim [B, N],
// count [B]. TensorRT has no optional inputs: with leftover = nearest the last input is metric [B, N, C], with fuse it is
// kept [K], and the gap that ONNX has between them is closed.
#pragma once

#include "../kernels/cuda/token_ops.h"
#include "token_plugin.h"

namespace tmdeploy::tensorrt {

struct TokenSelectOp {
  static constexpr const char* kName = "TokenSelect";

  SelectAttributes attributes;
  std::int32_t input_count;

  explicit TokenSelectOp(const Fields& fields)
      : attributes(fields.attributes<SelectAttributes>()), input_count(leaves(Leftover::kDrop) ? 2 : 3) {}

  bool leaves(Leftover leftover) const { return attributes.leftover == leftover; }
  std::vector<Slot> inputs(std::int32_t count) const {
    std::vector<Slot> slots = {Slot::kData, Slot::kCount};
    if (leaves(Leftover::kNearest)) slots.push_back(Slot::kData);
    if (leaves(Leftover::kFuse)) slots.push_back(Slot::kCount);
    require(count == static_cast<std::int32_t>(slots.size()),
            "needs score, slots, and metric (leftover = nearest) or kept (fuse)");
    return slots;
  }
  static std::vector<Slot> outputs() { return {Slot::kPlan, Slot::kPlan, Slot::kFloat, Slot::kPlan}; }
  static std::int32_t same_type(std::int32_t /*output*/) { return -1; }

  void output_shapes(const DimsExprs* in, DimsExprs* out) const {
    require(in[0].nbDims == 2 && in[1].nbDims == 1, "a tensor has the wrong number of dimensions");
    if (!leaves(Leftover::kDrop))
      require(in[2].nbDims == (leaves(Leftover::kNearest) ? 3 : 1),
              "the last input has the wrong number of dimensions");
    const IDimensionExpr* second[] = {in[0].d[1], in[1].d[0], in[0].d[1], nullptr};
    for (int i = 0; i < 4; ++i) {
      out[i].nbDims = i < 3 ? 2 : 1;
      out[i].d[0] = in[0].d[0];
      out[i].d[1] = second[i];
    }
  }

  static std::size_t workspace(const DynamicPluginTensorDesc* /*in*/) { return 0; }

  void run(const PluginTensorDesc* in, const PluginTensorDesc* out, const void* const* inputs, void* const* outputs,
           void* /*workspace*/, cudaStream_t stream) const {
    require_rank(in[0].dims, 2);
    require_rank(in[1].dims, 1);
    const bool nearest = leaves(Leftover::kNearest);
    SelectParams p{attributes, in[0].dims.d[0], in[0].dims.d[1], 0, in[1].dims.d[0], in[1].dims.d[0]};
    if (nearest) {
      require(in[2].dims.nbDims == 3 && in[2].dims.d[0] == p.batch && in[2].dims.d[1] == p.tokens,
              "metric does not fit score");
      p.channels = in[2].dims.d[2];
    } else if (leaves(Leftover::kFuse)) {
      require_rank(in[2].dims, 1);
      p.kept = in[2].dims.d[0];
    }
    require(same_dims(out[0].dims, {p.batch, p.tokens}) && same_dims(out[1].dims, {p.batch, p.slots}) &&
                same_dims(out[2].dims, {p.batch, p.tokens}) && same_dims(out[3].dims, {p.batch}),
            "an output has the wrong shape");
    require(out[0].type == DataType::kINT32 && out[1].type == DataType::kINT32 && out[2].type == DataType::kFLOAT &&
                out[3].type == DataType::kINT32,
            "an output has the wrong type");
    require_memory(in, inputs, 1);
    if (nearest) require_memory(in + 2, inputs + 2, 1);
    require_memory(out, outputs, 4);
    const char* problem = cuda::token_select(
        p, element_type(in[0].type), inputs[0], nearest ? element_type(in[2].type) : Dtype::kFloat32,
        nearest ? inputs[2] : nullptr, static_cast<std::int32_t*>(outputs[0]), static_cast<std::int32_t*>(outputs[1]),
        static_cast<float*>(outputs[2]), static_cast<std::int32_t*>(outputs[3]), stream);
    if (problem != nullptr) throw PluginError(problem);
  }
};

}  // namespace tmdeploy::tensorrt
