// Launches of the entry kernels by name on the emulator, with arguments as cuLaunchKernel takes them: one pointer each.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <type_traits>
#include <utility>

#include "../emulator/cuda_on_host.h"

namespace tmdeploy::emulated {

struct Entry {
  std::string signature;  // a letter a parameter: p = pointer, i = int32
  std::function<cudaError_t(std::int64_t grid, int block, std::size_t shared_bytes, void** arguments)> launch;
};

std::map<std::string, Entry>& entries();

template <class... Parameters, std::size_t... kIndex>
cudaError_t launch_entry(void (*kernel)(Parameters...), std::int64_t grid, int block, std::size_t shared_bytes,
                         void** arguments, std::index_sequence<kIndex...> /*indices*/) {
  return ::emulator::launch(grid, block, shared_bytes,
                            [=] { kernel(*static_cast<Parameters*>(arguments[kIndex])...); });
}

template <class... Parameters>
bool list_entry(const char* name, void (*kernel)(Parameters...)) {
  static_assert(((std::is_pointer_v<Parameters> || std::is_same_v<Parameters, int>)&&...), "what TensorRT can pass");
  entries()[name] = {{(std::is_pointer_v<Parameters> ? 'p' : 'i')...},
                     [kernel](std::int64_t grid, int block, std::size_t shared_bytes, void** arguments) {
                       return launch_entry(kernel, grid, block, shared_bytes, arguments,
                                           std::index_sequence_for<Parameters...>{});
                     }};
  return true;
}

}  // namespace tmdeploy::emulated
