// Compiled once for every instruction set, with contraction to fused multiply-adds: in float64 it cannot be seen in the
// float32 result.
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

#if defined(__AVX512F__)
constexpr int kBytes = 64;
constexpr int kRows = 8;  // rows of A at a time: 8 x 2 of 32 registers hold sums
#else
#if defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
constexpr int kRows = 4;
#endif

template <class Real>
struct Lanes;

template <>
struct Lanes<double> {
  static constexpr int kCount = kBytes / 8;
  typedef double Vector __attribute__((vector_size(kBytes)));
  typedef std::int64_t Index __attribute__((vector_size(kBytes)));
  typedef float Rounded __attribute__((vector_size(kBytes / 2)));
  using Scalar = std::int64_t;
};

template <>
struct Lanes<float> {
  static constexpr int kCount = kBytes / 4;
  typedef float Vector __attribute__((vector_size(kBytes)));
  typedef std::int32_t Index __attribute__((vector_size(kBytes)));
  typedef float Rounded __attribute__((vector_size(kBytes)));
  using Scalar = std::int32_t;
};

constexpr int kVectors = 2;  // vectors of B's rows at a time

template <class Real>
constexpr int kColumns = kVectors * Lanes<Real>::kCount;

template <class Vector, class Real>
inline __attribute__((always_inline)) void load(Vector& out, const Real* from) {
  __builtin_memcpy(&out, from, sizeof(Vector));
}

constexpr std::int64_t kChunk = 64;  // channels converted at a time

// kPanel is a constant so that the loops over a panel's rows become straight code.
template <class Real, int kPanel>
void pack(const void* metric, Dtype type, const std::int32_t* tokens, std::int64_t count, std::int64_t channels,
          Real* packed, Real* norms) {
  const std::int64_t size = type == Dtype::kFloat32 ? 4 : 2;
  float buffer[kPanel * kChunk];
  const float* rows[kPanel];
  for (std::int64_t first = 0; first < count; first += kPanel) {
    const std::int64_t used = count - first < kPanel ? count - first : kPanel;
    Real* const out = packed + first * channels;
    Real sums[kPanel] = {};
    for (std::int64_t begin = 0; begin < channels; begin += kChunk) {
      const std::int64_t width = channels - begin < kChunk ? channels - begin : kChunk;
      for (int row = 0; row < kPanel; ++row) {
        // rows beyond the last repeat it: their norm says that they do not count
        const std::int64_t token = tokens[first + (row < used ? row : used - 1)];
        const char* const from = static_cast<const char*>(metric) + (token * channels + begin) * size;
        if (type == Dtype::kFloat32) {
          rows[row] = reinterpret_cast<const float*>(from);
        } else {
          widen_row(from, type, buffer + row * kChunk, width);
          rows[row] = buffer + row * kChunk;
        }
      }
      for (std::int64_t c = 0; c < width; ++c) {
        Real values[kPanel];
#pragma GCC unroll 32
        for (int row = 0; row < kPanel; ++row) values[row] = static_cast<Real>(rows[row][c]);
#pragma GCC unroll 32
        for (int row = 0; row < kPanel; ++row) sums[row] += values[row] * values[row];
        __builtin_memcpy(out + (begin + c) * kPanel, values, sizeof values);
      }
    }
    for (int row = 0; row < kPanel; ++row) {
      const Real norm = static_cast<Real>(__builtin_sqrt(static_cast<double>(sums[row])));
      norms[first + row] = row < used ? norm : static_cast<Real>(__builtin_nan(""));
    }
  }
}

template <class Real>
void best(const Real* a, const Real* a_norms, std::int64_t first, std::int64_t last, std::int64_t a_count,
          const Real* b, const Real* b_norms, std::int64_t b_count, std::int64_t channels, Real eps, float* value,
          std::int32_t* where) {
  using L = Lanes<Real>;
  using Vector = typename L::Vector;
  using Index = typename L::Index;
  constexpr int kPanel = kColumns<Real>;
  const Real lowest = -static_cast<Real>(__builtin_inf());
  Index lane;
  for (int i = 0; i < L::kCount; ++i) lane[i] = i;

  for (std::int64_t block = first; block < last; ++block) {
    const Real* const a_panel = a + block * kRows * channels;
    const Real* const norm_a = a_norms + block * kRows;
    Vector top[kRows][kVectors];
    Index at[kRows][kVectors];
    for (int i = 0; i < kRows; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        top[i][v] = lowest - Vector{};
        at[i][v] = lane + static_cast<typename L::Scalar>(v * L::kCount);
      }
    }
    for (std::int64_t column = 0; column < b_count; column += kPanel) {
      const Real* const b_panel = b + column * channels;
      Vector sum[kRows][kVectors] = {};
      for (std::int64_t c = 0; c < channels; ++c) {
        Vector right[kVectors];
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) load(right[v], b_panel + c * kPanel + v * L::kCount);
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) {
          const Real left = a_panel[c * kRows + i];
#pragma GCC unroll 2
          for (int v = 0; v < kVectors; ++v) sum[i][v] += left * right[v];
        }
      }
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        Vector norm_b;
        load(norm_b, b_norms + column + v * L::kCount);
        const auto zero_b = norm_b <= eps;
        const Index here = lane + static_cast<typename L::Scalar>(column + v * L::kCount);
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) {
          Vector similarity = sum[i][v] / (norm_a[i] * norm_b);
          // float32 is what is compared, in whatever type it is held
          similarity = __builtin_convertvector(__builtin_convertvector(similarity, typename L::Rounded), Vector);
          similarity = zero_b ? Vector{} : similarity;
          const auto better = similarity > top[i][v];  // false for NaN, and for what came first
          top[i][v] = better ? similarity : top[i][v];
          at[i][v] = better ? here : at[i][v];
        }
      }
    }
    for (int i = 0; i < kRows; ++i) {
      const std::int64_t row = block * kRows + i;
      if (row >= a_count) break;
      Real most = lowest;
      std::int64_t column = b_count;
      for (int v = 0; v < kVectors; ++v) {
        for (int k = 0; k < L::kCount; ++k) {
          const Real candidate = top[i][v][k];
          const std::int64_t position = at[i][v][k];
          if (candidate > most || (candidate == most && position < column)) {
            most = candidate;
            column = position;
          }
        }
      }
      const bool zero_a = norm_a[i] <= eps;  // then all are 0, and the first is the best
      value[row] = zero_a ? 0.0F : static_cast<float>(most);
      where[row] = zero_a ? 0 : static_cast<std::int32_t>(column);
    }
  }
}

}  // namespace

#define TMDEPLOY_TABLE_(isa) similarity_##isa
#define TMDEPLOY_TABLE(isa) TMDEPLOY_TABLE_(isa)

extern const SimilarityLoops<double> TMDEPLOY_TABLE(TMDEPLOY_ISA);
extern const SimilarityLoops<double> TMDEPLOY_TABLE(TMDEPLOY_ISA) = {
    kRows, kColumns<double>, pack<double, kRows>, pack<double, kColumns<double>>, best<double>};

#define TMDEPLOY_FAST_TABLE_(isa) fast_similarity_##isa
#define TMDEPLOY_FAST_TABLE(isa) TMDEPLOY_FAST_TABLE_(isa)

extern const SimilarityLoops<float> TMDEPLOY_FAST_TABLE(TMDEPLOY_ISA);
extern const SimilarityLoops<float> TMDEPLOY_FAST_TABLE(TMDEPLOY_ISA) = {
    kRows, kColumns<float>, pack<float, kRows>, pack<float, kColumns<float>>, best<float>};

}  // namespace tmdeploy::cpu
