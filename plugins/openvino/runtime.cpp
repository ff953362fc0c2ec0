#include "openvino/runtime.h"

#include <cstring>
#include <utility>

#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

namespace tmdeploy::ov_ext {

bool is_data_type(const ov::element::Type& type) {
  return type == ov::element::f32 || type == ov::element::f16 || type == ov::element::bf16;
}

Dtype dtype_of(const ov::element::Type& type) {
  if (type == ov::element::f16) return Dtype::kFloat16;
  if (type == ov::element::bf16) return Dtype::kBFloat16;
  return Dtype::kFloat32;
}

cpu::ParallelFor parallel() {
  const auto run = [](void*, std::int64_t count, cpu::ParallelFor::Task task, void* data) {
    tbb::parallel_for(std::int64_t{0}, count, [task, data](std::int64_t i) { task(data, i); });
  };
  const std::int64_t width = tbb::this_task_arena::max_concurrency();
  return width > 1 ? cpu::ParallelFor(nullptr, run, width) : cpu::ParallelFor();
}

Scratch::Memory& Scratch::kept() {
  static thread_local Memory memory;
  return memory;
}

Scratch::Scratch(std::size_t bytes) : memory_(std::move(kept())) {
  if (memory_.data == nullptr || memory_.size < bytes) memory_ = {std::unique_ptr<std::byte[]>(new std::byte[bytes]), bytes};
}

Scratch::~Scratch() { kept() = std::move(memory_); }

std::int32_t choice(const ov::Node& op, const char* name, const std::string& value, const char* const* values,
                    std::size_t count) {
  for (std::size_t position = 0; position < count; ++position) {
    if (value == values[position]) return static_cast<std::int32_t>(position);
  }
  NODE_VALIDATION_CHECK(&op, false, "unknown ", name, " '", value, "'");
}

ov::PartialShape shape_of(const ov::Node& op, std::size_t input, std::size_t rank, const char* name) {
  const ov::PartialShape& shape = op.get_input_partial_shape(input);
  if (shape.rank().is_dynamic()) return ov::PartialShape::dynamic(static_cast<std::int64_t>(rank));
  NODE_VALIDATION_CHECK(&op, shape.size() == rank, name, " has ", shape.size(), " dimensions, not ", rank);
  return shape;
}

void check_data(const ov::Node& op, std::size_t input, const char* name) {
  const ov::element::Type& type = op.get_input_element_type(input);
  NODE_VALIDATION_CHECK(&op, type.is_dynamic() || is_data_type(type), name, " is of type ", type,
                        ", not f32, f16 or bf16");
}

void check_integers(const ov::Node& op, std::size_t input, const char* name) {
  const ov::element::Type& type = op.get_input_element_type(input);
  NODE_VALIDATION_CHECK(&op, type.is_dynamic() || type.is_integral_number(), name, " is of type ", type,
                        ", not integers");
}

void check(const ov::Node& op, const char* text) { NODE_VALIDATION_CHECK(&op, text == nullptr, text); }

std::int64_t dim(const ov::Tensor& tensor, std::size_t axis) {
  return static_cast<std::int64_t>(tensor.get_shape().at(axis));
}

}  // namespace tmdeploy::ov_ext
