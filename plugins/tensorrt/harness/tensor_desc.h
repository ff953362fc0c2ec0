// Descriptions of tensors, as TensorRT passes them.
#pragma once

#include <NvInferRuntime.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace tmdeploy::harness {

using namespace nvinfer1;

inline Dims dims_of(const std::vector<std::int64_t>& extents) {
  Dims dims{};
  dims.nbDims = static_cast<std::int32_t>(extents.size());
  std::copy(extents.begin(), extents.end(), dims.d);
  return dims;
}

inline PluginTensorDesc desc_of(DataType type, const std::vector<std::int64_t>& extents) {
  PluginTensorDesc desc{};
  desc.dims = dims_of(extents);
  desc.type = type;
  desc.format = TensorFormat::kLINEAR;
  desc.scale = 1.0F;
  return desc;
}

inline DynamicPluginTensorDesc dynamic_of(const PluginTensorDesc& desc) {
  DynamicPluginTensorDesc dynamic{};
  dynamic.desc = desc;
  dynamic.min = dynamic.opt = dynamic.max = desc.dims;
  return dynamic;
}

inline std::vector<DynamicPluginTensorDesc> dynamic_of(const std::vector<PluginTensorDesc>& descs) {
  std::vector<DynamicPluginTensorDesc> result;
  for (const PluginTensorDesc& desc : descs) result.push_back(dynamic_of(desc));
  return result;
}

}  // namespace tmdeploy::harness
