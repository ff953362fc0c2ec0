// Cuts the caller's scratch into aligned arrays; with no memory behind it, it only counts.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tmdeploy::cpu {

class Arena {
 public:
  static constexpr std::size_t kAlignment = 64;  // a cache line, so that two threads never share one

  Arena() = default;
  explicit Arena(void* memory) : base_(static_cast<std::byte*>(memory)) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    base_ += (kAlignment - address % kAlignment) % kAlignment;
  }

  template <class T>
  T* take(std::int64_t count) {
    T* const array = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return array;
  }

  std::size_t used() const { return used_; }

 private:
  std::byte* base_ = nullptr;
  std::size_t used_ = 0;
};

}  // namespace tmdeploy::cpu
