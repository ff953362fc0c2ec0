#include "kernels/cpu/ranking.h"
#include "kernels/cpu/similarity.h"
#include "kernels/cpu/token_ops.h"

namespace tmdeploy::cpu {
namespace {

// A: even positions after the prefix; B: odd ones.
struct Halves {
  explicit Halves(const MatchParams& p)
      : first_a(p.num_prefix + p.num_prefix % 2),
        first_b(p.num_prefix + 1 - p.num_prefix % 2),
        count_a(first_a < p.tokens ? divide_up(p.tokens - first_a, 2) : 0),
        count_b(first_b < p.tokens ? divide_up(p.tokens - first_b, 2) : 0) {}

  std::int64_t first_a, first_b, count_a, count_b;
};

template <class Real>
struct Buffers {
  Buffers(const Halves& h, const MatchParams& p, Arena& arena)
      : similarity(h.count_a, h.count_b, p.channels, arena), keys(arena.take<Key>(h.count_a)) {}

  Similarity<Real> similarity;
  Key* keys;
};

template <class Real>
std::size_t bytes_of_a_group(const MatchParams& p) {
  Arena counting;
  Buffers<Real>(Halves(p), p, counting);
  return group_bytes(counting);
}

std::int64_t work_of(const MatchParams& p) {
  const Halves h(p);
  return Similarity<double>::work(h.count_a, h.count_b, p.channels);
}

Spread spread_of(const MatchParams& p, const ParallelFor& parallel) {
  return spread(p.batch, work_of(p), Similarity<double>::kTaskWork, parallel);
}

template <class Real>
void write_plan(const MatchParams& p, const Halves& h, Buffers<Real>& buffers, std::int32_t* map, std::int32_t* index,
                float* sim) {
  const std::int64_t removed = p.tokens - p.slots;
  const Similarity<Real>& similarity = buffers.similarity;
  Key* const keys = buffers.keys;
  for (std::int64_t i = 0; i < h.count_a; ++i) keys[i] = rank_key(similarity.best[i], i);
  best_to_front(keys, h.count_a, removed);

  std::int64_t slot = 0;
  const auto give_slot = [&](std::int64_t token) {
    map[token] = static_cast<std::int32_t>(slot);
    index[slot++] = static_cast<std::int32_t>(token);
  };
  std::fill(sim, sim + p.tokens, 1.0F);
  std::fill(map, map + p.tokens, 0);
  while (slot < p.num_prefix) give_slot(slot);
  if (p.order == MatchOrder::kTome) {
    for (std::int64_t k = 0; k < removed; ++k) map[h.first_a + 2 * index_of(keys[k])] = -1;
    for (std::int64_t token = h.first_a; token < p.tokens; token += 2) {
      if (map[token] == 0) give_slot(token);
    }
  } else {
    std::sort(keys + removed, keys + h.count_a, std::greater<Key>());
    for (std::int64_t k = removed; k < h.count_a; ++k) give_slot(h.first_a + 2 * index_of(keys[k]));
  }
  const std::int64_t first_target = slot;
  for (std::int64_t token = h.first_b; token < p.tokens; token += 2) give_slot(token);
  for (std::int64_t k = 0; k < removed; ++k) {
    const std::int64_t row = index_of(keys[k]);
    map[h.first_a + 2 * row] = static_cast<std::int32_t>(first_target + similarity.where[row]);
    sim[h.first_a + 2 * row] = similarity.best[row];
  }
}

void write_identity(const MatchParams& p, const Plan& plan) {
  for (std::int64_t image = 0; image < p.batch; ++image) {
    for (std::int64_t token = 0; token < p.tokens; ++token) {
      plan.map[image * p.tokens + token] = static_cast<std::int32_t>(token);
      plan.index[image * p.tokens + token] = static_cast<std::int32_t>(token);
    }
  }
  std::fill(plan.sim, plan.sim + p.batch * p.tokens, 1.0F);
}

template <class Real>
void match(const MatchParams& p, const void* metric, Dtype type, const Plan& plan, void* scratch,
           const ParallelFor& parallel) {
  const Halves h(p);
  const std::int64_t image_bytes = p.tokens * p.channels * (type == Dtype::kFloat32 ? 4 : 2);
  for_each_image(p.batch, spread_of(p, parallel), bytes_of_a_group<Real>(p), scratch, parallel,
                 [&](std::int64_t image, Arena& arena, const ParallelFor& inner) {
                   Buffers<Real> buffers(h, p, arena);
                   Similarity<Real>& similarity = buffers.similarity;
                   for (std::int64_t i = 0; i < h.count_a; ++i)
                     similarity.a_tokens[i] = static_cast<std::int32_t>(h.first_a + 2 * i);
                   for (std::int64_t i = 0; i < h.count_b; ++i)
                     similarity.b_tokens[i] = static_cast<std::int32_t>(h.first_b + 2 * i);
                   similarity.compute(static_cast<const char*>(metric) + image * image_bytes, type, p.metric_eps,
                                      inner);
                   write_plan(p, h, buffers, plan.map + image * p.tokens, plan.index + image * p.slots,
                              plan.sim + image * p.tokens);
                 });
}

}  // namespace

std::size_t match_scratch(const MatchParams& p, const ParallelFor& parallel) {
  if (problem(p) != nullptr || p.slots == p.tokens) return 0;
  const std::size_t group = p.deterministic ? bytes_of_a_group<double>(p) : bytes_of_a_group<float>(p);
  return group * static_cast<std::size_t>(spread_of(p, parallel).groups);
}

const char* token_match(const MatchParams& p, const void* metric, Dtype metric_type, const Plan& plan, void* scratch,
                        const ParallelFor& parallel) {
  const char* const wrong = problem(p);
  if (wrong != nullptr) return wrong;
  if (p.slots == p.tokens) {
    write_identity(p, plan);
  } else if (p.deterministic) {
    match<double>(p, metric, metric_type, plan, scratch, parallel);
  } else {
    match<float>(p, metric, metric_type, plan, scratch, parallel);
  }
  return nullptr;
}

}  // namespace tmdeploy::cpu
