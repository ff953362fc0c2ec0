// The emulated kernels on random shapes, every tensor an exact allocation: for AddressSanitizer and UBSan. Checks what any
// plan must have; the values are compared with the reference elsewhere.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "token_ops.h"

namespace {

using tmdeploy::Dtype;

std::mt19937 g_random(7);

int between(int low, int high) { return std::uniform_int_distribution<int>(low, high)(g_random); }

void fail(const char* what, const char* detail) {
  std::printf("FAIL %s: %s\n", what, detail);
  std::exit(1);
}

// Random values of an element type, in exactly as many bytes as they take.
std::unique_ptr<unsigned char[]> values(Dtype dtype, std::int64_t count) {
  const std::size_t size = dtype == Dtype::kFloat32 ? 4 : 2;
  std::unique_ptr<unsigned char[]> memory(new unsigned char[size * static_cast<std::size_t>(count)]);
  for (std::int64_t i = 0; i < count; ++i) {
    // any bits at times: NaNs, infinities, subnormals
    const std::uint32_t wild = static_cast<std::uint32_t>(g_random());
    const std::uint32_t tame = 0x3F800000U + (wild & 0x007F0000U) + (wild & 0x80000000U);
    const std::uint32_t bits = between(0, 40) == 0 ? wild : tame;
    for (std::size_t b = 0; b < size; ++b)
      memory[static_cast<std::size_t>(i) * size + b] = static_cast<unsigned char>(bits >> (8 * (4 - size + b)));
  }
  return memory;
}

void check_plan(const std::vector<std::int32_t>& map, const std::vector<std::int32_t>& index, int batch, int tokens,
                int slots, bool drops) {
  for (int b = 0; b < batch; ++b) {
    for (int n = 0; n < tokens; ++n) {
      const int slot = map[static_cast<std::size_t>(b * tokens + n)];
      if (slot < (drops ? -1 : 0) || slot >= slots) fail("plan", "map out of range");
    }
    for (int s = 0; s < slots; ++s) {
      const int anchor = index[static_cast<std::size_t>(b * slots + s)];
      if (anchor < -1 || anchor >= tokens) fail("plan", "index out of range");
      if (anchor >= 0 && map[static_cast<std::size_t>(b * tokens + anchor)] != s) fail("plan", "an anchor moved");
    }
  }
}

void reduce(int batch, int tokens, int slots, const std::vector<std::int32_t>& map,
            const std::vector<std::int32_t>& index) {
  const Dtype dtype = static_cast<Dtype>(between(0, 2));
  tmdeploy::ReduceParams p{};
  p.batch = batch;
  p.tokens = tokens;
  p.slots = slots;
  p.features = between(0, 3) == 0 ? 192 : between(0, 40);
  p.mode = static_cast<tmdeploy::ReduceMode>(between(0, 6));
  const auto x = values(dtype, p.batch * p.tokens * p.features);
  const auto y = values(dtype, p.batch * p.slots * p.features);
  const std::vector<float> weight(static_cast<std::size_t>(batch * tokens), 2.0F);
  std::vector<float> wsum(static_cast<std::size_t>(batch * slots));
  const char* problem = tmdeploy::cuda::token_reduce(p, dtype, x.get(), map.data(), index.data(),
                                                     between(0, 1) == 0 ? nullptr : weight.data(), y.get(), wsum.data(),
                                                     nullptr);
  if (problem != nullptr) fail("reduce", problem);
}

void match(int batch, int tokens, int prefix, bool spread) {
  const Dtype dtype = static_cast<Dtype>(between(0, 2));
  tmdeploy::MatchParams p{};
  p.batch = batch;
  p.tokens = tokens;
  p.channels = between(0, 3) == 0 ? 64 : between(0, 40);
  p.num_prefix = prefix;
  p.slots = tokens - between(0, (tokens - prefix) / 2);
  p.deterministic = between(0, 1) == 0;
  p.order = static_cast<tmdeploy::MatchOrder>(between(0, 1));
  const auto metric = values(dtype, p.batch * p.tokens * p.channels);
  std::vector<std::int32_t> map(static_cast<std::size_t>(batch * tokens));
  std::vector<std::int32_t> index(static_cast<std::size_t>(batch * p.slots));
  std::vector<float> sim(map.size());
  const std::size_t bytes = spread ? tmdeploy::cuda::match_workspace(p) : 0;
  const std::unique_ptr<unsigned char[]> workspace(new unsigned char[bytes]);
  const char* problem = tmdeploy::cuda::token_match(p, dtype, metric.get(), map.data(), index.data(), sim.data(),
                                                    bytes > 0 ? workspace.get() : nullptr, bytes, nullptr);
  if (problem != nullptr) fail("match", problem);
  check_plan(map, index, batch, tokens, static_cast<int>(p.slots), false);
  reduce(batch, tokens, static_cast<int>(p.slots), map, index);
}

void select(int batch, int tokens, int prefix) {
  const Dtype dtype = static_cast<Dtype>(between(0, 2));
  tmdeploy::SelectParams p{};
  p.batch = batch;
  p.tokens = tokens;
  p.num_prefix = prefix;
  p.kept = between(prefix + 1, tokens);
  p.leftover = static_cast<tmdeploy::Leftover>(between(0, 2));
  p.order = static_cast<tmdeploy::SelectOrder>(between(0, 1));
  p.channels = p.leftover == tmdeploy::Leftover::kNearest ? between(1, 70) : 0;
  p.slots = p.kept + (p.leftover == tmdeploy::Leftover::kFuse && p.kept < tokens ? 1 : 0);
  const auto score = values(dtype, p.batch * p.tokens);
  const auto metric = values(Dtype::kFloat16, p.batch * p.tokens * p.channels);
  std::vector<std::int32_t> map(static_cast<std::size_t>(batch * tokens));
  std::vector<std::int32_t> index(static_cast<std::size_t>(batch * p.slots));
  std::vector<std::int32_t> count(static_cast<std::size_t>(batch));
  std::vector<float> sim(map.size());
  const char* problem =
      tmdeploy::cuda::token_select(p, dtype, score.get(), Dtype::kFloat16, p.channels > 0 ? metric.get() : nullptr,
                                   map.data(), index.data(), sim.data(), count.data(), nullptr);
  if (problem != nullptr) fail("select", problem);
  check_plan(map, index, batch, tokens, static_cast<int>(p.slots), true);
  reduce(batch, tokens, static_cast<int>(p.slots), map, index);
}

// Any 32-bit numbers in place of a plan.
void reduce_garbage() {
  const int tokens = between(1, 90);
  const int slots = between(1, 90);
  std::vector<std::int32_t> map(static_cast<std::size_t>(tokens));
  std::vector<std::int32_t> index(static_cast<std::size_t>(slots));
  for (std::int32_t& slot : map) slot = between(0, 2) == 0 ? static_cast<std::int32_t>(g_random()) : between(-1, slots - 1);
  for (std::int32_t& anchor : index)
    anchor = between(0, 2) == 0 ? static_cast<std::int32_t>(g_random()) : between(-1, tokens - 1);
  reduce(1, tokens, slots, map, index);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 30;
  for (int round = 0; round < rounds; ++round) {
    const int tokens = between(2, round % 5 == 0 ? 300 : 80);
    const int prefix = between(0, tokens < 5 ? tokens - 1 : 4);
    match(between(1, 2), tokens, prefix, false);
    select(between(1, 2), tokens, prefix);
    reduce_garbage();
  }
  match(1, 530, 1, true);
  match(1, 530, 1, false);
  std::printf("done\n");
}
