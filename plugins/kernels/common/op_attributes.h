// The attributes of the three ops, a line each: kernels, wrappers and entry kernels get theirs from these lists.
// tmdeploy/ops/spec.py says the same, in the same order; tests/plugins/test_attributes.py compares the two.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace tmdeploy {

#define TM_OP_SET_VERSION 1

constexpr const char* kDomain = "tmdeploy";

// Slots after the prefix in TokenMatch: kept A tokens by position or by descending similarity, then B by position.
enum class MatchOrder : std::int32_t { kTome, kTomeUnsorted };

// What becomes of the tokens TokenSelect does not keep.
enum class Leftover : std::int32_t { kDrop, kFuse, kNearest };

// Kept tokens of TokenSelect: by descending score, or by position.
enum class SelectOrder : std::int32_t { kScore, kIndex };

enum class ReduceMode : std::int32_t { kWmean, kSum, kAnchor, kMean, kMax, kMlerp, kMlerpAnchor };

// How the values are spelled in ONNX, in the order of their numbers.
template <class Choice>
struct Spelling;
template <>
struct Spelling<MatchOrder> {
  static constexpr const char* kAll[] = {"tome", "tome_unsorted"};
};
template <>
struct Spelling<Leftover> {
  static constexpr const char* kAll[] = {"drop", "fuse", "nearest"};
};
template <>
struct Spelling<SelectOrder> {
  static constexpr const char* kAll[] = {"score", "index"};
};
template <>
struct Spelling<ReduceMode> {
  static constexpr const char* kAll[] = {"wmean", "sum", "anchor", "mean", "max", "mlerp", "mlerp_anchor"};
};

// ATTRIBUTE(type, name, default), in the order of the PyTorch signatures. In ONNX a bool is an int, a choice a string.
#define TM_MATCH_ATTRIBUTES(ATTRIBUTE)            \
  ATTRIBUTE(std::int64_t, num_prefix, 1)          \
  ATTRIBUTE(MatchOrder, order, MatchOrder::kTome) \
  ATTRIBUTE(float, metric_eps, 0.0F)              \
  ATTRIBUTE(bool, deterministic, true) /* norms and dots in float64 */

#define TM_SELECT_ATTRIBUTES(ATTRIBUTE)              \
  ATTRIBUTE(std::int64_t, num_prefix, 1)             \
  ATTRIBUTE(Leftover, leftover, Leftover::kDrop)     \
  ATTRIBUTE(SelectOrder, order, SelectOrder::kScore) \
  ATTRIBUTE(float, metric_eps, 0.0F)                 \
  ATTRIBUTE(bool, deterministic, true)

#define TM_REDUCE_ATTRIBUTES(ATTRIBUTE) ATTRIBUTE(ReduceMode, mode, ReduceMode::kWmean)

// A struct of the list's fields, and each(), which calls visit(name, field) for every one.
#define TM_FIELD(type, name, value) type name = value;
#define TM_VISIT(type, name, value) visit(#name, attributes.name);
#define TM_STRUCT(Name, LIST)                                 \
  struct Name {                                               \
    LIST(TM_FIELD)                                            \
    template <class Attributes, class Visit>                  \
    static void each(Attributes& attributes, Visit&& visit) { \
      LIST(TM_VISIT)                                          \
    }                                                         \
  }

TM_STRUCT(MatchAttributes, TM_MATCH_ATTRIBUTES);
TM_STRUCT(SelectAttributes, TM_SELECT_ATTRIBUTES);
TM_STRUCT(ReduceAttributes, TM_REDUCE_ATTRIBUTES);

#undef TM_STRUCT
#undef TM_VISIT
#undef TM_FIELD

template <class Choice>
constexpr std::size_t choice_count() {
  return sizeof(Spelling<Choice>::kAll) / sizeof(Spelling<Choice>::kAll[0]);
}

// The text of a choice.
template <class Choice>
constexpr const char* spelling(Choice choice) {
  return Spelling<Choice>::kAll[static_cast<std::size_t>(choice)];
}

// Attributes from numbers in the order of the list, choices by theirs. False where one is no choice's.
template <class Attributes>
bool read_codes(const double* codes, Attributes& attributes) {
  bool known = true;
  Attributes::each(attributes, [&](const char* /*name*/, auto& value) {
    using Value = std::decay_t<decltype(value)>;
    const double code = *codes++;
    if constexpr (std::is_enum_v<Value>) {
      known = known && code >= 0 && code < static_cast<double>(choice_count<Value>());
      if (known) value = static_cast<Value>(static_cast<std::int32_t>(code));
    } else if constexpr (std::is_same_v<Value, bool>) {
      value = code != 0;
    } else {
      value = static_cast<Value>(code);
    }
  });
  return known;
}

}  // namespace tmdeploy
