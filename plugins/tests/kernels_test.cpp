// The CPU kernels against slow loops straight from docs/ops.md, on random and adversarial inputs. Made to be run under
// sanitizers: every buffer is its own heap block of exactly the size it needs, so that an access beyond it is caught.
//   kernels_test [seed] [cases]
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "kernels/cpu/conversions.h"
#include "kernels/cpu/inner_loops.h"
#include "kernels/cpu/token_ops.h"

namespace {

using namespace tmdeploy;
using cpu::ParallelFor;
using Random = std::mt19937_64;

int g_failures = 0;

void expect(bool good, const char* what, std::uint64_t seed) {
  if (good) return;
  if (++g_failures <= 20) std::printf("FAILED %s (seed %llu)\n", what, static_cast<unsigned long long>(seed));
}

std::int64_t between(Random& random, std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(random);
}

bool coin(Random& random) { return between(random, 0, 1) == 1; }

void run_on_threads(void*, std::int64_t count, ParallelFor::Task task, void* data) {
  std::atomic<std::int64_t> next{0};
  const auto work = [&] {
    for (std::int64_t i = next++; i < count; i = next++) task(data, i);
  };
  std::thread other(work);
  work();
  other.join();
}

// A tensor of any of the three types, with its values as the kernel will see them.
struct Values {
  std::vector<float> seen;
  std::vector<std::uint16_t> half;
  Dtype type = Dtype::kFloat32;

  const void* data() const { return type == Dtype::kFloat32 ? static_cast<const void*>(seen.data()) : half.data(); }
};

Values make_values(Random& random, std::int64_t count) {
  Values made;
  made.type = static_cast<Dtype>(between(random, 0, 2));
  const bool ties = coin(random);
  const bool odd = between(random, 0, 3) == 0;
  std::normal_distribution<float> normal;
  for (std::int64_t i = 0; i < count; ++i) {
    float value = ties ? static_cast<float>(between(random, -2, 2)) : normal(random);
    if (odd && between(random, 0, 39) == 0) {
      const float specials[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -0.0F,
                                1e-40F, -3e38F};
      value = specials[between(random, 0, 4)];
    }
    if (made.type == Dtype::kFloat16) {
      made.half.push_back(cpu::to_half(value));
      value = cpu::from_half(made.half.back());
    } else if (made.type == Dtype::kBFloat16) {
      made.half.push_back(cpu::to_bfloat16(value));
      value = cpu::from_bfloat16(made.half.back());
    }
    made.seen.push_back(value);
  }
  return made;
}

float similarity(const float* a, const float* b, std::int64_t channels, float eps) {
  double dot = 0;
  double aa = 0;
  double bb = 0;
  for (std::int64_t c = 0; c < channels; ++c) {
    dot += static_cast<double>(a[c]) * static_cast<double>(b[c]);
    aa += static_cast<double>(a[c]) * static_cast<double>(a[c]);
    bb += static_cast<double>(b[c]) * static_cast<double>(b[c]);
  }
  const double norm_a = std::sqrt(aa);
  const double norm_b = std::sqrt(bb);
  const double limit = static_cast<double>(eps);
  if (norm_a <= limit || norm_b <= limit) return 0.0F;
  const auto value = static_cast<float>(dot / (norm_a * norm_b));
  return value != value ? -std::numeric_limits<float>::infinity() : value;
}

struct Expected {
  std::vector<std::int32_t> map, index;
  std::vector<float> sim;
};

using Tokens = std::vector<std::int64_t>;

// For each source the most similar target, the lowest of equals.
void nearest(const float* metric, std::int64_t channels, float eps, const Tokens& sources, const Tokens& targets,
             std::vector<float>& best, Tokens& where) {
  for (const std::int64_t a : sources) {
    float most = 0;
    std::int64_t found = -1;
    for (const std::int64_t b : targets) {
      const float value = similarity(metric + a * channels, metric + b * channels, channels, eps);
      if (found < 0 || value > most) {
        most = value;
        found = b;
      }
    }
    best.push_back(most);
    where.push_back(found);
  }
}

void sort_descending(Tokens& positions, const std::vector<float>& value) {
  std::stable_sort(positions.begin(), positions.end(), [&](std::int64_t a, std::int64_t b) {
    return value[static_cast<std::size_t>(a)] > value[static_cast<std::size_t>(b)];
  });
}

Expected match_slowly(const MatchParams& p, const float* metric) {
  Expected out{std::vector<std::int32_t>(static_cast<std::size_t>(p.tokens)), {},
               std::vector<float>(static_cast<std::size_t>(p.tokens), 1.0F)};
  const std::int64_t removed = p.tokens - p.slots;
  Tokens sources;
  Tokens targets;
  for (std::int64_t t = p.num_prefix; t < p.tokens; ++t) (t % 2 == 0 ? sources : targets).push_back(t);
  std::vector<float> best;
  Tokens where;
  Tokens ranked;
  if (removed > 0) {
    nearest(metric, p.channels, p.metric_eps, sources, targets, best, where);
    for (std::size_t i = 0; i < sources.size(); ++i) ranked.push_back(static_cast<std::int64_t>(i));
    sort_descending(ranked, best);
  }
  Tokens anchors;
  for (std::int64_t t = 0; t < p.num_prefix; ++t) anchors.push_back(t);
  if (removed == 0) {
    for (std::int64_t t = p.num_prefix; t < p.tokens; ++t) anchors.push_back(t);
  } else {
    Tokens kept(ranked.begin() + removed, ranked.end());
    if (p.order == MatchOrder::kTome) std::sort(kept.begin(), kept.end());
    for (const std::int64_t i : kept) anchors.push_back(sources[static_cast<std::size_t>(i)]);
    anchors.insert(anchors.end(), targets.begin(), targets.end());
  }
  for (std::size_t slot = 0; slot < anchors.size(); ++slot) {
    out.index.push_back(static_cast<std::int32_t>(anchors[slot]));
    out.map[static_cast<std::size_t>(anchors[slot])] = static_cast<std::int32_t>(slot);
  }
  for (std::int64_t k = 0; k < removed; ++k) {
    const auto i = static_cast<std::size_t>(ranked[static_cast<std::size_t>(k)]);
    out.map[static_cast<std::size_t>(sources[i])] = out.map[static_cast<std::size_t>(where[i])];
    out.sim[static_cast<std::size_t>(sources[i])] = best[i];
  }
  return out;
}

Expected select_slowly(const SelectParams& p, const float* score, const float* metric) {
  Expected out{std::vector<std::int32_t>(static_cast<std::size_t>(p.tokens), -1), {},
               std::vector<float>(static_cast<std::size_t>(p.tokens), 1.0F)};
  std::vector<float> value(score, score + p.tokens);
  for (float& v : value) v = v != v ? -std::numeric_limits<float>::infinity() : v;
  Tokens ranked;
  for (std::int64_t t = p.num_prefix; t < p.tokens; ++t) ranked.push_back(t);
  sort_descending(ranked, value);
  Tokens chosen(ranked.begin(), ranked.begin() + (p.kept - p.num_prefix));
  Tokens rest(ranked.begin() + (p.kept - p.num_prefix), ranked.end());
  Tokens by_index = chosen;
  std::sort(by_index.begin(), by_index.end());
  if (p.order == SelectOrder::kIndex) chosen = by_index;
  Tokens anchors;
  for (std::int64_t t = 0; t < p.num_prefix; ++t) anchors.push_back(t);
  anchors.insert(anchors.end(), chosen.begin(), chosen.end());
  for (std::size_t slot = 0; slot < anchors.size(); ++slot) {
    out.index.push_back(static_cast<std::int32_t>(anchors[slot]));
    out.map[static_cast<std::size_t>(anchors[slot])] = static_cast<std::int32_t>(slot);
  }
  if (p.leftover == Leftover::kFuse && !rest.empty()) {
    for (const std::int64_t t : rest) out.map[static_cast<std::size_t>(t)] = static_cast<std::int32_t>(p.kept);
    out.index.push_back(-1);
  } else if (p.leftover == Leftover::kNearest && !rest.empty()) {
    std::vector<float> best;
    Tokens where;
    nearest(metric, p.channels, p.metric_eps, rest, by_index, best, where);
    for (std::size_t i = 0; i < rest.size(); ++i) {
      out.map[static_cast<std::size_t>(rest[i])] = out.map[static_cast<std::size_t>(where[i])];
      out.sim[static_cast<std::size_t>(rest[i])] = best[i];
    }
  }
  return out;
}

// A plan in blocks of exactly its size.
struct PlanMemory {
  PlanMemory(std::int64_t batch, std::int64_t tokens, std::int64_t slots)
      : map(static_cast<std::size_t>(batch * tokens), -9), index(static_cast<std::size_t>(batch * slots), -9),
        sim(static_cast<std::size_t>(batch * tokens), -9.0F) {}
  cpu::Plan plan() { return {map.data(), index.data(), sim.data()}; }

  std::vector<std::int32_t> map, index;
  std::vector<float> sim;
};

bool equal(const Expected& wanted, const PlanMemory& got, std::int64_t image, std::int64_t tokens, std::int64_t slots) {
  return std::equal(wanted.map.begin(), wanted.map.end(), got.map.begin() + image * tokens) &&
         std::equal(wanted.index.begin(), wanted.index.end(), got.index.begin() + image * slots) &&
         std::equal(wanted.sim.begin(), wanted.sim.end(), got.sim.begin() + image * tokens);
}

ParallelFor some_parallel(Random& random) {
  return coin(random) ? ParallelFor(nullptr, run_on_threads, between(random, 2, 5)) : ParallelFor();
}

std::int64_t some_tokens(Random& random) { return between(random, 0, 30) == 0 ? between(random, 200, 400) : between(random, 1, 45); }

float close_to(float wanted) { return 1e-5F * std::max(1.0F, std::fabs(wanted)); }

void check_reduce(const ReduceParams& p, const Values& x, const PlanMemory& plan, Random& random, std::uint64_t seed) {
  std::vector<float> weight;
  const bool weighted = coin(random);
  if (weighted) {
    for (std::int64_t i = 0; i < p.batch * p.tokens; ++i) weight.push_back(static_cast<float>(between(random, 0, 4)));
  }
  const ParallelFor parallel = some_parallel(random);
  std::vector<char> scratch(cpu::reduce_scratch(p, parallel));
  const auto elements = static_cast<std::size_t>(p.batch * p.slots * p.features);
  std::vector<float> y32(x.type == Dtype::kFloat32 ? elements : 0);
  std::vector<std::uint16_t> y16(x.type == Dtype::kFloat32 ? 0 : elements);
  void* const y = x.type == Dtype::kFloat32 ? static_cast<void*>(y32.data()) : y16.data();
  std::vector<float> wsum(static_cast<std::size_t>(p.batch * p.slots));
  const char* const wrong = cpu::token_reduce(p, x.data(), x.type, plan.map.data(), plan.index.data(),
                                              weighted ? weight.data() : nullptr, y, wsum.data(), scratch.data(), parallel);
  expect(wrong == nullptr, "reduce refuses a good plan", seed);
  for (std::int64_t row = 0; row < p.batch * p.slots; ++row) {
    const std::int64_t image = row / p.slots;
    const std::int64_t slot = row % p.slots;
    const std::int32_t anchor = plan.index[static_cast<std::size_t>(row)];
    const auto map = plan.map.begin() + image * p.tokens;
    Tokens members;
    if (anchor >= 0) members.push_back(anchor);
    for (std::int64_t t = 0; t < p.tokens; ++t) {
      if (map[t] == slot && t != anchor) members.push_back(t);
    }
    const auto w = [&](std::int64_t t) { return weighted ? weight[static_cast<std::size_t>(image * p.tokens + t)] : 1.0F; };
    float total = 0;
    for (const std::int64_t t : members) total += w(t);
    expect(total == wsum[static_cast<std::size_t>(row)], "wsum", seed);
    if (p.mode == ReduceMode::kMlerp || p.mode == ReduceMode::kMlerpAnchor) continue;  // tests/plugins checks those
    for (std::int64_t f = 0; f < p.features; ++f) {
      const auto at = [&](std::int64_t t) { return x.seen[static_cast<std::size_t>((image * p.tokens + t) * p.features + f)]; };
      float sum = 0;
      float plain = 0;
      float most = -std::numeric_limits<float>::infinity();
      for (const std::int64_t t : members) {
        sum += w(t) * at(t);
        plain += at(t);
        // an anchor that maps elsewhere counts in sums, as their start, but in no maximum
        if (map[t] == slot) most = at(t) > most || at(t) != at(t) ? at(t) : most;
      }
      const bool mapped = std::any_of(members.begin(), members.end(), [&](std::int64_t t) { return map[t] == slot; });
      float wanted = 0;
      if (p.mode == ReduceMode::kSum) wanted = sum;
      if (p.mode == ReduceMode::kAnchor && anchor >= 0) wanted = at(anchor);
      if (p.mode == ReduceMode::kMean && !members.empty()) wanted = plain / static_cast<float>(members.size());
      if (p.mode == ReduceMode::kMax && mapped) wanted = most;
      if (p.mode == ReduceMode::kWmean) wanted = total != 0.0F ? sum / total : (anchor >= 0 ? at(anchor) : sum);
      const std::size_t i = static_cast<std::size_t>(row * p.features + f);
      float got = x.type == Dtype::kFloat32 ? y32[i] : 0;
      if (x.type == Dtype::kFloat16) {
        got = cpu::from_half(y16[i]);
        wanted = cpu::from_half(cpu::to_half(wanted));
      } else if (x.type == Dtype::kBFloat16) {
        got = cpu::from_bfloat16(y16[i]);
        wanted = cpu::from_bfloat16(cpu::to_bfloat16(wanted));
      }
      const bool special = !std::isfinite(wanted) || !std::isfinite(got);  // NaN may be infinity - infinity
      if (special && members.size() > 1) continue;
      const bool good = (wanted != wanted && got != got) || wanted == got || std::fabs(wanted - got) <= close_to(wanted);
      expect(good, "y", seed);
    }
  }
}

void check_match(std::uint64_t seed) {
  Random random(seed);
  MatchParams p{};
  p.batch = between(random, 0, 3);
  p.tokens = some_tokens(random);
  p.num_prefix = between(random, 0, std::min<std::int64_t>(p.tokens, 5));
  p.channels = between(random, 0, 70);
  p.slots = p.tokens - between(random, 0, (p.tokens - p.num_prefix) / 2);
  p.order = static_cast<MatchOrder>(between(random, 0, 1));
  p.metric_eps = coin(random) ? 0.0F : 1.5F;
  const Values metric = make_values(random, p.batch * p.tokens * p.channels);
  const ParallelFor parallel = some_parallel(random);
  PlanMemory got(p.batch, p.tokens, p.slots);
  std::vector<char> scratch(cpu::match_scratch(p, parallel));
  const char* const wrong = cpu::token_match(p, metric.data(), metric.type, got.plan(), scratch.data(), parallel);
  expect(wrong == nullptr, "match refuses good counts", seed);
  for (std::int64_t image = 0; image < p.batch; ++image) {
    const Expected wanted = match_slowly(p, metric.seen.data() + image * p.tokens * p.channels);
    expect(equal(wanted, got, image, p.tokens, p.slots), "match", seed);
  }
  MatchParams beyond = p;
  beyond.slots = coin(random) ? p.tokens + 1 : p.tokens - (p.tokens - p.num_prefix) / 2 - 1;
  expect(cpu::token_match(beyond, nullptr, Dtype::kFloat32, {}, nullptr, parallel) != nullptr, "match takes bad counts", seed);

  ReduceParams r{{static_cast<ReduceMode>(between(random, 0, 6))}, p.batch, p.tokens, p.slots, between(random, 0, 40)};
  check_reduce(r, make_values(random, r.batch * r.tokens * r.features), got, random, seed);
}

void check_select(std::uint64_t seed) {
  Random random(seed);
  SelectParams p{};
  p.batch = between(random, 1, 3);
  p.num_prefix = between(random, 0, 5);
  p.tokens = p.num_prefix + some_tokens(random);
  p.channels = between(random, 1, 20);
  p.kept = between(random, p.num_prefix + 1, p.tokens);
  p.leftover = static_cast<Leftover>(between(random, 0, 2));
  p.order = static_cast<SelectOrder>(between(random, 0, 1));
  p.slots = p.kept + (p.leftover == Leftover::kFuse && p.kept < p.tokens ? 1 : 0);
  const Values score = make_values(random, p.batch * p.tokens);
  const Values metric = make_values(random, p.batch * p.tokens * p.channels);
  const ParallelFor parallel = some_parallel(random);
  PlanMemory got(p.batch, p.tokens, p.slots);
  std::vector<std::int32_t> count(static_cast<std::size_t>(p.batch));
  std::vector<char> scratch(cpu::select_scratch(p, parallel));
  const char* const wrong = cpu::token_select(p, score.data(), score.type, metric.data(), metric.type, got.plan(),
                                              count.data(), scratch.data(), parallel);
  expect(wrong == nullptr, "select refuses good counts", seed);
  for (std::int64_t image = 0; image < p.batch; ++image) {
    const Expected wanted = select_slowly(p, score.seen.data() + image * p.tokens,
                                          metric.seen.data() + image * p.tokens * p.channels);
    expect(equal(wanted, got, image, p.tokens, p.slots), "select", seed);
    expect(count[static_cast<std::size_t>(image)] == p.slots, "count", seed);
  }
  ReduceParams r{{static_cast<ReduceMode>(between(random, 0, 6))}, p.batch, p.tokens, p.slots, between(random, 1, 600)};
  check_reduce(r, make_values(random, r.batch * r.tokens * r.features), got, random, seed);
}

// A corrupt plan is refused, whatever it holds, and touches nothing outside the buffers.
void check_corrupt(std::uint64_t seed) {
  Random random(seed);
  ReduceParams p{{static_cast<ReduceMode>(between(random, 0, 6))}, between(random, 1, 3), between(random, 1, 20),
                 between(random, 1, 20), between(random, 1, 9)};
  PlanMemory plan(p.batch, p.tokens, p.slots);
  for (std::int32_t& slot : plan.map) slot = static_cast<std::int32_t>(between(random, -1, p.slots - 1));
  for (std::int32_t& token : plan.index) token = static_cast<std::int32_t>(between(random, -1, p.tokens - 1));
  const Values x = make_values(random, p.batch * p.tokens * p.features);
  check_reduce(p, x, plan, random, seed);  // in range, but no plan of any planner
  const std::int32_t bad[] = {-2, std::numeric_limits<std::int32_t>::min(), std::numeric_limits<std::int32_t>::max()};
  auto& list = coin(random) ? plan.map : plan.index;
  const std::int64_t limit = &list == &plan.map ? p.slots : p.tokens;
  const std::int64_t kind = between(random, 0, 3);
  list[static_cast<std::size_t>(between(random, 0, static_cast<std::int64_t>(list.size()) - 1))] =
      kind == 3 ? static_cast<std::int32_t>(limit) : bad[kind];
  const ParallelFor parallel = some_parallel(random);
  std::vector<char> scratch(cpu::reduce_scratch(p, parallel));
  std::vector<char> y(static_cast<std::size_t>(p.batch * p.slots * p.features * 4));
  std::vector<float> wsum(static_cast<std::size_t>(p.batch * p.slots));
  const char* const wrong = cpu::token_reduce(p, x.data(), x.type, plan.map.data(), plan.index.data(), nullptr, y.data(),
                                              wsum.data(), scratch.data(), parallel);
  expect(wrong != nullptr, "reduce takes a corrupt plan", seed);
}

// All halves there and back, and float32 rounding at every tie.
void check_conversions() {
  for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = cpu::from_half(half);
    expect(value != value ? (cpu::to_half(value) & 0x7fffU) > 0x7c00U : cpu::to_half(value) == half, "half", bits);
    const float brain = cpu::from_bfloat16(half);
    expect(brain != brain ? cpu::to_bfloat16(brain) != 0 : cpu::to_bfloat16(brain) == half, "bfloat16", bits);
    if (bits >= 0x7bffU) continue;
    const auto next = static_cast<std::uint16_t>(bits + 1);
    const float middle = (value + cpu::from_half(next)) / 2.0F;
    expect(cpu::to_half(middle) == (bits % 2 == 0 ? half : next), "half tie", bits);
    expect(cpu::to_half(std::nextafter(middle, 0.0F)) == half, "half below tie", bits);
    expect(cpu::to_half(std::nextafter(middle, 1e6F)) == next, "half above tie", bits);
    float vector[11];  // more than one vector, and a rest
    std::uint16_t narrowed[11];
    std::fill(vector, vector + 11, middle);
    cpu::inner_loops().rows.narrow(vector, Dtype::kFloat16, narrowed, 11);
    expect(std::all_of(narrowed, narrowed + 11, [&](std::uint16_t h) { return h == cpu::to_half(middle); }), "narrow", bits);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::uint64_t first = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 0;
  const std::uint64_t cases = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1000;
  check_conversions();
  for (std::uint64_t seed = first; seed < first + cases; ++seed) {
    check_match(seed);
    check_select(seed);
    check_corrupt(seed);
  }
  std::printf("%s: %llu cases, %d failures\n", tmdeploy::cpu::inner_loops().name, static_cast<unsigned long long>(cases),
              g_failures);
  return g_failures == 0 ? 0 : 1;
}
