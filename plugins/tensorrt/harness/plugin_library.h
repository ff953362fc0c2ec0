// A plugin library in this process, its creators, and the plugins they make.
#pragma once

#include <NvInferRuntime.h>

#include <memory>
#include <string>
#include <vector>

#include "field_set.h"

namespace tmdeploy::harness {

using namespace nvinfer1;

class Library {
 public:
  explicit Library(const char* path);
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  // not closed: its creators may be referred to until the process ends

  bool has(const char* symbol) const;
  IPluginCreatorV3One& creator(const std::string& name) const;

  std::vector<IPluginCreatorInterface*> creators;

 private:
  void* handle_;
};

// A plugin and its three capabilities; empty where the creator refused.
struct Plugin {
  std::unique_ptr<IPluginV3> owner;
  IPluginV3OneCore* core = nullptr;
  IPluginV3OneBuild* build = nullptr;
  IPluginV3OneRuntime* runtime = nullptr;

  explicit Plugin(IPluginV3* plugin);
  explicit operator bool() const { return owner != nullptr; }
};

// Throws std::runtime_error where the library has no creator of `op`.
Plugin create(const Library& library, const std::string& op, const PluginFieldCollection* fields,
              TensorRTPhase phase = TensorRTPhase::kBUILD);

}  // namespace tmdeploy::harness
