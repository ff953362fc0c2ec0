// The ops of the domain `tmdeploy` (docs/ops.md) as OpenVINO's. Counts travel as the length of `slots`, so shapes are
// known wherever that length is; slots and kept may be of any integer type, for the CPU plugin turns int64 into int32.
#pragma once

#include <memory>

#include <openvino/op/op.hpp>

#include "kernels/common/op_attributes.h"

namespace tmdeploy::ov_ext {

// (metric, slots) -> map, index, sim
class TokenMatch : public ov::op::Op {
 public:
  OPENVINO_OP("TokenMatch", kDomain)

  TokenMatch() = default;
  explicit TokenMatch(const ov::OutputVector& inputs) : Op(inputs) {}

  void validate_and_infer_types() override;
  std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
  bool visit_attributes(ov::AttributeVisitor& visitor) override;
  bool has_evaluate() const override { return true; }
  bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

 private:
  MatchAttributes attributes_;
};

// (score, slots[, metric][, kept]) -> map, index, sim, count. Inputs that are not given leave no gap: kept is there
// where the leftover is fused, and the last then.
class TokenSelect : public ov::op::Op {
 public:
  OPENVINO_OP("TokenSelect", kDomain)

  TokenSelect() = default;
  explicit TokenSelect(const ov::OutputVector& inputs) : Op(inputs) {}

  void validate_and_infer_types() override;
  std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
  bool visit_attributes(ov::AttributeVisitor& visitor) override;
  bool has_evaluate() const override { return true; }
  bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

 private:
  bool fuses() const { return attributes_.leftover == Leftover::kFuse; }
  bool has_metric() const { return get_input_size() > (fuses() ? 3U : 2U); }

  SelectAttributes attributes_;
};

// (x, map, index[, weight]) -> y, wsum
class TokenReduce : public ov::op::Op {
 public:
  OPENVINO_OP("TokenReduce", kDomain)

  TokenReduce() = default;
  explicit TokenReduce(const ov::OutputVector& inputs) : Op(inputs) {}

  void validate_and_infer_types() override;
  std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
  bool visit_attributes(ov::AttributeVisitor& visitor) override;
  bool has_evaluate() const override { return true; }
  bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

 private:
  ReduceAttributes attributes_;
};

}  // namespace tmdeploy::ov_ext
