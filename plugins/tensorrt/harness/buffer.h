// Memory that kernels read and write: on the GPU, or with TMDEPLOY_EMULATE in the host.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#ifndef TMDEPLOY_EMULATE
#include "cuda_graph.h"
#endif

namespace tmdeploy::harness {

#ifdef TMDEPLOY_EMULATE
class Buffer {
 public:
  explicit Buffer(std::size_t bytes) : memory_(bytes + 1) {}
  void* get() { return memory_.data(); }
  void upload(const std::vector<char>& data) { std::copy(data.begin(), data.end(), memory_.begin()); }
  std::vector<char> download(std::size_t bytes) {
    return {memory_.begin(), memory_.begin() + static_cast<long>(bytes)};
  }
  void fill() { std::fill(memory_.begin(), memory_.end(), static_cast<char>(0xFF)); }

 private:
  std::vector<char> memory_;
};
#else
class Buffer {
 public:
  explicit Buffer(std::size_t bytes) : bytes_(bytes) { cuda_check(cudaMalloc(&memory_, bytes + 1), "cudaMalloc"); }
  ~Buffer() { cudaFree(memory_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  void* get() { return memory_; }
  void upload(const std::vector<char>& data) {
    cuda_check(cudaMemcpy(memory_, data.data(), data.size(), cudaMemcpyHostToDevice), "upload");
  }
  std::vector<char> download(std::size_t bytes) {
    std::vector<char> data(bytes);
    cuda_check(cudaMemcpy(data.data(), memory_, bytes, cudaMemcpyDeviceToHost), "download");
    return data;
  }
  void fill() { cuda_check(cudaMemset(memory_, 0xFF, bytes_), "cudaMemset"); }

 private:
  void* memory_ = nullptr;
  std::size_t bytes_;
};
#endif

}  // namespace tmdeploy::harness
