// Which tokens belong to which slot, listed in shared memory; for a block of kReduceThreads threads that makes up to
// kMaxSlots slots of one image.
#pragma once

#include "platform.cuh"
#include "token_ops.h"

namespace tmdeploy::cuda {

constexpr int kReduceThreads = 256;
constexpr int kReduceWarps = kReduceThreads / kWarpSize;
constexpr int kMaxSlots = 32;  // of one block: a warp scans their counts

struct ReduceShape {
  int tokens, slots, features;
  int block_slots;  // slots of one block
  int blocks;       // blocks of one image
  ReduceMode mode;
};

// Members of the block's slots. Token lists start with the anchor, where there is one, and go on by ascending token.
struct Groups {
  int count[kMaxSlots];       // length of the list
  int start[kMaxSlots];       // in `member`
  int anchor[kMaxSlots];      // -1 = none
  int own_anchor[kMaxSlots];  // 1 where the anchor's map is this slot, as it is in every plan of a planner
  int warp_totals[kReduceWarps];
  int broken;                  // the image's map points outside its range
  int broken_slot[kMaxSlots];  // the slot's index does
};

// Fills `groups` and `member` (shared, tokens + block_slots long). local: shared scratch, 2 * tokens long.
TM_DEVICE void group_members(const ReduceShape& s, int first_slot, int slots_here, const std::int32_t* map,
                             const std::int32_t* index, Groups& groups, std::uint16_t* member, std::uint16_t* local) {
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = lane_id();
  if (thread == 0) groups.broken = 0;
  if (thread < slots_here) {
    const int anchor = index[first_slot + thread];
    const bool valid = anchor >= -1 && anchor < s.tokens;
    groups.broken_slot[thread] = valid ? 0 : 1;
    groups.anchor[thread] = valid ? anchor : -1;
    groups.own_anchor[thread] = valid && anchor >= 0 && map[anchor] == first_slot + thread ? 1 : 0;
  }
  __syncthreads();

  // Tokens of this block's slots, in token order; each warp takes a run of tokens, so that one scan over warps is
  // enough.
  std::uint16_t* local_token = local;
  std::uint16_t* local_slot = local + s.tokens;
  const int run = (s.tokens + kReduceThreads - 1) / kReduceThreads * kWarpSize;
  const int run_begin = min(s.tokens, warp_id() * run);
  const int run_end = min(s.tokens, run_begin + run);
  int mine = 0;
  bool bad = false;
  for (int n = run_begin; n < run_end; n += kWarpSize) {
    const int slot = n + lane < run_end ? map[n + lane] : -1;
    bad = bad || slot < -1 || slot >= s.slots;
    const bool inside = slot >= first_slot && slot < first_slot + slots_here;
    mine += __popc(__ballot_sync(kAllLanes, inside));
  }
  if (lane == 0) groups.warp_totals[warp_id()] = mine;
  if (bad) groups.broken = 1;  // every writer writes the same
  __syncthreads();
  int at = 0;
  int total = 0;
#pragma unroll
  for (int w = 0; w < kReduceWarps; ++w) {
    const int count = groups.warp_totals[w];
    if (w < warp_id()) at += count;
    total += count;
  }
  for (int n = run_begin; n < run_end; n += kWarpSize) {
    const int slot = n + lane < run_end ? map[n + lane] : -1;
    const bool inside = slot >= first_slot && slot < first_slot + slots_here;
    const unsigned mask = __ballot_sync(kAllLanes, inside);
    if (inside) {
      const int position = at + __popc(mask & ((1U << lane) - 1U));
      local_token[position] = static_cast<std::uint16_t>(n + lane);
      local_slot[position] = static_cast<std::uint16_t>(slot - first_slot);
    }
    at += __popc(mask);
  }
  __syncthreads();

  // Members of each slot, counted and then written by one warp.
  for (int slot = warp_id(); slot < slots_here; slot += kReduceWarps) {
    int count = groups.anchor[slot] >= 0 ? 1 - groups.own_anchor[slot] : 0;  // a stray anchor is in no slot's map
    for (int e = 0; e < total; e += kWarpSize)
      count += __popc(__ballot_sync(kAllLanes, e + lane < total && local_slot[e + lane] == slot));
    if (lane == 0) groups.count[slot] = count;
  }
  __syncthreads();
  if (warp_id() == 0) {
    const int count = lane < slots_here ? groups.count[lane] : 0;
    int through = count;
#pragma unroll
    for (int offset = 1; offset < kWarpSize; offset *= 2) {
      const int lower = __shfl_up_sync(kAllLanes, through, offset);
      if (lane >= offset) through += lower;
    }
    if (lane < slots_here) groups.start[lane] = through - count;
  }
  __syncthreads();
  for (int slot = warp_id(); slot < slots_here; slot += kReduceWarps) {
    const int anchor = groups.anchor[slot];
    int position = groups.start[slot];
    if (anchor >= 0) {
      if (lane == 0) member[position] = static_cast<std::uint16_t>(anchor);
      ++position;
    }
    for (int e = 0; e < total; e += kWarpSize) {
      const bool belongs = e + lane < total && local_slot[e + lane] == slot && local_token[e + lane] != anchor;
      const unsigned mask = __ballot_sync(kAllLanes, belongs);
      if (belongs) member[position + __popc(mask & ((1U << lane) - 1U))] = local_token[e + lane];
      position += __popc(mask);
    }
  }
  __syncthreads();
}

struct ReduceMemory {
  Groups* groups;
  std::uint16_t* member;
  std::uint16_t* local;
};

TM_DEVICE ReduceMemory reduce_memory(unsigned char* memory, const ReduceShape& s) {
  Groups* groups = reinterpret_cast<Groups*>(memory);
  std::uint16_t* member = reinterpret_cast<std::uint16_t*>(groups + 1);
  return {groups, member, member + s.tokens + s.block_slots};
}

inline std::size_t reduce_bytes(const ReduceShape& s) {
  return sizeof(Groups) + sizeof(std::uint16_t) * static_cast<std::size_t>(3 * s.tokens + s.block_slots);
}

}  // namespace tmdeploy::cuda
