// Compiled once for every instruction set, without contraction: the sums of TokenReduce are the reference's.
#include "kernels/cpu/conversions.h"
#include "kernels/cpu/inner_loops.h"

#if defined(__AVX512F__)
#define TMDEPLOY_ISA avx512
#elif defined(__AVX2__)
#define TMDEPLOY_ISA avx2
#else
#define TMDEPLOY_ISA baseline
#endif

namespace tmdeploy::cpu {
namespace {

constexpr std::int64_t kChunk = 256;  // elements converted at a time

// Calls body(values, first, n) on float32 pieces of a row of any type.
template <class Body>
inline __attribute__((always_inline)) void in_pieces(const void* x, Dtype type, std::int64_t n, const Body& body) {
  if (type == Dtype::kFloat32) {
    body(static_cast<const float*>(x), std::int64_t{0}, n);
    return;
  }
  float piece[kChunk];
  const auto* from = static_cast<const std::uint16_t*>(x);
  for (std::int64_t first = 0; first < n; first += kChunk) {
    const std::int64_t width = n - first < kChunk ? n - first : kChunk;
    widen_row(from + first, type, piece, width);
    body(piece, first, width);
  }
}

void widen(const void* x, Dtype type, float* out, std::int64_t n) { widen_row(x, type, out, n); }

void narrow(const float* in, Dtype type, void* out, std::int64_t n) { narrow_row(in, type, out, n); }

void start(const void* x, Dtype type, float weight, float* sum, std::int64_t n) {
  in_pieces(x, type, n, [&](const float* __restrict values, std::int64_t first, std::int64_t width) {
    float* __restrict out = sum + first;
    for (std::int64_t i = 0; i < width; ++i) out[i] = weight * values[i];
  });
}

void add(const void* x, Dtype type, float weight, float* sum, std::int64_t n) {
  in_pieces(x, type, n, [&](const float* __restrict values, std::int64_t first, std::int64_t width) {
    float* __restrict out = sum + first;
    for (std::int64_t i = 0; i < width; ++i) out[i] += weight * values[i];
  });
}

void divide(const float* sum, float divisor, Dtype type, void* y, std::int64_t n) {
  if (type == Dtype::kFloat32) {
    auto* __restrict out = static_cast<float*>(y);
    for (std::int64_t i = 0; i < n; ++i) out[i] = sum[i] / divisor;
    return;
  }
  float piece[kChunk];
  auto* out = static_cast<std::uint16_t*>(y);
  for (std::int64_t first = 0; first < n; first += kChunk) {
    const std::int64_t width = n - first < kChunk ? n - first : kChunk;
    for (std::int64_t i = 0; i < width; ++i) piece[i] = sum[first + i] / divisor;
    narrow_row(piece, type, out + first, width);
  }
}

void larger(const void* x, Dtype type, float* most, std::int64_t n) {
  in_pieces(x, type, n, [&](const float* __restrict values, std::int64_t first, std::int64_t width) {
    float* __restrict out = most + first;
    for (std::int64_t i = 0; i < width; ++i) {
      const bool taken = values[i] > out[i] || values[i] != values[i];
      out[i] = taken ? values[i] : out[i];  // a NaN in out compares false, so it stays
    }
  });
}

double squares(const void* x, Dtype type, std::int64_t n) {
  double sums[8] = {};
  in_pieces(x, type, n, [&](const float* __restrict values, std::int64_t, std::int64_t width) {
    std::int64_t i = 0;
    for (; i + 8 <= width; i += 8) {
      for (int k = 0; k < 8; ++k) {
        const double value = values[i + k];
        sums[k] += value * value;
      }
    }
    for (; i < width; ++i) {
      const double value = values[i];
      sums[0] += value * value;
    }
  });
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

}  // namespace

#define TMDEPLOY_TABLE_(isa) rows_##isa
#define TMDEPLOY_TABLE(isa) TMDEPLOY_TABLE_(isa)

extern const RowLoops TMDEPLOY_TABLE(TMDEPLOY_ISA);
extern const RowLoops TMDEPLOY_TABLE(TMDEPLOY_ISA) = {widen, narrow, start, add, divide, larger, squares};

}  // namespace tmdeploy::cpu
