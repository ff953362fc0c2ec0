// Counts the checks that failed; one line a check on standard output.
#pragma once

#include <cstdio>
#include <string>

namespace tmdeploy::harness {

class Tally {
 public:
  void check(bool condition, const std::string& what) {
    std::printf("%s %s\n", condition ? "ok  " : "FAIL", what.c_str());
    if (!condition) ++failures_;
  }
  // Says how many failed; the exit code.
  int finish() const {
    std::printf("%d failed\n", failures_);
    return failures_ == 0 ? 0 : 1;
  }

 private:
  int failures_ = 0;
};

}  // namespace tmdeploy::harness
