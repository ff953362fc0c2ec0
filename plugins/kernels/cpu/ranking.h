// Order by (value descending, index ascending) as one unique integer (docs/ops.md, rule 4): any sort gives one result.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>

#include "kernels/cpu/conversions.h"

namespace tmdeploy::cpu {

using Key = std::uint64_t;  // the larger, the better

inline Key rank_key(float value, std::int64_t index) {
  if (value != value) value = -std::numeric_limits<float>::infinity();
  const std::uint32_t bits = bits_of(value + 0.0F);  // -0 + 0 is +0
  const std::uint32_t ordered = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return (static_cast<Key>(ordered) << 32U) | (0xffffffffU - static_cast<std::uint32_t>(index));
}

inline std::int64_t index_of(Key key) { return 0xffffffffU - static_cast<std::uint32_t>(key & 0xffffffffU); }

// The best `count` come first, in any order among themselves.
inline void best_to_front(Key* keys, std::int64_t total, std::int64_t count) {
  if (count > 0 && count < total) std::nth_element(keys, keys + count, keys + total, std::greater<Key>());
}

}  // namespace tmdeploy::cpu
