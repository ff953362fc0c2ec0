// Attributes of a plugin, as a creator takes them.
#pragma once

#include <NvInferRuntime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tmdeploy::harness {

using namespace nvinfer1;

// Owns the memory that fields point to.
class FieldSet {
 public:
  FieldSet& integer(const std::string& name, std::int32_t value) {
    return add(name, &value, sizeof value, PluginFieldType::kINT32, 1);
  }
  FieldSet& real(const std::string& name, float value) {
    return add(name, &value, sizeof value, PluginFieldType::kFLOAT32, 1);
  }
  FieldSet& text(const std::string& name, const std::string& value) {
    return add(name, value.data(), value.size(), PluginFieldType::kCHAR, static_cast<std::int32_t>(value.size()));
  }
  const PluginFieldCollection* collection() {
    fields_.clear();
    for (const auto& item : items_)
      fields_.emplace_back(item->name.c_str(), item->data.data(), item->type, item->length);
    collection_.nbFields = static_cast<std::int32_t>(fields_.size());
    collection_.fields = fields_.data();
    return &collection_;
  }

 private:
  struct Item {
    std::string name;
    std::vector<char> data;
    PluginFieldType type;
    std::int32_t length;
  };
  FieldSet& add(const std::string& name, const void* data, std::size_t bytes, PluginFieldType type,
                std::int32_t length) {
    const char* begin = static_cast<const char*>(data);
    auto item = std::make_shared<Item>(Item{name, std::vector<char>(begin, begin + bytes), type, length});
    item->data.reserve(1);  // a pointer even for an empty text
    items_.push_back(std::move(item));
    return *this;
  }
  std::vector<std::shared_ptr<Item>> items_;
  std::vector<PluginField> fields_;
  PluginFieldCollection collection_{};
};

}  // namespace tmdeploy::harness
