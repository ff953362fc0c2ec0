#include "cuda_on_host.h"

#include <ucontext.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define TM_FIBER_LEAVES(save, bottom, size) __sanitizer_start_switch_fiber(save, bottom, size)
#define TM_FIBER_ENTERED(save, bottom, size) __sanitizer_finish_switch_fiber(save, bottom, size)
#else
#define TM_FIBER_LEAVES(save, bottom, size) static_cast<void>(0)
#define TM_FIBER_ENTERED(save, bottom, size) static_cast<void>(0)
#endif

emulator::Index threadIdx;
emulator::Index blockIdx;

namespace emulator {
namespace {

constexpr int kWarp = 32;
constexpr std::size_t kStack = 128 * 1024;

enum class State { kReady, kAtBarrier, kAtWarp, kDone };

struct Fiber {
  ucontext_t context{};
  std::unique_ptr<unsigned char[]> stack{new unsigned char[kStack]};
  State state = State::kDone;
  int line = 0;
  void* fake_stack = nullptr;
};

// Two rows of words, used in turn: a lane that is ahead cannot overwrite what a slower one still reads.
struct Warp {
  std::uint64_t words[2][kWarp] = {};
  int arrived = 0;
  int turn = 0;
};

std::mt19937_64 g_random{0};
std::string g_error = "no error";
std::vector<std::unique_ptr<Fiber>> g_fibers;
std::vector<Warp> g_warps;
ucontext_t g_scheduler;
[[maybe_unused]] void* g_scheduler_fake_stack = nullptr;
[[maybe_unused]] const void* g_scheduler_bottom = nullptr;
[[maybe_unused]] std::size_t g_scheduler_size = 0;
int g_running = 0;
bool g_failed = false;
unsigned char* g_shared = nullptr;
const std::function<void()>* g_kernel = nullptr;

Fiber& running() { return *g_fibers[static_cast<std::size_t>(g_running)]; }

void to_scheduler() {
  Fiber& fiber = running();
  TM_FIBER_LEAVES(&fiber.fake_stack, g_scheduler_bottom, g_scheduler_size);
  swapcontext(&fiber.context, &g_scheduler);
  TM_FIBER_ENTERED(fiber.fake_stack, &g_scheduler_bottom, &g_scheduler_size);
}

void fail(const std::string& what) {
  if (!g_failed)
    g_error = "emulated kernel: " + what + " (block " + std::to_string(blockIdx.x) + ", thread " +
              std::to_string(g_running) + ")";
  g_failed = true;
}

void thread_main() {
  TM_FIBER_ENTERED(nullptr, &g_scheduler_bottom, &g_scheduler_size);
  (*g_kernel)();
  running().state = State::kDone;
  TM_FIBER_LEAVES(nullptr, g_scheduler_bottom, g_scheduler_size);  // null: this fiber does not come back
  setcontext(&g_scheduler);
}

// True where every thread of [first, last) is in `state`, at one line; a mix that can never resolve is an error.
bool all_at(int first, int last, State state, const char* what) {
  int waiting = 0;
  int line = 0;
  bool other_line = false;
  bool done = false;
  for (int t = first; t < last; ++t) {
    const Fiber& fiber = *g_fibers[static_cast<std::size_t>(t)];
    done = done || fiber.state == State::kDone;
    if (fiber.state != state) continue;
    other_line = other_line || (waiting > 0 && fiber.line != line);
    line = fiber.line;
    ++waiting;
  }
  if (waiting > 0 && done) fail(std::string(what) + " at line " + std::to_string(line) + " that a finished thread misses");
  if (other_line) fail(std::string(what) + " reached at different lines");
  return waiting == last - first;
}

void release(int first, int last) {
  for (int t = first; t < last; ++t) g_fibers[static_cast<std::size_t>(t)]->state = State::kReady;
}

void run_block(int threads) {
  g_warps.assign(static_cast<std::size_t>(threads / kWarp), Warp{});
  while (static_cast<int>(g_fibers.size()) < threads) g_fibers.push_back(std::make_unique<Fiber>());
  std::vector<int> ready;
  for (int t = 0; t < threads; ++t) {
    Fiber& fiber = *g_fibers[static_cast<std::size_t>(t)];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, thread_main, 0);
    fiber.state = State::kReady;
    fiber.fake_stack = nullptr;
    ready.push_back(t);
  }
  int left = threads;
  while (left > 0 && !g_failed) {
    if (ready.empty()) {
      // Only a barrier can be what all wait for.
      if (all_at(0, threads, State::kAtBarrier, "__syncthreads")) {
        release(0, threads);
        for (int t = 0; t < threads; ++t) ready.push_back(t);
        continue;
      }
      fail("threads wait for each other for ever");
      break;
    }
    const std::size_t pick = std::uniform_int_distribution<std::size_t>(0, ready.size() - 1)(g_random);
    g_running = ready[pick];
    ready[pick] = ready.back();
    ready.pop_back();
    Fiber& fiber = running();
    threadIdx.x = static_cast<unsigned>(g_running);
    TM_FIBER_LEAVES(&g_scheduler_fake_stack, fiber.stack.get(), kStack);
    swapcontext(&g_scheduler, &fiber.context);
    TM_FIBER_ENTERED(g_scheduler_fake_stack, nullptr, nullptr);
    if (fiber.state == State::kReady) ready.push_back(g_running);
    if (fiber.state == State::kDone) --left;
    if (fiber.state == State::kAtWarp) {
      const int first = g_running / kWarp * kWarp;
      if (all_at(first, first + kWarp, State::kAtWarp, "a warp operation")) {
        release(first, first + kWarp);
        for (int t = first; t < first + kWarp; ++t) ready.push_back(t);
      }
    }
  }
}

}  // namespace

void seed(std::uint64_t value) { g_random.seed(value); }

unsigned char* shared_memory() { return g_shared; }

void block_barrier(int line) {
  running().state = State::kAtBarrier;
  running().line = line;
  to_scheduler();
}

const std::uint64_t* warp_exchange(unsigned mask, std::uint64_t value, int line) {
  if (mask != 0xFFFFFFFFU) fail("a warp operation on a part of the warp");
  Warp& warp = g_warps[static_cast<std::size_t>(g_running / kWarp)];
  if (warp.arrived == kWarp) {
    warp.arrived = 0;
    warp.turn ^= 1;
  }
  std::uint64_t* words = warp.words[warp.turn];
  words[g_running % kWarp] = value;
  ++warp.arrived;
  running().state = State::kAtWarp;
  running().line = line;
  to_scheduler();
  return words;
}

unsigned ballot(unsigned mask, bool predicate, int line) {
  const std::uint64_t* words = warp_exchange(mask, predicate ? 1 : 0, line);
  unsigned bits = 0;
  for (int lane = 0; lane < kWarp; ++lane) bits |= static_cast<unsigned>(words[lane]) << lane;
  return bits;
}

cudaError_t launch(std::int64_t grid, int block, std::size_t shared_bytes, const std::function<void()>& kernel) {
  if (grid < 1 || grid > INT32_MAX || block < 1 || block > kMaxThreads || block % kWarp != 0 ||
      shared_bytes > kMaxShared)
    return cudaErrorInvalidConfiguration;
  g_failed = false;
  g_kernel = &kernel;
  for (std::int64_t b = 0; b < grid && !g_failed; ++b) {
    blockIdx.x = static_cast<unsigned>(b);
    // a fresh, exact allocation: AddressSanitizer sees its ends
    std::unique_ptr<unsigned char[]> memory(new unsigned char[shared_bytes]);
    std::memset(memory.get(), 0xFF, shared_bytes);
    g_shared = memory.get();
    run_block(block);
    g_shared = nullptr;
  }
  return g_failed ? cudaErrorLaunchFailure : cudaSuccess;
}

const std::string& last_error() { return g_error; }

}  // namespace emulator

const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorLaunchFailure) return emulator::last_error().c_str();
  return error == cudaSuccess ? "no error" : "emulated kernel: too many blocks, threads or bytes of shared memory";
}

float __half2float(__half v) {
  const std::uint32_t sign = static_cast<std::uint32_t>(v.bits & 0x8000U) << 16;
  const std::uint32_t exponent = (v.bits >> 10) & 0x1FU;
  const std::uint32_t fraction = v.bits & 0x3FFU;
  if (exponent == 31) return __uint_as_float(sign | 0x7F800000U | fraction << 13);
  if (exponent != 0) return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
  const float tiny = std::ldexp(static_cast<float>(fraction), -24);
  return sign != 0 ? -tiny : tiny;
}

__half __float2half_rn(float v) {
  const std::uint32_t bits = __float_as_uint(v);
  const std::uint16_t sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000U);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) return {0x7FFFU};
  if (magnitude >= 0x477FF000U) return {static_cast<std::uint16_t>(sign | 0x7C00U)};  // rounds to 65536 or more
  if (magnitude < 0x38800000U) {
    // subnormal: the units of 2^-24, rounded by the default mode of the host
    const float units = std::nearbyint(std::ldexp(__uint_as_float(magnitude), 24));
    return {static_cast<std::uint16_t>(sign | static_cast<std::uint16_t>(units))};
  }
  const std::uint32_t rounded = magnitude + 0xFFFU + (magnitude >> 13 & 1U);
  return {static_cast<std::uint16_t>(sign | (rounded - 0x38000000U) >> 13)};
}

__nv_bfloat16 __float2bfloat16_rn(float v) {
  const std::uint32_t bits = __float_as_uint(v);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return {0x7FFFU};
  return {static_cast<std::uint16_t>((bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16)};
}

// For the tests: schedules by seed.
extern "C" __attribute__((visibility("default"))) void tmdeploy_emulator_seed(std::uint64_t value) {
  emulator::seed(value);
}
