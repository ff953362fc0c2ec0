// Attributes of a plugin: read from the fields TensorRT hands over, kept for serialisation.
//
// The parser passes an ONNX INT attribute as int32, FLOAT as float32, STRING as characters without a terminator, and leaves
// out what the node does not set; other front ends pass int64. A serialised plugin gets its own fields back.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <cstring>
#include <deque>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "../kernels/common/op_attributes.h"

namespace tmdeploy::tensorrt {

// Why a plugin cannot be made or run. Never leaves a plugin: TensorRT's interfaces are noexcept.
class PluginError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Reader of the fields; a null collection is an empty one.
class Fields {
 public:
  explicit Fields(const nvinfer1::PluginFieldCollection* collection) : collection_(collection) {}

  std::int64_t integer(const char* name, std::int64_t otherwise) const {
    const nvinfer1::PluginField* field = find(name);
    if (field == nullptr) return otherwise;
    if (field->data != nullptr && field->length == 1) {
      if (field->type == nvinfer1::PluginFieldType::kINT32) return read<std::int32_t>(*field);
      if (field->type == nvinfer1::PluginFieldType::kINT64) return read<std::int64_t>(*field);
    }
    throw PluginError(std::string(name) + " must be one integer");
  }

  float real(const char* name, float otherwise) const {
    const nvinfer1::PluginField* field = find(name);
    if (field == nullptr) return otherwise;
    if (field->data != nullptr && field->length == 1) {
      if (field->type == nvinfer1::PluginFieldType::kFLOAT32) return read<float>(*field);
      if (field->type == nvinfer1::PluginFieldType::kFLOAT64) return static_cast<float>(read<double>(*field));
    }
    throw PluginError(std::string(name) + " must be one number");
  }

  // All attributes of an op; a field that is missing leaves its default.
  template <class Attributes>
  Attributes attributes() const {
    Attributes out;
    Attributes::each(out, [&](const char* name, auto& value) { read(name, value); });
    return out;
  }

 private:
  void read(const char* name, float& value) const { value = real(name, value); }
  void read(const char* name, bool& value) const { value = integer(name, value ? 1 : 0) != 0; }
  void read(const char* name, std::int64_t& value) const {
    value = integer(name, value);
    if (value < 0) throw PluginError(std::string(name) + " is negative");
    if (value > std::numeric_limits<std::int32_t>::max()) throw PluginError(std::string(name) + " is too large");
  }

  template <class Choice>
  void read(const char* name, Choice& value) const {
    const nvinfer1::PluginField* field = find(name);
    if (field == nullptr) return;
    if (field->type != nvinfer1::PluginFieldType::kCHAR || field->data == nullptr || field->length < 0)
      throw PluginError(std::string(name) + " must be a text");
    std::string text(static_cast<const char*>(field->data), static_cast<std::size_t>(field->length));
    while (!text.empty() && text.back() == '\0') text.pop_back();  // some front ends count the terminator
    for (std::size_t i = 0; i < choice_count<Choice>(); ++i) {
      if (text == Spelling<Choice>::kAll[i]) {
        value = static_cast<Choice>(i);
        return;
      }
    }
    throw PluginError(std::string(name) + " is '" + text + "', which is not known");
  }

  template <class T>
  static T read(const nvinfer1::PluginField& field) {
    T value;
    std::memcpy(&value, field.data, sizeof value);  // a serialised field may be anywhere
    return value;
  }

  const nvinfer1::PluginField* find(const char* name) const {
    if (collection_ == nullptr || collection_->fields == nullptr) return nullptr;
    for (std::int32_t i = 0; i < collection_->nbFields; ++i)
      if (collection_->fields[i].name != nullptr && std::strcmp(collection_->fields[i].name, name) == 0)
        return &collection_->fields[i];
    return nullptr;
  }

  const nvinfer1::PluginFieldCollection* collection_;
};

// Fields to serialise; owns what they point to.
class FieldList {
 public:
  void clear() {
    fields_.clear();
    integers_.clear();
    reals_.clear();
  }
  void add(const char* name, std::int32_t value) {
    fields_.emplace_back(name, &integers_.emplace_back(value), nvinfer1::PluginFieldType::kINT32, 1);
  }
  template <class Attributes>
  void add_all(const Attributes& attributes) {
    Attributes::each(attributes, [&](const char* name, const auto& value) {
      using Value = std::decay_t<decltype(value)>;
      if constexpr (std::is_enum_v<Value>) {
        const char* text = spelling(value);
        fields_.emplace_back(name, text, nvinfer1::PluginFieldType::kCHAR,
                             static_cast<std::int32_t>(std::strlen(text)));
      } else if constexpr (std::is_same_v<Value, float>) {
        fields_.emplace_back(name, &reals_.emplace_back(value), nvinfer1::PluginFieldType::kFLOAT32, 1);
      } else {
        add(name, static_cast<std::int32_t>(value));
      }
    });
  }
  const nvinfer1::PluginFieldCollection* collection() {
    collection_.nbFields = static_cast<std::int32_t>(fields_.size());
    collection_.fields = fields_.data();
    return &collection_;
  }

 private:
  std::vector<nvinfer1::PluginField> fields_;
  std::deque<std::int32_t> integers_;  // a deque leaves its elements where they are
  std::deque<float> reals_;
  nvinfer1::PluginFieldCollection collection_{};
};

// Names and types of an op's attributes, as a creator lists them.
template <class Attributes>
std::vector<nvinfer1::PluginField> field_names() {
  std::vector<nvinfer1::PluginField> names;
  const Attributes defaults;
  Attributes::each(defaults, [&](const char* name, const auto& value) {
    using Value = std::decay_t<decltype(value)>;
    names.emplace_back(name, nullptr,
                       std::is_enum_v<Value>            ? nvinfer1::PluginFieldType::kCHAR
                       : std::is_same_v<Value, float> ? nvinfer1::PluginFieldType::kFLOAT32
                                                        : nvinfer1::PluginFieldType::kINT32,
                       1);
  });
  return names;
}

}  // namespace tmdeploy::tensorrt
