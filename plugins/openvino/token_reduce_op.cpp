#include "kernels/cpu/token_ops.h"
#include "openvino/runtime.h"
#include "openvino/token_ops.h"

namespace tmdeploy::ov_ext {
namespace {

void check_type(const ov::Node& op, std::size_t input, const ov::element::Type& wanted, const char* name) {
  const ov::element::Type& type = op.get_input_element_type(input);
  NODE_VALIDATION_CHECK(&op, type.compatible(wanted), name, " is of type ", type, ", not ", wanted);
}

}  // namespace

void TokenReduce::validate_and_infer_types() {
  NODE_VALIDATION_CHECK(this, get_input_size() == 3 || get_input_size() == 4,
                        "takes x, map, index and perhaps weight, not ", get_input_size(), " inputs");
  check_data(*this, 0, "x");
  check_type(*this, 1, ov::element::i32, "map");
  check_type(*this, 2, ov::element::i32, "index");
  const ov::PartialShape x = shape_of(*this, 0, 3, "x");
  const ov::PartialShape index = shape_of(*this, 2, 2, "index");
  shape_of(*this, 1, 2, "map");
  if (get_input_size() == 4) {
    check_type(*this, 3, ov::element::f32, "weight");
    shape_of(*this, 3, 2, "weight");
  }
  set_output_size(2);
  set_output_type(0, get_input_element_type(0), {x[0], index[1], x[2]});
  set_output_type(1, ov::element::f32, {x[0], index[1]});
}

std::shared_ptr<ov::Node> TokenReduce::clone_with_new_inputs(const ov::OutputVector& inputs) const {
  auto made = std::make_shared<TokenReduce>(inputs);
  made->attributes_ = attributes_;
  made->constructor_validate_and_infer_types();
  return made;
}

bool TokenReduce::visit_attributes(ov::AttributeVisitor& visitor) {
  visit(*this, visitor, attributes_);
  return true;
}

bool TokenReduce::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
  const ov::Tensor& x = inputs[0];
  const ov::Tensor& map = inputs[1];
  const ov::Tensor& index = inputs[2];
  const ov::Tensor* const weight = inputs.size() > 3 ? &inputs[3] : nullptr;
  const ReduceParams params{attributes_, dim(x, 0), dim(x, 1), dim(index, 1), dim(x, 2)};
  const ov::Shape per_token{x.get_shape()[0], x.get_shape()[1]};
  NODE_VALIDATION_CHECK(
      this,
      map.get_shape() == per_token && index.get_shape()[0] == per_token[0] &&
          (weight == nullptr || weight->get_shape() == per_token),
      "shapes do not fit: x ", x.get_shape(), ", map ", map.get_shape(), ", index ", index.get_shape(), ", weight ",
      weight != nullptr ? weight->get_shape() : per_token);
  outputs[0].set_shape({per_token[0], index.get_shape()[1], x.get_shape()[2]});
  outputs[1].set_shape(index.get_shape());
  const cpu::ParallelFor threads = parallel();
  const Scratch scratch(cpu::reduce_scratch(params, threads));
  check(*this, cpu::token_reduce(params, x.data(), dtype_of(x.get_element_type()), map.data<const std::int32_t>(),
                                 index.data<const std::int32_t>(),
                                 weight != nullptr ? weight->data<const float>() : nullptr, outputs[0].data(),
                                 outputs[1].data<float>(), scratch.get(), threads));
  return true;
}

}  // namespace tmdeploy::ov_ext
