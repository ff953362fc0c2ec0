// Element types of the model's tensors: 16-bit storage, float arithmetic.
#pragma once

#include "platform.cuh"

namespace tmdeploy::cuda {

struct Half {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};
static_assert(sizeof(Half) == 2 && sizeof(BFloat16) == 2, "they alias the tensors' memory");

TM_DEVICE float to_float(float v) { return v; }
TM_DEVICE float to_float(BFloat16 v) { return __uint_as_float(static_cast<std::uint32_t>(v.bits) << 16); }
TM_DEVICE float to_float(Half v) { return __half2float(__ushort_as_half(v.bits)); }

// One rounding, to nearest even.
template <class T>
TM_DEVICE T from_float(float v);
template <>
TM_DEVICE float from_float<float>(float v) {
  return v;
}
template <>
TM_DEVICE Half from_float<Half>(float v) {
  return Half{__half_as_ushort(__float2half_rn(v))};
}
template <>
TM_DEVICE BFloat16 from_float<BFloat16>(float v) {
  return BFloat16{__bfloat16_as_ushort(__float2bfloat16_rn(v))};
}

// kWidth neighbours, moved by one load or store where the pointer is aligned to their size.
template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T v[kWidth];
};

}  // namespace tmdeploy::cuda
