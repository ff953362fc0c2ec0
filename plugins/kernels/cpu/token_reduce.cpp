#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/similarity.h"
#include "kernels/cpu/token_ops.h"

namespace tmdeploy::cpu {
namespace {

// The tokens of every slot but its anchor, by ascending index: members[begin[s]] to members[begin[s + 1]].
struct Groups {
  Groups(const ReduceParams& p, Arena& arena)
      : begin(arena.take<std::int32_t>(p.slots + 2)), members(arena.take<std::int32_t>(p.tokens)) {}

  std::int32_t* begin;
  std::int32_t* members;

  // False where the plan points outside its range; nothing is read or written out of bounds then.
  bool fill(const ReduceParams& p, const std::int32_t* map, const std::int32_t* index) {
    // begin[s + 2] counts, so that after the summation begin[s + 1] can be the cursor that ends where it should
    std::fill(begin, begin + p.slots + 2, 0);
    for (std::int64_t slot = 0; slot < p.slots; ++slot) {
      if (index[slot] < -1 || index[slot] >= p.tokens) return false;
    }
    for (std::int64_t token = 0; token < p.tokens; ++token) {
      const std::int32_t slot = map[token];
      if (slot < -1 || slot >= p.slots) return false;
      if (slot >= 0 && index[slot] != token) ++begin[slot + 2];
    }
    for (std::int64_t slot = 0; slot < p.slots; ++slot) begin[slot + 2] += begin[slot + 1];
    for (std::int64_t token = 0; token < p.tokens; ++token) {
      const std::int32_t slot = map[token];
      if (slot >= 0 && index[slot] != token) members[begin[slot + 1]++] = static_cast<std::int32_t>(token);
    }
    return true;
  }
};

// One image's tensors; rows are found by token or slot.
struct Image {
  const char* x;
  const std::int32_t* map;
  const std::int32_t* index;
  const float* weight;  // null: 1
  char* y;
  float* wsum;
  std::int64_t row_bytes;

  const char* row(std::int64_t token) const { return x + token * row_bytes; }
  float w(std::int64_t token) const { return weight == nullptr ? 1.0F : weight[token]; }
};

// (w x) / w is x exactly: always for w = 1; for halves, whose rounding absorbs two float32 ones, unless w is extreme.
bool divides_back(float w, Dtype type) {
  return w == 1.0F || (type != Dtype::kFloat32 && std::fabs(w) > 0x1p-40F && std::fabs(w) < 0x1p40F);
}

class Reducer {
 public:
  Reducer(const ReduceParams& p, Dtype type, const Image& image, const Groups& groups, float* sum)
      : p_(p), type_(type), image_(image), groups_(groups), sum_(sum), rows_(inner_loops().rows) {}

  void slot(std::int64_t slot) const {
    const std::int32_t anchor = image_.index[slot];
    const std::int32_t* const first = groups_.members + groups_.begin[slot];
    const std::int32_t* const last = groups_.members + groups_.begin[slot + 1];
    float wsum = anchor >= 0 ? image_.w(anchor) : 0.0F;
    for (const std::int32_t* token = first; token != last; ++token) wsum += image_.w(*token);
    image_.wsum[slot] = wsum;

    char* const out = image_.y + slot * image_.row_bytes;
    if (anchor < 0 && first == last) return copy_row(-1, out);
    const bool alone = first == last;
    switch (p_.mode) {
      case ReduceMode::kAnchor:
        return copy_row(anchor, out);
      case ReduceMode::kWmean:
        if (alone && divides_back(wsum, type_)) return copy_row(anchor, out);
        if (wsum == 0.0F && anchor >= 0) return copy_row(anchor, out);
        add_up(anchor, first, last, true);
        return rows_.divide(sum_, wsum == 0.0F ? 1.0F : wsum, type_, out, p_.features);
      case ReduceMode::kSum:
        if (alone && wsum == 1.0F) return copy_row(anchor, out);
        add_up(anchor, first, last, true);
        return rows_.narrow(sum_, type_, out, p_.features);
      case ReduceMode::kMax:
        return maximum(slot, anchor, first, last, out);
      case ReduceMode::kMean:
        if (alone) return copy_row(anchor, out);
        add_up(anchor, first, last, false);
        return rows_.divide(sum_, count(anchor, first, last), type_, out, p_.features);
      case ReduceMode::kMlerp:
      case ReduceMode::kMlerpAnchor:
        return mlerp(slot, anchor, first, last, out);
    }
  }

 private:
  static float count(std::int32_t anchor, const std::int32_t* first, const std::int32_t* last) {
    return static_cast<float>((last - first) + (anchor >= 0 ? 1 : 0));
  }

  // Zeros for no token. Rows of no features may have null pointers, which memcpy must not be given.
  void copy_row(std::int32_t token, char* out) const {
    const auto bytes = static_cast<std::size_t>(image_.row_bytes);
    if (bytes == 0) return;
    if (token >= 0) {
      std::memcpy(out, image_.row(token), bytes);
    } else {
      std::memset(out, 0, bytes);
    }
  }

  void add_up(std::int32_t anchor, const std::int32_t* token, const std::int32_t* last, bool weighted) const {
    const auto w = [&](std::int32_t t) { return weighted ? image_.w(t) : 1.0F; };
    const std::int32_t start = anchor >= 0 ? anchor : *token++;
    rows_.start(image_.row(start), type_, w(start), sum_, p_.features);
    for (; token != last; ++token) rows_.add(image_.row(*token), type_, w(*token), sum_, p_.features);
  }

  // Maxima are over what maps to the slot; an anchor that does not is none of it.
  bool anchor_maps(std::int64_t slot, std::int32_t anchor) const { return anchor >= 0 && image_.map[anchor] == slot; }

  void maximum(std::int64_t slot, std::int32_t anchor, const std::int32_t* token, const std::int32_t* last,
               char* out) const {
    const bool with_anchor = anchor_maps(slot, anchor);
    if (!with_anchor && token == last) return copy_row(-1, out);
    const std::int32_t start = with_anchor ? anchor : *token++;
    if (token == last) return copy_row(start, out);
    rows_.widen(image_.row(start), type_, sum_, p_.features);
    for (; token != last; ++token) rows_.larger(image_.row(*token), type_, sum_, p_.features);
    rows_.narrow(sum_, type_, out, p_.features);
  }

  float norm(std::int32_t token) const {
    return static_cast<float>(std::sqrt(rows_.squares(image_.row(token), type_, p_.features)));
  }

  void mlerp(std::int64_t slot, std::int32_t anchor, const std::int32_t* first, const std::int32_t* last,
             char* out) const {
    add_up(anchor, first, last, false);
    const float members = count(anchor, first, last);
    for (std::int64_t i = 0; i < p_.features; ++i) sum_[i] /= members;
    float largest = anchor_maps(slot, anchor) ? norm(anchor) : -std::numeric_limits<float>::infinity();
    for (const std::int32_t* token = first; token != last; ++token) {
      const float other = norm(*token);
      if (other > largest || other != other) largest = other;
    }
    if (!anchor_maps(slot, anchor) && first == last) largest = 0.0F;
    float base = 0.0F;
    if (p_.mode == ReduceMode::kMlerp) {
      base = static_cast<float>(std::sqrt(rows_.squares(sum_, Dtype::kFloat32, p_.features)));
    } else if (anchor >= 0) {
      base = norm(anchor);
    }
    for (std::int64_t i = 0; i < p_.features; ++i) sum_[i] *= largest;
    rows_.divide(sum_, base == 0.0F ? 1.0F : base, type_, out, p_.features);
  }

  const ReduceParams& p_;
  Dtype type_;
  const Image& image_;
  const Groups& groups_;
  float* sum_;  // [features]
  const RowLoops& rows_;
};

constexpr std::int64_t kTaskWork = 1 << 17;  // elements of x: about 30 us

Spread spread_of(const ReduceParams& p, const ParallelFor& parallel) {
  return spread(p.batch, p.tokens * p.features, kTaskWork, parallel);
}

// Tasks of an image whose slots are spread.
std::int64_t tasks_of(const ReduceParams& p, const Spread& how, const ParallelFor& parallel) {
  if (!how.rows) return 1;
  return std::clamp<std::int64_t>(p.tokens * p.features / kTaskWork, 1, std::min(p.slots, 4 * parallel.width()));
}

struct Buffers {
  Buffers(const ReduceParams& p, std::int64_t tasks, Arena& arena)
      : groups(p, arena), stride(divide_up(p.features, 16) * 16), sums(arena.take<float>(stride * tasks)) {}

  Groups groups;
  std::int64_t stride;
  float* sums;
};

std::size_t bytes_of_a_group(const ReduceParams& p, std::int64_t tasks) {
  Arena counting;
  Buffers(p, tasks, counting);
  return group_bytes(counting);
}

const char* problem_of(const ReduceParams& p) {
  if (p.batch < 0 || p.tokens < 0 || p.slots < 0 || p.features < 0) return "a negative dimension";
  if (p.tokens > std::numeric_limits<std::int32_t>::max()) return "more tokens than int32 can count";
  return nullptr;
}

}  // namespace

std::size_t reduce_scratch(const ReduceParams& p, const ParallelFor& parallel) {
  if (problem_of(p) != nullptr) return 0;
  const Spread how = spread_of(p, parallel);
  return bytes_of_a_group(p, tasks_of(p, how, parallel)) * static_cast<std::size_t>(how.groups);
}

const char* token_reduce(const ReduceParams& p, const void* x, Dtype x_type, const std::int32_t* map,
                         const std::int32_t* index, const float* weight, void* y, float* wsum, void* scratch,
                         const ParallelFor& parallel) {
  const char* const wrong = problem_of(p);
  if (wrong != nullptr) return wrong;
  const Spread how = spread_of(p, parallel);
  const std::int64_t tasks = tasks_of(p, how, parallel);
  const std::int64_t row_bytes = p.features * (x_type == Dtype::kFloat32 ? 4 : 2);
  std::atomic<bool> in_range{true};
  for_each_image(p.batch, how, bytes_of_a_group(p, tasks), scratch, parallel,
                 [&](std::int64_t b, Arena& arena, const ParallelFor& inner) {
                   Buffers buffers(p, tasks, arena);
                   const Image image{static_cast<const char*>(x) + b * p.tokens * row_bytes,
                                     map + b * p.tokens,
                                     index + b * p.slots,
                                     weight == nullptr ? nullptr : weight + b * p.tokens,
                                     static_cast<char*>(y) + b * p.slots * row_bytes,
                                     wsum + b * p.slots,
                                     row_bytes};
                   if (!buffers.groups.fill(p, image.map, image.index)) {
                     in_range.store(false, std::memory_order_relaxed);
                     return;
                   }
                   inner(tasks, [&](std::int64_t i) {
                     const Reducer reducer(p, x_type, image, buffers.groups, buffers.sums + i * buffers.stride);
                     const std::int64_t last = p.slots * (i + 1) / tasks;
                     for (std::int64_t slot = p.slots * i / tasks; slot < last; ++slot) reducer.slot(slot);
                   });
                 });
  return in_range.load(std::memory_order_relaxed) ? nullptr : "the plan points outside its range";
}

}  // namespace tmdeploy::cpu
