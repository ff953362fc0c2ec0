#include "kernels/cpu/c_api.h"

#include <atomic>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "kernels/cpu/inner_loops.h"
#include "kernels/cpu/token_ops.h"

namespace {

using tmdeploy::Dtype;
using tmdeploy::cpu::ParallelFor;

void run_on_threads(void* context, std::int64_t count, ParallelFor::Task task, void* data) {
  const std::int64_t threads = *static_cast<const std::int64_t*>(context);
  std::atomic<std::int64_t> next{0};
  const auto work = [&] {
    for (std::int64_t i = next++; i < count; i = next++) task(data, i);
  };
  std::vector<std::thread> pool;
  for (std::int64_t i = 1; i < threads && i < count; ++i) pool.emplace_back(work);
  work();
  for (std::thread& thread : pool) thread.join();
}

bool known(std::int32_t type) { return type >= 0 && type <= static_cast<std::int32_t>(Dtype::kBFloat16); }

// Gives the kernel its threads and scratch; nothing is thrown across the interface.
template <class Bytes, class Kernel>
const char* call(std::int32_t threads, const Bytes& bytes, const Kernel& kernel) {
  try {
    std::int64_t width = threads;
    const ParallelFor parallel = threads > 1 ? ParallelFor(&width, run_on_threads, width) : ParallelFor();
    const std::unique_ptr<std::byte[]> scratch(new std::byte[bytes(parallel)]);
    return kernel(scratch.get(), parallel);
  } catch (const std::bad_alloc&) {
    return "out of memory";
  } catch (...) {
    return "no thread could be started";
  }
}

}  // namespace

const char* tmdeploy_instruction_set() { return tmdeploy::cpu::inner_loops().name; }

const char* tmdeploy_token_match(int64_t batch, int64_t tokens, int64_t channels, int64_t slots,
                                 const double* attributes, const void* metric, int32_t metric_type, int32_t* map,
                                 int32_t* index, float* sim, int32_t threads) {
  tmdeploy::MatchParams params{{}, batch, tokens, channels, slots};
  if (!known(metric_type) || !tmdeploy::read_codes<tmdeploy::MatchAttributes>(attributes, params)) {
    return "an unknown type or attribute value";
  }
  return call(
      threads, [&](const ParallelFor& parallel) { return tmdeploy::cpu::match_scratch(params, parallel); },
      [&](void* scratch, const ParallelFor& parallel) {
        return tmdeploy::cpu::token_match(params, metric, static_cast<Dtype>(metric_type), {map, index, sim}, scratch,
                                          parallel);
      });
}

const char* tmdeploy_token_select(int64_t batch, int64_t tokens, int64_t channels, int64_t slots, int64_t kept,
                                  const double* attributes, const void* score, int32_t score_type, const void* metric,
                                  int32_t metric_type, int32_t* map, int32_t* index, float* sim, int32_t* count,
                                  int32_t threads) {
  tmdeploy::SelectParams params{{}, batch, tokens, channels, slots, kept};
  if (!known(score_type) || !known(metric_type) ||
      !tmdeploy::read_codes<tmdeploy::SelectAttributes>(attributes, params)) {
    return "an unknown type or attribute value";
  }
  return call(
      threads, [&](const ParallelFor& parallel) { return tmdeploy::cpu::select_scratch(params, parallel); },
      [&](void* scratch, const ParallelFor& parallel) {
        return tmdeploy::cpu::token_select(params, score, static_cast<Dtype>(score_type), metric,
                                           static_cast<Dtype>(metric_type), {map, index, sim}, count, scratch,
                                           parallel);
      });
}

const char* tmdeploy_token_reduce(int64_t batch, int64_t tokens, int64_t slots, int64_t features,
                                  const double* attributes, const void* x, int32_t x_type, const int32_t* map,
                                  const int32_t* index, const float* weight, void* y, float* wsum, int32_t threads) {
  tmdeploy::ReduceParams params{{}, batch, tokens, slots, features};
  if (!known(x_type) || !tmdeploy::read_codes<tmdeploy::ReduceAttributes>(attributes, params)) {
    return "an unknown type or attribute value";
  }
  return call(
      threads, [&](const ParallelFor& parallel) { return tmdeploy::cpu::reduce_scratch(params, parallel); },
      [&](void* scratch, const ParallelFor& parallel) {
        return tmdeploy::cpu::token_reduce(params, x, static_cast<Dtype>(x_type), map, index, weight, y, wsum, scratch,
                                           parallel);
      });
}
