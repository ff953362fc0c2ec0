// One enqueue on the tensors of a case file; with CUDA also captured in a graph, replayed and timed.
#include <NvInferRuntime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "buffer.h"
#include "case_file.h"
#include "modes.h"
#include "plugin_library.h"
#include "tensor_desc.h"

#ifndef TMDEPLOY_EMULATE
#include "cuda_graph.h"
#endif

namespace tmdeploy::harness {
namespace {

using Results = std::vector<std::vector<char>>;  // of each output

std::vector<PluginTensorDesc> descs_of(const std::vector<CaseTensor>& tensors) {
  std::vector<PluginTensorDesc> descs;
  for (const CaseTensor& tensor : tensors) descs.push_back(tensor.desc);
  return descs;
}

struct Prepared {
  Plugin plugin;
  std::size_t workspace_bytes;
};

// As TensorRT does it: configure, serialise, make again in the runtime phase, attach. Nothing where the plugin refuses.
std::optional<Prepared> prepare(const Library& library, Case& one) {
  const std::vector<PluginTensorDesc> in_desc = descs_of(one.in), out_desc = descs_of(one.out);
  const auto inputs = static_cast<std::int32_t>(in_desc.size());
  const auto outputs = static_cast<std::int32_t>(out_desc.size());
  const Plugin built = create(library, one.op, one.fields.collection());
  if (!built) return std::nullopt;
  const std::vector<DynamicPluginTensorDesc> in_dynamic = dynamic_of(in_desc), out_dynamic = dynamic_of(out_desc);
  if (built.build->configurePlugin(in_dynamic.data(), inputs, out_dynamic.data(), outputs) != 0) return std::nullopt;
  const std::size_t workspace_bytes =
      built.build->getWorkspaceSize(in_dynamic.data(), inputs, out_dynamic.data(), outputs);
  const Plugin loaded = create(library, one.op, built.runtime->getFieldsToSerialize(), TensorRTPhase::kRUNTIME);
  if (!loaded) return std::nullopt;
  Plugin plugin(loaded.runtime->attachToContext(nullptr));
  if (!plugin || plugin.runtime->onShapeChange(in_desc.data(), inputs, out_desc.data(), outputs) != 0)
    return std::nullopt;
  return Prepared{std::move(plugin), workspace_bytes};
}

// The plugin with the case's tensors in buffers.
class Enqueue {
 public:
  Enqueue(const Prepared& prepared, const Case& one)
      : plugin_(prepared.plugin),
        in_desc_(descs_of(one.in)),
        out_desc_(descs_of(one.out)),
        outputs_(one.out),
        workspace_(prepared.workspace_bytes) {
    for (const CaseTensor& tensor : one.in) {
      std::ifstream file(tensor.file, std::ios::binary);
      std::vector<char> data(tensor.bytes);
      if (!file.read(data.data(), static_cast<std::streamsize>(data.size())))
        throw std::invalid_argument("cannot read " + tensor.file);
      in_.push_back(std::make_unique<Buffer>(tensor.bytes));
      in_.back()->upload(data);
      in_memory_.push_back(in_.back()->get());
    }
    for (const CaseTensor& tensor : one.out) {
      out_.push_back(std::make_unique<Buffer>(tensor.bytes));
      out_memory_.push_back(out_.back()->get());
    }
    fill_outputs();
  }

  bool operator()(cudaStream_t stream) {
    return plugin_.runtime->enqueue(in_desc_.data(), out_desc_.data(), in_memory_.data(), out_memory_.data(),
                                    workspace_.get(), stream) == 0;
  }

  // So that a byte nobody writes shows.
  void fill_outputs() {
    for (const auto& buffer : out_) buffer->fill();
  }

  Results download() {
    Results data;
    for (std::size_t i = 0; i < out_.size(); ++i) data.push_back(out_[i]->download(outputs_[i].bytes));
    return data;
  }

 private:
  const Plugin& plugin_;
  std::vector<PluginTensorDesc> in_desc_, out_desc_;
  const std::vector<CaseTensor>& outputs_;
  std::vector<std::unique_ptr<Buffer>> in_, out_;
  std::vector<const void*> in_memory_;
  std::vector<void*> out_memory_;
  Buffer workspace_;
};

// Runs and prints what was measured. Nothing where enqueue failed, or a graph of it gave another result.
#ifdef TMDEPLOY_EMULATE
std::optional<Results> measure(Enqueue& enqueue, std::size_t workspace_bytes) {
  if (!enqueue(nullptr)) return std::nullopt;
  std::printf("{\"workspace_bytes\": %zu}\n", workspace_bytes);
  return enqueue.download();
}
#else
// Median of a graph's replay.
double microseconds(const Graph& graph, const Stream& stream) {
  constexpr int kRuns = 50, kRepeats = 20;
  std::vector<float> times;
  const Event begin, end;
  for (int run = 0; run < kRuns; ++run) {
    cuda_check(cudaEventRecord(begin.get(), stream.get()), "cudaEventRecord");
    for (int repeat = 0; repeat < kRepeats; ++repeat) graph.launch(stream.get());
    cuda_check(cudaEventRecord(end.get(), stream.get()), "cudaEventRecord");
    stream.wait();
    float milliseconds = 0.0F;
    cuda_check(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()), "cudaEventElapsedTime");
    times.push_back(milliseconds * 1000.0F / kRepeats);
  }
  std::sort(times.begin(), times.end());
  return static_cast<double>(times[times.size() / 2]);
}

std::optional<Results> measure(Enqueue& enqueue, std::size_t workspace_bytes) {
  const Stream stream;
  if (!enqueue(stream.get())) return std::nullopt;
  stream.wait();
  const Results results = enqueue.download();
  enqueue.fill_outputs();
  bool captured = false;
  const Graph graph(stream.get(), [&] { captured = enqueue(stream.get()); });
  if (!captured) return std::nullopt;
  graph.launch(stream.get());
  stream.wait();
  const bool same = enqueue.download() == results;
  std::printf("{\"workspace_bytes\": %zu, \"graph_nodes\": %zu, \"graph_equals_stream\": %s, \"median_us\": %.3f}\n",
              workspace_bytes, graph.nodes(), same ? "true" : "false", microseconds(graph, stream));
  if (!same) return std::nullopt;
  return results;
}
#endif

}  // namespace

int run_case(const Library& library, const char* path) {
  Case one = read_case(path);
  const std::optional<Prepared> prepared = prepare(library, one);
  if (!prepared) return 1;
  Enqueue enqueue(*prepared, one);
  const std::optional<Results> results = measure(enqueue, prepared->workspace_bytes);
  if (!results) return 1;
  for (std::size_t i = 0; i < one.out.size(); ++i) {
    std::ofstream file(one.out[i].file, std::ios::binary);
    file.write((*results)[i].data(), static_cast<std::streamsize>((*results)[i].size()));
    if (!file) throw std::invalid_argument("cannot write " + one.out[i].file);
  }
  return 0;
}

}  // namespace tmdeploy::harness
