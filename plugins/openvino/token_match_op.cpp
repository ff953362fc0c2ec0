#include "kernels/cpu/token_ops.h"
#include "openvino/runtime.h"
#include "openvino/token_ops.h"

namespace tmdeploy::ov_ext {
void TokenMatch::validate_and_infer_types() {
  NODE_VALIDATION_CHECK(this, get_input_size() == 2, "takes metric and slots, not ", get_input_size(), " inputs");
  check_data(*this, 0, "metric");
  check_integers(*this, 1, "slots");
  const ov::PartialShape metric = shape_of(*this, 0, 3, "metric");
  const ov::PartialShape slots = shape_of(*this, 1, 1, "slots");
  set_output_size(3);
  set_output_type(0, ov::element::i32, {metric[0], metric[1]});
  set_output_type(1, ov::element::i32, {metric[0], slots[0]});
  set_output_type(2, ov::element::f32, {metric[0], metric[1]});
}

std::shared_ptr<ov::Node> TokenMatch::clone_with_new_inputs(const ov::OutputVector& inputs) const {
  auto made = std::make_shared<TokenMatch>(inputs);
  made->attributes_ = attributes_;
  made->constructor_validate_and_infer_types();
  return made;
}

bool TokenMatch::visit_attributes(ov::AttributeVisitor& visitor) {
  visit(*this, visitor, attributes_);
  return true;
}

bool TokenMatch::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
  const ov::Tensor& metric = inputs[0];
  const MatchParams params{attributes_, dim(metric, 0), dim(metric, 1), dim(metric, 2), dim(inputs[1], 0)};
  if (const char* wrong = problem(params)) {
    NODE_VALIDATION_CHECK(this, false, wrong, ": metric ", metric.get_shape(), ", ", params.slots,
                          " slots, num_prefix ", params.num_prefix);
  }
  const ov::Shape per_token{metric.get_shape()[0], metric.get_shape()[1]};
  outputs[0].set_shape(per_token);
  outputs[1].set_shape({per_token[0], inputs[1].get_shape()[0]});
  outputs[2].set_shape(per_token);
  const cpu::Plan plan{outputs[0].data<std::int32_t>(), outputs[1].data<std::int32_t>(), outputs[2].data<float>()};
  const cpu::ParallelFor threads = parallel();
  const Scratch scratch(cpu::match_scratch(params, threads));
  check(*this, cpu::token_match(params, metric.data(), dtype_of(metric.get_element_type()), plan, scratch.get(),
                                threads));
  return true;
}

}  // namespace tmdeploy::ov_ext
