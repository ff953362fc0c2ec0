#include "plugin_library.h"

#include <dlfcn.h>

#include <cstdint>
#include <stdexcept>

namespace tmdeploy::harness {

Library::Library(const char* path) : handle_(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
  if (handle_ == nullptr) throw std::runtime_error(dlerror());
  using GetCreators = IPluginCreatorInterface* const* (*)(std::int32_t&);
  const auto get = reinterpret_cast<GetCreators>(dlsym(handle_, "getCreators"));
  if (get == nullptr) throw std::runtime_error("no getCreators");
  std::int32_t count = 0;
  IPluginCreatorInterface* const* list = get(count);
  creators.assign(list, list + count);
}

bool Library::has(const char* symbol) const { return dlsym(handle_, symbol) != nullptr; }

IPluginCreatorV3One& Library::creator(const std::string& name) const {
  for (IPluginCreatorInterface* one : creators) {
    auto* v3 = static_cast<IPluginCreatorV3One*>(one);
    if (name == v3->getPluginName()) return *v3;
  }
  throw std::runtime_error("no creator " + name);
}

Plugin::Plugin(IPluginV3* plugin) : owner(plugin) {
  if (plugin == nullptr) return;
  core = static_cast<IPluginV3OneCore*>(plugin->getCapabilityInterface(PluginCapabilityType::kCORE));
  build = static_cast<IPluginV3OneBuild*>(plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
  runtime = static_cast<IPluginV3OneRuntime*>(plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}

Plugin create(const Library& library, const std::string& op, const PluginFieldCollection* fields, TensorRTPhase phase) {
  return Plugin(library.creator(op).createPlugin("node", fields, phase));
}

}  // namespace tmdeploy::harness
