// The similarity stage of both planners: for every row of A, the most similar row of B.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/arena.h"
#include "kernels/cpu/inner_loops.h"
#include "kernels/cpu/parallel.h"

namespace tmdeploy::cpu {

template <class Real>
const SimilarityLoops<Real>& similarity_loops();

template <>
inline const SimilarityLoops<double>& similarity_loops<double>() {
  return inner_loops().wide;
}

template <>
inline const SimilarityLoops<float>& similarity_loops<float>() {
  return inner_loops().narrow;
}

inline std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// One image's A and B, packed, and what comes out.
template <class Real>
class Similarity {
 public:
  Similarity(std::int64_t a_count, std::int64_t b_count, std::int64_t channels, Arena& arena)
      : loops_(similarity_loops<Real>()), a_count_(a_count), b_count_(b_count), channels_(channels) {
    const std::int64_t a_rows = a_panels() * loops_.a_panel;
    const std::int64_t b_rows = divide_up(b_count, loops_.b_panel) * loops_.b_panel;
    a_ = arena.take<Real>(a_rows * channels);
    b_ = arena.take<Real>(b_rows * channels);
    a_norms_ = arena.take<Real>(a_rows);
    b_norms_ = arena.take<Real>(b_rows);
    a_tokens = arena.take<std::int32_t>(a_count);
    b_tokens = arena.take<std::int32_t>(b_count);
    best = arena.take<float>(a_count);
    where = arena.take<std::int32_t>(a_count);
  }

  std::int32_t* a_tokens;  // the caller fills these two
  std::int32_t* b_tokens;
  float* best;          // per row of A: the largest similarity, -inf where all are NaN
  std::int32_t* where;  // the row of B that has it, the first of equals

  void compute(const void* metric, Dtype type, float eps, const ParallelFor& parallel) {
    loops_.pack_a(metric, type, a_tokens, a_count_, channels_, a_, a_norms_);
    loops_.pack_b(metric, type, b_tokens, b_count_, channels_, b_, b_norms_);
    const std::int64_t panels = a_panels();
    const std::int64_t tasks = std::clamp(work(a_count_, b_count_, channels_) / kTaskWork, std::int64_t{1}, panels);
    parallel(tasks, [&](std::int64_t i) {
      loops_.best(a_, a_norms_, panels * i / tasks, panels * (i + 1) / tasks, a_count_, b_, b_norms_, b_count_,
                  channels_, static_cast<Real>(eps), best, where);
    });
  }

  // Multiplications of an image: what decides whether its rows are spread over threads.
  static std::int64_t work(std::int64_t a_count, std::int64_t b_count, std::int64_t channels) {
    return a_count * b_count * std::max<std::int64_t>(channels, 1);
  }

  static constexpr std::int64_t kTaskWork = 1 << 20;  // about 50 us; waking a thread costs some 5

 private:
  std::int64_t a_panels() const { return divide_up(a_count_, loops_.a_panel); }

  const SimilarityLoops<Real>& loops_;
  std::int64_t a_count_, b_count_, channels_;
  Real *a_, *b_, *a_norms_, *b_norms_;
};

// How the images of a batch are spread: groups of images a thread each, or, with fewer images than threads and enough
// work in each, one image after the other with its rows spread.
struct Spread {
  std::int64_t groups;
  bool rows;
};

inline Spread spread(std::int64_t batch, std::int64_t work, std::int64_t task_work, const ParallelFor& parallel) {
  if (batch < parallel.width() && work >= 2 * task_work) return {1, true};
  return {std::max<std::int64_t>(1, std::min(batch, parallel.width())), false};
}

// Calls one_image(image, arena, parallel) for every image; `bytes` of scratch belong to a group.
template <class OneImage>
void for_each_image(std::int64_t batch, const Spread& how, std::size_t bytes, void* scratch,
                    const ParallelFor& parallel, const OneImage& one_image) {
  std::byte* const memory = static_cast<std::byte*>(scratch);
  const auto group = [&](std::int64_t g, const ParallelFor& inner) {
    for (std::int64_t image = g; image < batch; image += how.groups) {
      Arena arena(memory + static_cast<std::size_t>(g) * bytes);
      one_image(image, arena, inner);
    }
  };
  if (how.rows) return group(0, parallel);
  const ParallelFor serial;
  parallel(how.groups, [&](std::int64_t g) { group(g, serial); });
}

inline std::size_t group_bytes(const Arena& counted) { return counted.used() + Arena::kAlignment; }

}  // namespace tmdeploy::cpu
