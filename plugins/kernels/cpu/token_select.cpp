#include "kernels/cpu/ranking.h"
#include "kernels/cpu/similarity.h"
#include "kernels/cpu/token_ops.h"

namespace tmdeploy::cpu {
namespace {

bool needs_metric(const SelectParams& p) { return p.leftover == Leftover::kNearest && p.kept < p.tokens; }

// A: the tokens that do not stay; B: the ones after the prefix that do.
template <class Real>
struct Buffers {
  Buffers(const SelectParams& p, Arena& arena)
      : score(arena.take<float>(p.tokens)),
        keys(arena.take<Key>(p.tokens)),
        similarity(needs_metric(p) ? p.tokens - p.kept : 0, needs_metric(p) ? p.kept - p.num_prefix : 0, p.channels,
                   arena) {}

  float* score;
  Key* keys;
  Similarity<Real> similarity;
};

template <class Real>
std::size_t bytes_of_a_group(const SelectParams& p) {
  Arena counting;
  Buffers<Real>(p, counting);
  return group_bytes(counting);
}

Spread spread_of(const SelectParams& p, const ParallelFor& parallel) {
  const std::int64_t work =
      needs_metric(p) ? Similarity<double>::work(p.tokens - p.kept, p.kept - p.num_prefix, p.channels) : 0;
  return spread(p.batch, work, Similarity<double>::kTaskWork, parallel);
}

// Slots of the tokens that stay; map is -1 for all others.
void place_kept(const SelectParams& p, Key* keys, std::int32_t* map, std::int32_t* index) {
  const std::int64_t patches = p.tokens - p.num_prefix;
  const std::int64_t chosen = p.kept - p.num_prefix;
  best_to_front(keys, patches, chosen);
  std::int64_t slot = 0;
  const auto give_slot = [&](std::int64_t token) {
    map[token] = static_cast<std::int32_t>(slot);
    index[slot++] = static_cast<std::int32_t>(token);
  };
  std::fill(map, map + p.tokens, -1);
  while (slot < p.num_prefix) give_slot(slot);
  if (p.order == SelectOrder::kScore) {
    std::sort(keys, keys + chosen, std::greater<Key>());
    for (std::int64_t k = 0; k < chosen; ++k) give_slot(p.num_prefix + index_of(keys[k]));
  } else {
    for (std::int64_t k = 0; k < chosen; ++k) map[p.num_prefix + index_of(keys[k])] = 0;
    for (std::int64_t token = p.num_prefix; token < p.tokens; ++token) {
      if (map[token] == 0) give_slot(token);
    }
  }
}

template <class Real>
void merge_rest(const SelectParams& p, Similarity<Real>& similarity, const void* metric, Dtype type,
                std::int32_t* map, float* sim, const ParallelFor& parallel) {
  std::int64_t rest = 0;
  std::int64_t stay = 0;
  for (std::int64_t token = p.num_prefix; token < p.tokens; ++token) {
    if (map[token] < 0) {
      similarity.a_tokens[rest++] = static_cast<std::int32_t>(token);
    } else {
      similarity.b_tokens[stay++] = static_cast<std::int32_t>(token);
    }
  }
  similarity.compute(metric, type, p.metric_eps, parallel);
  for (std::int64_t i = 0; i < rest; ++i) {
    const std::int32_t token = similarity.a_tokens[i];
    map[token] = map[similarity.b_tokens[similarity.where[i]]];
    sim[token] = similarity.best[i];
  }
}

template <class Real>
void select(const SelectParams& p, const void* score, Dtype score_type, const void* metric, Dtype metric_type,
            const Plan& plan, void* scratch, const ParallelFor& parallel) {
  const auto size_of = [](Dtype type) { return type == Dtype::kFloat32 ? 4 : 2; };
  for_each_image(p.batch, spread_of(p, parallel), bytes_of_a_group<Real>(p), scratch, parallel,
                 [&](std::int64_t image, Arena& arena, const ParallelFor& inner) {
                   Buffers<Real> buffers(p, arena);
                   std::int32_t* const map = plan.map + image * p.tokens;
                   std::int32_t* const index = plan.index + image * p.slots;
                   float* const sim = plan.sim + image * p.tokens;
                   const std::int64_t patches = p.tokens - p.num_prefix;
                   inner_loops().rows.widen(static_cast<const char*>(score) +
                                                (image * p.tokens + p.num_prefix) * size_of(score_type),
                                            score_type, buffers.score, patches);
                   for (std::int64_t i = 0; i < patches; ++i) buffers.keys[i] = rank_key(buffers.score[i], i);
                   std::fill(sim, sim + p.tokens, 1.0F);
                   place_kept(p, buffers.keys, map, index);
                   if (p.slots > p.kept) {
                     index[p.kept] = -1;
                     std::replace(map, map + p.tokens, -1, static_cast<std::int32_t>(p.kept));
                   } else if (needs_metric(p)) {
                     merge_rest(p, buffers.similarity,
                                static_cast<const char*>(metric) + image * p.tokens * p.channels * size_of(metric_type),
                                metric_type, map, sim, inner);
                   }
                 });
}

}  // namespace

std::size_t select_scratch(const SelectParams& p, const ParallelFor& parallel) {
  if (problem(p) != nullptr) return 0;
  const std::size_t group = p.deterministic ? bytes_of_a_group<double>(p) : bytes_of_a_group<float>(p);
  return group * static_cast<std::size_t>(spread_of(p, parallel).groups);
}

const char* token_select(const SelectParams& p, const void* score, Dtype score_type, const void* metric,
                         Dtype metric_type, const Plan& plan, std::int32_t* count, void* scratch,
                         const ParallelFor& parallel) {
  const char* const wrong = problem(p);
  if (wrong != nullptr) return wrong;
  if (needs_metric(p) && metric == nullptr) return "leftover = nearest needs a metric";
  if (p.deterministic) {
    select<double>(p, score, score_type, metric, metric_type, plan, scratch, parallel);
  } else {
    select<float>(p, score, score_type, metric, metric_type, plan, scratch, parallel);
  }
  std::fill(count, count + p.batch, static_cast<std::int32_t>(p.slots));
  return nullptr;
}

}  // namespace tmdeploy::cpu
