// Drives the plugin library through its own interfaces, without libnvinfer.
//
//   harness LIBRARY check           creators, fields, shapes through a mock IExprBuilder, formats, configuration,
//                                   serialisation, clones, and what enqueue refuses; prints one line a check
//   harness LIBRARY registry LEAN   load it with the plugin registry of NVIDIA's lean runtime (libnvinfer_lean.so.*;
//                                   works without a GPU), make each plugin from there, unload
//   harness LIBRARY run CASE        one enqueue on the tensors of a case file (case_file.h); with CUDA also captured in
//                                   a graph, replayed and timed; prints JSON
// Exit code: 0 all is well, 1 a check failed, 2 usage or a bad case file.
//
// Built with TMDEPLOY_EMULATE the library holds the emulated kernels and tensors are in host memory.
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>

#include "modes.h"
#include "plugin_library.h"

int main(int argc, char** argv) {
  using namespace tmdeploy::harness;
  const std::string mode = argc > 2 ? argv[2] : "";
  try {
    if (argc == 3 && mode == "check") return check_all(Library(argv[1]));
    if (argc == 4 && mode == "run") return run_case(Library(argv[1]), argv[3]);
    if (argc == 4 && mode == "registry") return check_lean_registry(argv[1], argv[3]);
    std::fprintf(stderr, "usage: harness LIBRARY check | harness LIBRARY registry LEAN | harness LIBRARY run CASE\n");
    return 2;
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "harness: %s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "harness: %s\n", error.what());
    return 1;
  }
}
