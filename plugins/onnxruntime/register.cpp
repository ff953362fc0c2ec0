// The entry point that ONNX Runtime looks for in a custom-op library.
#include <mutex>

#include "onnxruntime/custom_op.h"

namespace {

using tmdeploy::ort::api;

// Made once and never freed: sessions keep pointers to it, and may outlive any moment at which we could tell.
OrtStatusPtr make_domain(OrtCustomOpDomain*& domain) {
  if (OrtStatusPtr status = api().CreateCustomOpDomain(tmdeploy::kDomain, &domain)) return status;
  OrtStatusPtr status = nullptr;
  tmdeploy::ort::add_token_match(domain, status);
  tmdeploy::ort::add_token_select(domain, status);
  tmdeploy::ort::add_token_reduce(domain, status);
  return status;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL
RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  static std::mutex mutex;
  static OrtCustomOpDomain* domain = nullptr;
  try {
    const std::lock_guard<std::mutex> lock(mutex);
    if (domain == nullptr) {
      const OrtApi* const found = base->GetApi(tmdeploy::ort::kApiVersion);
      if (found == nullptr) {
        constexpr std::uint32_t kOldest = 1;  // any runtime can at least make a status
        return base->GetApi(kOldest)->CreateStatus(ORT_NOT_IMPLEMENTED,
                                                   "tmdeploy: ONNX Runtime 1.20 or later is needed");
      }
      tmdeploy::ort::set_api(found, base->GetVersionString());
      OrtCustomOpDomain* made = nullptr;
      if (OrtStatusPtr status = make_domain(made)) return status;
      domain = made;
    }
    return api().AddCustomOpDomain(options, domain);
  } catch (...) {
    return base->GetApi(tmdeploy::ort::kApiVersion)->CreateStatus(ORT_FAIL, "tmdeploy: out of memory");
  }
}
