// The entry point that OpenVINO looks for in an extension library: the ops themselves, for OpenVINO's own format, and
// their conversion from ONNX.
#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/frontend/onnx/extension/conversion.hpp>

#include "openvino/token_ops.h"

namespace tmdeploy::ov_ext {
namespace {

// Hands the node's attributes to visit_attributes, which knows their names and defaults.
class Attributes : public ov::AttributeVisitor {
 public:
  explicit Attributes(const ov::frontend::NodeContext& node) : node_(node) {}

  void on_adapter(const std::string& name, ov::ValueAccessor<void>&) override {
    OPENVINO_THROW("tmdeploy: attribute ", name, " is of a type that no op here has");
  }
  void on_adapter(const std::string& name, ov::ValueAccessor<std::string>& adapter) override { read(name, adapter); }
  void on_adapter(const std::string& name, ov::ValueAccessor<std::int64_t>& adapter) override { read(name, adapter); }
  void on_adapter(const std::string& name, ov::ValueAccessor<double>& adapter) override {
    adapter.set(static_cast<double>(node_.get_attribute<float>(name, static_cast<float>(adapter.get()))));
  }

 private:
  template <class T>
  void read(const std::string& name, ov::ValueAccessor<T>& adapter) {
    adapter.set(node_.get_attribute<T>(name, adapter.get()));
  }

  const ov::frontend::NodeContext& node_;
};

// A node without an optional input names nothing there, which the frontend turns into an output of its NullNode.
bool is_given(const ov::Output<ov::Node>& input) {
  return input.get_node()->get_type_info().name != std::string("NullNode");
}

template <class Op>
ov::OutputVector convert(const ov::frontend::NodeContext& node) {
  ov::OutputVector inputs;
  for (std::size_t i = 0; i < node.get_input_size(); ++i) {
    const ov::Output<ov::Node> input = node.get_input(static_cast<int>(i));
    if (is_given(input)) inputs.push_back(input);
  }
  const auto op = std::make_shared<Op>(inputs);
  Attributes attributes(node);
  op->visit_attributes(attributes);
  op->constructor_validate_and_infer_types();
  return op->outputs();
}

template <class Op>
ov::Extension::Ptr from_onnx() {
  const ov::DiscreteTypeInfo& type = Op::get_type_info_static();
  return std::make_shared<ov::frontend::onnx::ConversionExtension>(type.name, kDomain, convert<Op>);
}

std::vector<ov::Extension::Ptr> extensions() {
  return {std::make_shared<ov::OpExtension<TokenMatch>>(),
          std::make_shared<ov::OpExtension<TokenSelect>>(),
          std::make_shared<ov::OpExtension<TokenReduce>>(),
          from_onnx<TokenMatch>(),
          from_onnx<TokenSelect>(),
          from_onnx<TokenReduce>()};
}

}  // namespace
}  // namespace tmdeploy::ov_ext

OPENVINO_CREATE_EXTENSIONS(tmdeploy::ov_ext::extensions())
