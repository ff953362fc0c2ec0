#include "emulated_entry.h"

#define TM_VISIBLE extern "C" __attribute__((visibility("default")))

namespace tmdeploy::emulated {

std::map<std::string, Entry>& entries() {
  static std::map<std::string, Entry> all;  // filled by static initialisers: must not depend on their order
  return all;
}

}  // namespace tmdeploy::emulated

// Letters of an entry's parameters; null where there is no such entry.
TM_VISIBLE const char* tmdeploy_entry_signature(const char* name) {
  const auto found = tmdeploy::emulated::entries().find(name);
  return found == tmdeploy::emulated::entries().end() ? nullptr : found->second.signature.c_str();
}

// Null, or what went wrong.
TM_VISIBLE const char* tmdeploy_entry_launch(const char* name, std::int64_t grid, int block, std::size_t shared_bytes,
                                             void** arguments) {
  const auto found = tmdeploy::emulated::entries().find(name);
  if (found == tmdeploy::emulated::entries().end()) return "no such entry";
  const cudaError_t status = found->second.launch(grid, block, shared_bytes, arguments);
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}
