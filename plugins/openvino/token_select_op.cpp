#include "kernels/cpu/token_ops.h"
#include "openvino/runtime.h"
#include "openvino/token_ops.h"

namespace tmdeploy::ov_ext {
void TokenSelect::validate_and_infer_types() {
  const std::size_t least = fuses() ? 3 : 2;
  const bool kept_or_not = get_input_size() == least || get_input_size() == least + 1;
  const bool kept_as_metric = kept_or_not && has_metric() && get_input_element_type(2).is_integral_number();
  NODE_VALIDATION_CHECK(this, kept_or_not && !kept_as_metric, "takes score, slots, ",
                        fuses() ? "perhaps metric, and kept" : "and perhaps metric",
                        ": input kept belongs to leftover = fuse, and only to it");
  check_data(*this, 0, "score");
  check_integers(*this, 1, "slots");
  const ov::PartialShape score = shape_of(*this, 0, 2, "score");
  const ov::PartialShape slots = shape_of(*this, 1, 1, "slots");
  if (has_metric()) {
    check_data(*this, 2, "metric");
    shape_of(*this, 2, 3, "metric");
  }
  if (fuses()) {
    check_integers(*this, get_input_size() - 1, "kept");
    shape_of(*this, get_input_size() - 1, 1, "kept");
  }
  set_output_size(4);
  set_output_type(0, ov::element::i32, {score[0], score[1]});
  set_output_type(1, ov::element::i32, {score[0], slots[0]});
  set_output_type(2, ov::element::f32, {score[0], score[1]});
  set_output_type(3, ov::element::i32, {score[0]});
}

std::shared_ptr<ov::Node> TokenSelect::clone_with_new_inputs(const ov::OutputVector& inputs) const {
  auto made = std::make_shared<TokenSelect>(inputs);
  made->attributes_ = attributes_;
  made->constructor_validate_and_infer_types();
  return made;
}

bool TokenSelect::visit_attributes(ov::AttributeVisitor& visitor) {
  visit(*this, visitor, attributes_);
  return true;
}

bool TokenSelect::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
  const ov::Tensor& score = inputs[0];
  const ov::Tensor* const metric = has_metric() ? &inputs[2] : nullptr;
  const SelectParams params{attributes_,       dim(score, 0),
                            dim(score, 1),     metric != nullptr ? dim(*metric, 2) : 0,
                            dim(inputs[1], 0), fuses() ? dim(inputs.back(), 0) : dim(inputs[1], 0)};
  const char* wrong = problem(params);
  if (metric != nullptr && (dim(*metric, 0) != params.batch || dim(*metric, 1) != params.tokens)) {
    wrong = "metric and score differ in images or tokens";
  }
  if (wrong != nullptr) {
    NODE_VALIDATION_CHECK(this, false, wrong, ": score ", score.get_shape(), ", ", params.slots, " slots, ",
                          params.kept, " kept, num_prefix ", params.num_prefix);
  }
  const ov::Shape per_token = score.get_shape();
  outputs[0].set_shape(per_token);
  outputs[1].set_shape({per_token[0], inputs[1].get_shape()[0]});
  outputs[2].set_shape(per_token);
  outputs[3].set_shape({per_token[0]});
  const cpu::Plan plan{outputs[0].data<std::int32_t>(), outputs[1].data<std::int32_t>(), outputs[2].data<float>()};
  const cpu::ParallelFor threads = parallel();
  const Scratch scratch(cpu::select_scratch(params, threads));
  const Dtype metric_type = metric != nullptr ? dtype_of(metric->get_element_type()) : Dtype::kFloat32;
  check(*this, cpu::token_select(params, score.data(), dtype_of(score.get_element_type()),
                                 metric != nullptr ? metric->data() : nullptr, metric_type, plan,
                                 outputs[3].data<std::int32_t>(), scratch.get(), threads));
  return true;
}

}  // namespace tmdeploy::ov_ext
