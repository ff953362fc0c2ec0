// TokenReduce: y is written once and x read about once (its repeats are in cache); the rest is bookkeeping in shared
// memory.
//
// A block of 256 threads makes up to 32 slots of one image (slot_members.cuh): it reads the image's map, keeps the
// tokens that belong to its slots (compaction by ballots, token order kept), and lists each slot's members, the anchor
// first. Then a thread takes 16 bytes of a slot at a time and goes through the members in that order, in float32
// without contraction, so that y has the bits of the reference. No atomics. Shared memory: 6 bytes a token.
#include "block.cuh"
#include "element.cuh"
#include "slot_members.cuh"
#include "token_ops.h"

namespace tmdeploy::cuda {
namespace {

constexpr int kLongList = 4;  // members loaded ahead of their sum

// Of reduce_slots; with 4 the two exceptions spill.
constexpr int blocks_a_processor(int features) { return features == 1024 || features == 0 ? 3 : 4; }

constexpr float kNan = __builtin_nanf("");

// Products and sums without contraction.
TM_DEVICE float mul(float a, float b) { return __fmul_rn(a, b); }
TM_DEVICE float add(float a, float b) { return __fadd_rn(a, b); }

// One slot's result for kWidth neighbouring features; every mode but the mlerps.
template <class T, int kWidth>
TM_DEVICE void reduce_features(ReduceMode mode, const Groups& groups, int slot, const std::uint16_t* member, const T* x,
                               int features, const float* weight, float (&y)[kWidth]) {
  using Values = Pack<T, kWidth>;
  const int anchor = groups.anchor[slot];
  const int count = groups.count[slot];
  const std::uint16_t* list = member + groups.start[slot];
  const bool maximum = mode == ReduceMode::kMax;
  const bool weighted = (mode == ReduceMode::kWmean || mode == ReduceMode::kSum) && weight != nullptr;
#pragma unroll
  for (int e = 0; e < kWidth; ++e) y[e] = 0.0F;
  if (mode == ReduceMode::kAnchor) {
    if (anchor < 0) return;
    const Values v = *reinterpret_cast<const Values*>(x + static_cast<std::int64_t>(anchor) * features);
#pragma unroll
    for (int e = 0; e < kWidth; ++e) y[e] = to_float(v.v[e]);
    return;
  }

  // a stray anchor counts in sums, not in maxima
  const int skipped = maximum && anchor >= 0 && groups.own_anchor[slot] == 0 ? 1 : 0;
  if (skipped == count) return;
  // -0 + v and max(-inf, v) are v, bit for bit
  float wsum = -0.0F;
#pragma unroll
  for (int e = 0; e < kWidth; ++e) y[e] = maximum ? -INFINITY : -0.0F;
  for (int first = skipped; first < count; first += kLongList) {
    Values ahead[kLongList];
    float w[kLongList];
#pragma unroll
    for (int m = 0; m < kLongList; ++m) {
      if (first + m < count) {
        const std::int64_t token = list[first + m];
        ahead[m] = *reinterpret_cast<const Values*>(x + token * features);
        w[m] = weighted ? weight[token] : 1.0F;
      }
    }
#pragma unroll
    for (int m = 0; m < kLongList; ++m) {
      if (first + m < count) {
        wsum = add(wsum, w[m]);
#pragma unroll
        for (int e = 0; e < kWidth; ++e) {
          const float v = to_float(ahead[m].v[e]);
          if (maximum)
            y[e] = v > y[e] || v != v ? v : y[e];  // a NaN stays
          else
            y[e] = add(y[e], mul(v, w[m]));
        }
      }
    }
  }
  if (mode == ReduceMode::kMean || mode == ReduceMode::kWmean) {
    const float divisor = mode == ReduceMode::kMean ? static_cast<float>(count) : wsum;
    if (divisor == 0.0F) {
      if (anchor < 0) return;
      const Values v = *reinterpret_cast<const Values*>(x + static_cast<std::int64_t>(anchor) * features);
#pragma unroll
      for (int e = 0; e < kWidth; ++e) y[e] = to_float(v.v[e]);
    } else {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) y[e] = __fdiv_rn(y[e], divisor);
    }
  }
}

// Sum of the weights of a slot's list, in its order.
TM_DEVICE float weight_sum(const Groups& groups, int slot, const std::uint16_t* member, const float* weight) {
  const int count = groups.count[slot];
  if (weight == nullptr) return static_cast<float>(count);
  const std::uint16_t* list = member + groups.start[slot];
  float sum = 0.0F;
#pragma unroll 4
  for (int m = 0; m < count; ++m) sum = m == 0 ? weight[list[m]] : add(sum, weight[list[m]]);
  return sum;
}

// block_slots slots of an image, by one of its `blocks` blocks. kFeatures: 0 = any; kWidth divides the features.
template <class T, int kFeatures, int kWidth>
TM_DEVICE void reduce_block(unsigned char* memory, const T* x, const std::int32_t* map, const std::int32_t* index,
                            const float* weight, const ReduceShape& s, T* y, float* wsum) {
  static_assert(kFeatures % kWidth == 0, "a fixed width has no rest");
  const ReduceMemory m = reduce_memory(memory, s);
  Groups& groups = *m.groups;
  const int features = kFeatures > 0 ? kFeatures : s.features;
  const std::int64_t image = blockIdx.x / static_cast<unsigned>(s.blocks);
  const int first_slot = static_cast<int>(blockIdx.x % static_cast<unsigned>(s.blocks)) * s.block_slots;
  const int slots_here = min(s.block_slots, s.slots - first_slot);
  x += image * s.tokens * features;
  if (weight != nullptr) weight += image * s.tokens;
  y += (image * s.slots + first_slot) * features;
  wsum += image * s.slots + first_slot;

  group_members(s, first_slot, slots_here, map + image * s.tokens, index + image * s.slots, groups, m.member, m.local);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < slots_here)
    wsum[thread] = groups.broken != 0 || groups.broken_slot[thread] != 0
                       ? kNan
                       : weight_sum(groups, thread, m.member, weight);
  const int packs = features / kWidth;
  for (int item = thread; item < slots_here * packs; item += kReduceThreads) {
    const int slot = item / packs;
    const int feature = item % packs * kWidth;
    float sum[kWidth];
    reduce_features<T, kWidth>(s.mode, groups, slot, m.member, x + feature, features, weight, sum);
    const bool broken = groups.broken != 0 || groups.broken_slot[slot] != 0;
    Pack<T, kWidth> out;
#pragma unroll
    for (int e = 0; e < kWidth; ++e) out.v[e] = from_float<T>(broken ? kNan : sum[e]);
    *reinterpret_cast<Pack<T, kWidth>*>(y + static_cast<std::int64_t>(slot) * features + feature) = out;
  }
}

// Grid: `blocks` blocks an image.
template <class T, int kFeatures, int kWidth>
__global__ void __launch_bounds__(kReduceThreads, blocks_a_processor(kFeatures))
    reduce_slots(const T* x, const std::int32_t* map, const std::int32_t* index, const float* weight,
                 const ReduceShape s, T* y, float* wsum) {
  TM_SHARED_MEMORY(memory);
  reduce_block<T, kFeatures, kWidth>(memory, x, map, index, weight, s, y, wsum);
}

// Norm of a token, by one warp.
template <class T>
TM_DEVICE float warp_norm(const T* x, int features) {
  float sum = 0.0F;
  for (int f = lane_id(); f < features; f += kWarpSize) {
    const float v = to_float(x[f]);
    sum = add(sum, mul(v, v));
  }
  return sqrtf(warp_sum(sum));
}

// One feature's unweighted mean over a slot's list.
template <class T>
TM_DEVICE float mean_of(const std::uint16_t* list, int count, const T* x, int features) {
  float sum = 0.0F;
#pragma unroll 4
  for (int m = 0; m < count; ++m) {
    const float v = to_float(x[static_cast<std::int64_t>(list[m]) * features]);
    sum = m == 0 ? v : add(sum, v);
  }
  return __fdiv_rn(sum, static_cast<float>(count > 0 ? count : 1));
}

// The two mlerps need norms over a whole row before anything can be written: a warp takes a slot.
template <class T>
TM_DEVICE void mlerp_block(unsigned char* memory, const T* x, const std::int32_t* map, const std::int32_t* index,
                           const float* weight, const ReduceShape& s, T* y, float* wsum) {
  const ReduceMemory m = reduce_memory(memory, s);
  Groups& groups = *m.groups;
  const std::int64_t image = blockIdx.x / static_cast<unsigned>(s.blocks);
  const int first_slot = static_cast<int>(blockIdx.x % static_cast<unsigned>(s.blocks)) * s.block_slots;
  const int slots_here = min(s.block_slots, s.slots - first_slot);
  x += image * s.tokens * s.features;
  if (weight != nullptr) weight += image * s.tokens;
  y += (image * s.slots + first_slot) * s.features;
  wsum += image * s.slots + first_slot;

  group_members(s, first_slot, slots_here, map + image * s.tokens, index + image * s.slots, groups, m.member, m.local);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < slots_here)
    wsum[thread] = groups.broken != 0 || groups.broken_slot[thread] != 0
                       ? kNan
                       : weight_sum(groups, thread, m.member, weight);
  for (int slot = warp_id(); slot < slots_here; slot += kReduceWarps) {
    const std::uint16_t* list = m.member + groups.start[slot];
    const int count = groups.count[slot];
    const int anchor = groups.anchor[slot];
    const bool broken = groups.broken != 0 || groups.broken_slot[slot] != 0;
    const bool stray = anchor >= 0 && groups.own_anchor[slot] == 0;
    float largest = -INFINITY;
    float anchor_norm = 0.0F;
    for (int e = 0; e < count; ++e) {
      const float norm = warp_norm(x + static_cast<std::int64_t>(list[e]) * s.features, s.features);
      if (e == 0 && anchor >= 0) anchor_norm = norm;
      if (!(e == 0 && stray)) largest = norm > largest || norm != norm ? norm : largest;
    }
    if (largest == -INFINITY) largest = 0.0F;  // nothing maps here
    float reference = anchor_norm;
    if (s.mode == ReduceMode::kMlerp) {
      float sum = 0.0F;
      for (int f = lane_id(); f < s.features; f += kWarpSize) {
        const float mean = mean_of(list, count, x + f, s.features);
        sum = add(sum, mul(mean, mean));
      }
      reference = sqrtf(warp_sum(sum));
    }
    if (reference == 0.0F) reference = 1.0F;
    for (int f = lane_id(); f < s.features; f += kWarpSize) {
      const float mean = mean_of(list, count, x + f, s.features);
      y[static_cast<std::int64_t>(slot) * s.features + f] =
          from_float<T>(broken ? kNan : __fdiv_rn(mul(mean, largest), reference));
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kReduceThreads)
    reduce_mlerp(const T* x, const std::int32_t* map, const std::int32_t* index, const float* weight,
                 const ReduceShape s, T* y, float* wsum) {
  TM_SHARED_MEMORY(memory);
  mlerp_block<T>(memory, x, map, index, weight, s, y, wsum);
}

}  // namespace

#ifndef TMDEPLOY_DEVICE_ONLY  // aot/ includes this file for what is above
namespace {

struct ReduceTensors {
  const void* x;
  const std::int32_t* map;
  const std::int32_t* index;
  const float* weight;
  void* y;
  float* wsum;
};

template <class T, class Kernel>
cudaError_t start(Kernel kernel, const ReduceShape& s, std::int64_t batch, const ReduceTensors& t,
                  cudaStream_t stream) {
  return launch(kernel, batch * s.blocks, kReduceThreads, reduce_bytes(s), stream, static_cast<const T*>(t.x), t.map,
                t.index, t.weight, s, static_cast<T*>(t.y), t.wsum);
}

template <class T>
cudaError_t run(const ReduceShape& s, std::int64_t batch, const ReduceTensors& t, cudaStream_t stream) {
  constexpr int kWidth = 16 / static_cast<int>(sizeof(T));
  if (s.mode == ReduceMode::kMlerp || s.mode == ReduceMode::kMlerpAnchor)
    return start<T>(reduce_mlerp<T>, s, batch, t, stream);
  const bool aligned =
      (reinterpret_cast<std::uintptr_t>(t.x) % 16 == 0) && (reinterpret_cast<std::uintptr_t>(t.y) % 16 == 0);
  if (!aligned || s.features % kWidth != 0) return start<T>(reduce_slots<T, 0, 1>, s, batch, t, stream);
  switch (s.features) {
    case 192:
      return start<T>(reduce_slots<T, 192, kWidth>, s, batch, t, stream);
    case 384:
      return start<T>(reduce_slots<T, 384, kWidth>, s, batch, t, stream);
    case 768:
      return start<T>(reduce_slots<T, 768, kWidth>, s, batch, t, stream);
    case 1024:
      return start<T>(reduce_slots<T, 1024, kWidth>, s, batch, t, stream);
    default:
      return start<T>(reduce_slots<T, 0, kWidth>, s, batch, t, stream);
  }
}

// Few slots a block where that is what fills the GPU; more where the map's scan would otherwise be repeated too often.
int slots_of_a_block(const ReduceParams& p) {
  if (p.tokens > 1024) return kMaxSlots;
  const std::int64_t all = p.batch * p.slots;
  return all >= 16 * 512 ? 16 : all >= 8 * 256 ? 8 : 4;
}

}  // namespace

const char* token_reduce(const ReduceParams& p, Dtype dtype, const void* x, const std::int32_t* map,
                         const std::int32_t* index, const float* weight, void* y, float* wsum, cudaStream_t stream) {
  if (p.batch < 0 || p.tokens < 0 || p.slots < 0 || p.features < 0) return "TokenReduce: a dimension is negative";
  if (p.tokens > kMaxTokens) return "TokenReduce: more than 4096 tokens";
  if (p.slots > kMaxTokens + 1) return "TokenReduce: more than 4097 slots";
  if (p.features > INT32_MAX / kMaxSlots) return "TokenReduce: x is too wide";
  if (p.mode < ReduceMode::kWmean || p.mode > ReduceMode::kMlerpAnchor) return "TokenReduce: unknown mode";
  if (p.batch == 0 || p.slots == 0) return nullptr;
  if (index == nullptr || wsum == nullptr || (p.tokens > 0 && map == nullptr) || (p.features > 0 && y == nullptr) ||
      (p.features > 0 && p.tokens > 0 && x == nullptr))
    return "TokenReduce: a tensor is null";
  ReduceShape s{};
  s.tokens = static_cast<int>(p.tokens);
  s.slots = static_cast<int>(p.slots);
  s.features = static_cast<int>(p.features);
  s.block_slots = slots_of_a_block(p);
  s.blocks = (s.slots + s.block_slots - 1) / s.block_slots;
  s.mode = p.mode;
  if (p.batch > INT32_MAX / s.blocks) return "TokenReduce: the batch is too large";
  const ReduceTensors t = {x, map, index, weight, y, wsum};
  cudaError_t status = cudaSuccess;
  switch (dtype) {
    case Dtype::kFloat32:
      status = run<float>(s, p.batch, t, stream);
      break;
    case Dtype::kFloat16:
      status = run<Half>(s, p.batch, t, stream);
      break;
    case Dtype::kBFloat16:
      status = run<BFloat16>(s, p.batch, t, stream);
      break;
    default:
      return "TokenReduce: unknown element type";
  }
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

#endif  // TMDEPLOY_DEVICE_ONLY

}  // namespace tmdeploy::cuda
