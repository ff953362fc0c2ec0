// The plugin registry of NVIDIA's lean runtime, which needs no GPU: load the library there, make each plugin, unload.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <stdexcept>

#include "modes.h"
#include "op_cases.h"
#include "plugin_library.h"
#include "tally.h"

namespace tmdeploy::harness {

namespace {

// IPluginRegistry lost its IPluginV2 functions in TensorRT 11.0, and with them its vtable's layout.
class Registry11 {
 public:
  virtual ~Registry11() = default;
  virtual void setErrorRecorder(IErrorRecorder*) noexcept = 0;
  virtual IErrorRecorder* getErrorRecorder() const noexcept = 0;
  virtual bool isParentSearchEnabled() const = 0;
  virtual void setParentSearchEnabled(bool) = 0;
  virtual void* loadLibrary(const char*) noexcept = 0;
  virtual void deregisterLibrary(void*) noexcept = 0;
  virtual bool registerCreator(IPluginCreatorInterface&, const char*) noexcept = 0;
  virtual IPluginCreatorInterface* const* getAllCreators(std::int32_t*) const noexcept = 0;
  virtual IPluginCreatorInterface* getCreator(const char*, const char*, const char*) noexcept = 0;
};

template <class Registry>
int check_registry(Registry& registry, const char* library) {
  Tally tally;
  void* loaded = registry.loadLibrary(library);
  tally.check(loaded != nullptr, "registry: loads the library");
  for (OpCase& one : op_cases()) {
    IPluginCreatorInterface* found = registry.getCreator(one.op.c_str(), "1", "tmdeploy");
    tally.check(found != nullptr, "registry: has a creator of " + one.op);
    if (found == nullptr) continue;
    const Plugin plugin(static_cast<IPluginCreatorV3One*>(found)->createPlugin("node", one.fields.collection(),
                                                                               TensorRTPhase::kRUNTIME));
    tally.check(plugin && one.op == plugin.core->getPluginName(), "registry: its creator makes a " + one.op);
  }
  tally.check(registry.getCreator("TokenMatch", "1", "") == nullptr,
              "registry: nothing outside the namespace tmdeploy");
  if (loaded != nullptr) registry.deregisterLibrary(loaded);
  tally.check(registry.getCreator("TokenMatch", "1", "tmdeploy") == nullptr, "registry: unloads the library");
  return tally.finish();
}

}  // namespace

int check_lean_registry(const char* library, const char* lean) {
  void* handle = dlopen(lean, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw std::runtime_error(dlerror());
  const auto get = reinterpret_cast<void* (*)()>(dlsym(handle, "getPluginRegistry"));
  const auto version = reinterpret_cast<std::int32_t (*)()>(dlsym(handle, "getInferLibVersion"));
  if (get == nullptr || version == nullptr) throw std::runtime_error("not a TensorRT runtime");
  std::printf("ok   registry: of TensorRT %d\n", version());
  if (version() >= 110000) return check_registry(*static_cast<Registry11*>(get()), library);
  return check_registry(*static_cast<IPluginRegistry*>(get()), library);
}

}  // namespace tmdeploy::harness
