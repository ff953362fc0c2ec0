// How a kernel spreads work: the wrapper brings the threads, so that no runtime gets a second pool beside its own.
#pragma once

#include <cstdint>

namespace tmdeploy::cpu {

// Calls task(data, i) for i in [0, count), in any order and on any thread, and returns when all are done.
class ParallelFor {
 public:
  using Task = void (*)(void* data, std::int64_t i);
  using Run = void (*)(void* context, std::int64_t count, Task task, void* data);

  ParallelFor() = default;  // serial
  ParallelFor(void* context, Run run, std::int64_t width) : context_(context), run_(run), width_(width) {}

  // Most tasks that can run at a time; kernels size their scratch by it.
  std::int64_t width() const { return width_; }

  template <class Function>
  void operator()(std::int64_t count, const Function& function) const {
    if (run_ == nullptr || count <= 1) {
      for (std::int64_t i = 0; i < count; ++i) function(i);
      return;
    }
    // the type is erased by hand: std::function would allocate
    const Task task = [](void* data, std::int64_t i) { (*static_cast<const Function*>(data))(i); };
    run_(context_, count, task, const_cast<void*>(static_cast<const void*>(&function)));
  }

 private:
  void* context_ = nullptr;
  Run run_ = nullptr;
  std::int64_t width_ = 1;
};

}  // namespace tmdeploy::cpu
