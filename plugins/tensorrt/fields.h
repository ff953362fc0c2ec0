// Attributes of a plugin: read from the fields TensorRT hands over, kept for serialisation.
//
// The parser passes an ONNX INT attribute as int32, FLOAT as float32, STRING as characters without a terminator, and leaves
// out what the node does not set; other front ends pass int64. A serialised plugin gets its own fields back.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

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

  // Position of the field's text in `choices`.
  std::int32_t choice(const char* name, const std::vector<std::string>& choices, const char* otherwise) const {
    const nvinfer1::PluginField* field = find(name);
    std::string text = otherwise;
    if (field != nullptr) {
      if (field->type != nvinfer1::PluginFieldType::kCHAR || field->data == nullptr || field->length < 0)
        throw PluginError(std::string(name) + " must be a text");
      text.assign(static_cast<const char*>(field->data), static_cast<std::size_t>(field->length));
      while (!text.empty() && text.back() == '\0') text.pop_back();  // some front ends count the terminator
    }
    for (std::size_t i = 0; i < choices.size(); ++i)
      if (choices[i] == text) return static_cast<std::int32_t>(i);
    throw PluginError(std::string(name) + " is '" + text + "', which is not known");
  }

 private:
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

// Fields to serialise. Points into the plugin's attributes, which must outlive it.
class FieldList {
 public:
  void clear() { fields_.clear(); }
  void add(const char* name, const std::int32_t& value) {
    fields_.emplace_back(name, &value, nvinfer1::PluginFieldType::kINT32, 1);
  }
  void add(const char* name, const float& value) {
    fields_.emplace_back(name, &value, nvinfer1::PluginFieldType::kFLOAT32, 1);
  }
  void add(const char* name, const std::string& value) {
    fields_.emplace_back(name, value.data(), nvinfer1::PluginFieldType::kCHAR, static_cast<std::int32_t>(value.size()));
  }
  const nvinfer1::PluginFieldCollection* collection() {
    collection_.nbFields = static_cast<std::int32_t>(fields_.size());
    collection_.fields = fields_.data();
    return &collection_;
  }

 private:
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace tmdeploy::tensorrt
