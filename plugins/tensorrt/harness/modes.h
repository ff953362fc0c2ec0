// What main.cpp can do with a plugin library; each returns the exit code.
#pragma once

#include "plugin_library.h"

namespace tmdeploy::harness {

int check_all(const Library& library);

// Throws std::runtime_error where `lean` is not a TensorRT runtime.
int check_lean_registry(const char* library, const char* lean);

// Throws std::invalid_argument where the case file or a tensor's file is bad.
int run_case(const Library& library, const char* path);

}  // namespace tmdeploy::harness
