// float16 and bfloat16 to float32 and back, to nearest, ties to even. Everything is static: see inner_loops.h.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "kernels/common/op_params.h"

namespace tmdeploy::cpu {

static inline std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

static inline float from_half(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16U;
  const std::uint32_t exponent = half & 0x7c00U;
  std::uint32_t bits = (half & 0x7fffU) << 13U;
  if (exponent == 0x7c00U) return float_of(sign | 0x7f800000U | bits);        // infinity, NaN
  if (exponent != 0) return float_of(sign | (bits + (112U << 23U)));          // 112 = 127 - 15
  return float_of(sign | bits_of(float_of(bits + (113U << 23U)) - 0x1p-14F));  // subnormal: let the FPU normalise
}

static inline std::uint16_t to_half(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t sign = (bits >> 16U) & 0x8000U;
  std::uint32_t magnitude = bits & 0x7fffffffU;
  std::uint32_t half;
  if (magnitude > 0x7f800000U) {
    half = 0x7e00U;
  } else if (magnitude >= 0x477ff000U) {  // 65520 and more round to infinity
    half = 0x7c00U;
  } else if (magnitude < 0x38800000U) {  // below 2^-14: adding 0.5 rounds to the units of subnormal halves
    half = bits_of(float_of(magnitude) + 0.5F) - bits_of(0.5F);
  } else {
    magnitude += 0xfffU + ((magnitude >> 13U) & 1U);
    half = (magnitude - (112U << 23U)) >> 13U;
  }
  return static_cast<std::uint16_t>(sign | half);
}

static inline float from_bfloat16(std::uint16_t value) { return float_of(static_cast<std::uint32_t>(value) << 16U); }

static inline std::uint16_t to_bfloat16(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t rounded = (bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U;
  const bool nan = (bits & 0x7fffffffU) > 0x7f800000U;
  return static_cast<std::uint16_t>(nan ? 0x7fc0U : rounded);
}

static inline void widen_row(const void* x, Dtype type, float* __restrict out, std::int64_t n) {
  if (type == Dtype::kFloat32) {
    if (n > 0) std::memcpy(out, x, static_cast<std::size_t>(n) * sizeof(float));
    return;
  }
  const auto* in = static_cast<const std::uint16_t*>(x);
  if (type == Dtype::kBFloat16) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = from_bfloat16(in[i]);
    return;
  }
  std::int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
  }
#endif
  for (; i < n; ++i) out[i] = from_half(in[i]);
}

static inline void narrow_row(const float* __restrict in, Dtype type, void* y, std::int64_t n) {
  if (type == Dtype::kFloat32) {
    if (n > 0) std::memcpy(y, in, static_cast<std::size_t>(n) * sizeof(float));
    return;
  }
  auto* out = static_cast<std::uint16_t*>(y);
  if (type == Dtype::kBFloat16) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = to_bfloat16(in[i]);
    return;
  }
  std::int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
#endif
  for (; i < n; ++i) out[i] = to_half(in[i]);
}

}  // namespace tmdeploy::cpu
