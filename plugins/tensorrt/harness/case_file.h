// A case file has one item a line:
//   op NAME | int FIELD VALUE | float FIELD VALUE | text FIELD VALUE
//   in TYPE FILE DIM... | out TYPE FILE DIM...      TYPE: float32 float16 bfloat16 int32 int64; raw little-endian files
#pragma once

#include <NvInferRuntime.h>

#include <cstddef>
#include <string>
#include <vector>

#include "field_set.h"

namespace tmdeploy::harness {

struct CaseTensor {
  nvinfer1::PluginTensorDesc desc;
  std::string file;
  std::size_t bytes;
};

struct Case {
  std::string op;
  FieldSet fields;
  std::vector<CaseTensor> in;
  std::vector<CaseTensor> out;
};

// Throws std::invalid_argument where the file cannot be read or has an unknown item.
Case read_case(const char* path);

}  // namespace tmdeploy::harness
