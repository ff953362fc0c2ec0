// The providers that the ops are registered for.
#pragma once

#include "onnxruntime/cpu_device.h"
#ifdef TMDEPLOY_ORT_CUDA
#include "onnxruntime/cuda_device.h"
#endif

namespace tmdeploy::ort {

template <class Device>
struct DeviceTag {
  using Type = Device;
};

// Calls function(DeviceTag<...>()) for each.
template <class Function>
void for_each_device(const Function& function) {
  function(DeviceTag<CpuDevice>());
#ifdef TMDEPLOY_ORT_CUDA
  function(DeviceTag<CudaDevice>());
#endif
}

}  // namespace tmdeploy::ort
