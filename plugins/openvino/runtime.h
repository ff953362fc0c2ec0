// What the three ops share on OpenVINO's side. Failures are OpenVINO's exceptions here: they cross no C interface.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>

#include <openvino/op/op.hpp>

#include "kernels/common/op_params.h"
#include "kernels/cpu/parallel.h"

namespace tmdeploy::ov_ext {

// Types whose values the kernels read as they are.
bool is_data_type(const ov::element::Type& type);
Dtype dtype_of(const ov::element::Type& type);

// The threads of the arena that evaluate() was called in: OpenVINO's own.
cpu::ParallelFor parallel();

// Memory that a thread keeps from call to call. Moved out while it is used: a thread that waits for others may be given
// another call to run.
class Scratch {
 public:
  explicit Scratch(std::size_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  void* get() const { return memory_.data.get(); }

 private:
  struct Memory {
    std::unique_ptr<std::byte[]> data;
    std::size_t size = 0;
  };
  static Memory& kept();
  Memory memory_;
};

// The position of `value` among `values`; throws where it is none of them.
std::int32_t choice(const ov::Node& op, const char* name, const std::string& value, const char* const* values,
                    std::size_t count);

// Shows a visitor the op's attributes as ONNX has them, and takes over what it sets; throws where that is no value.
template <class Attributes>
void visit(const ov::Node& op, ov::AttributeVisitor& visitor, Attributes& attributes) {
  Attributes::each(attributes, [&](const char* name, auto& value) {
    using Value = std::decay_t<decltype(value)>;
    if constexpr (std::is_enum_v<Value>) {
      std::string text = spelling(value);
      visitor.on_attribute(name, text);
      value = static_cast<Value>(choice(op, name, text, Spelling<Value>::kAll, choice_count<Value>()));
    } else if constexpr (std::is_same_v<Value, bool>) {
      std::int64_t number = value ? 1 : 0;
      visitor.on_attribute(name, number);
      value = number != 0;
    } else {
      visitor.on_attribute(name, value);
    }
  });
}

// The shape of an input, or `rank` unknown dimensions; throws where it has another rank.
ov::PartialShape shape_of(const ov::Node& op, std::size_t input, std::size_t rank, const char* name);

// Throws where the input is no number of the kind.
void check_data(const ov::Node& op, std::size_t input, const char* name);
void check_integers(const ov::Node& op, std::size_t input, const char* name);

// Throws `text` as the op's own failure where there is one.
void check(const ov::Node& op, const char* text);

std::int64_t dim(const ov::Tensor& tensor, std::size_t axis);

}  // namespace tmdeploy::ov_ext
