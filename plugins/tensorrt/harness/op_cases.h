// One small case for each plugin and set of inputs it takes.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <string>
#include <vector>

#include "field_set.h"

namespace tmdeploy::harness {

using namespace nvinfer1;

struct OpCase {
  std::string op;
  FieldSet fields;
  std::vector<PluginTensorDesc> in;
  std::vector<PluginTensorDesc> out;
  std::vector<std::vector<std::string>> symbols;  // of the inputs
  std::string shapes;                             // expected of the outputs
};

constexpr std::int64_t kBatch = 2, kTokens = 9, kSlots = 6, kChannels = 4;

std::vector<OpCase> op_cases();

}  // namespace tmdeploy::harness
