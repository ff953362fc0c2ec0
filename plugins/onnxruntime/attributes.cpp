#include <cstring>

#include "onnxruntime/runtime.h"

namespace tmdeploy::ort {
namespace {

// A missing attribute is a failed status; there is no way to ask first.
bool forgive(OrtStatusPtr status) {
  if (status == nullptr) return false;
  api().ReleaseStatus(status);
  return true;
}

}  // namespace

OrtStatusPtr attribute(const OrtKernelInfo* info, const char* name, std::int64_t otherwise, std::int64_t& out) {
  if (forgive(api().KernelInfoGetAttribute_int64(info, name, &out))) out = otherwise;
  return nullptr;
}

OrtStatusPtr attribute(const OrtKernelInfo* info, const char* name, float otherwise, float& out) {
  if (forgive(api().KernelInfoGetAttribute_float(info, name, &out))) out = otherwise;
  return nullptr;
}

OrtStatusPtr choice(const OrtKernelInfo* info, const char* op, const char* name,
                    std::initializer_list<const char*> values, std::size_t otherwise, std::size_t& out) {
  char text[64] = {};
  std::size_t size = 0;
  out = otherwise;
  if (forgive(api().KernelInfoGetAttribute_string(info, name, nullptr, &size))) return nullptr;
  if (size <= sizeof text) {
    TMDEPLOY_RETURN_IF_ERROR(api().KernelInfoGetAttribute_string(info, name, text, &size));
    std::size_t position = 0;
    for (const char* value : values) {
      if (std::strcmp(value, text) == 0) {
        out = position;
        return nullptr;
      }
      ++position;
    }
  }
  return failure(ORT_INVALID_ARGUMENT, std::string(op) + ": unknown " + name + " '" + text + "'");
}

}  // namespace tmdeploy::ort
