// Drives the plugin library through its own interfaces, without libnvinfer.
//
//   harness LIBRARY check        creators, fields, shapes through a mock IExprBuilder, formats, configuration,
//                                serialisation, clones, and what enqueue refuses; prints one line a check
//   harness LIBRARY registry LEAN   load it with the plugin registry of NVIDIA's lean runtime (libnvinfer_lean.so.*; works
//                                without a GPU), make each plugin from there, unload
//   harness LIBRARY run CASE     one enqueue on the tensors of a case file; with CUDA also captured in a graph, replayed
//                                and timed; prints JSON
// Exit code: 0 all is well, 1 a check failed, 2 usage or a bad case file.
//
// A case file has one item a line:
//   op NAME | int FIELD VALUE | float FIELD VALUE | text FIELD VALUE
//   in TYPE FILE DIM... | out TYPE FILE DIM...      TYPE: float32 float16 bfloat16 int32 int64; raw little-endian files
// Built with TMDEPLOY_EMULATE the library holds the emulated kernels and tensors are in host memory.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#ifndef TMDEPLOY_EMULATE
#include <cuda_runtime.h>
#endif

namespace {

using namespace nvinfer1;

int g_failures = 0;

void check(bool condition, const std::string& what) {
  std::printf("%s %s\n", condition ? "ok  " : "FAIL", what.c_str());
  if (!condition) ++g_failures;
}

// ---- the library -----------------------------------------------------------------------------------------------------

class Library {
 public:
  explicit Library(const char* path) : handle_(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
    if (handle_ == nullptr) throw std::runtime_error(dlerror());
    using GetCreators = IPluginCreatorInterface* const* (*)(std::int32_t&);
    const auto get = reinterpret_cast<GetCreators>(dlsym(handle_, "getCreators"));
    if (get == nullptr) throw std::runtime_error("no getCreators");
    std::int32_t count = 0;
    IPluginCreatorInterface* const* list = get(count);
    creators.assign(list, list + count);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  // not closed: its creators may be referred to until the process ends

  bool has(const char* symbol) const { return dlsym(handle_, symbol) != nullptr; }

  IPluginCreatorV3One& creator(const std::string& name) const {
    for (IPluginCreatorInterface* one : creators) {
      auto* v3 = static_cast<IPluginCreatorV3One*>(one);
      if (name == v3->getPluginName()) return *v3;
    }
    throw std::runtime_error("no creator " + name);
  }

  std::vector<IPluginCreatorInterface*> creators;

 private:
  void* handle_;
};

// Owns the memory that fields point to.
class FieldSet {
 public:
  FieldSet& integer(const std::string& name, std::int32_t value) {
    return add(name, &value, sizeof value, PluginFieldType::kINT32, 1);
  }
  FieldSet& real(const std::string& name, float value) {
    return add(name, &value, sizeof value, PluginFieldType::kFLOAT32, 1);
  }
  FieldSet& text(const std::string& name, const std::string& value) {
    return add(name, value.data(), value.size(), PluginFieldType::kCHAR, static_cast<std::int32_t>(value.size()));
  }
  const PluginFieldCollection* collection() {
    fields_.clear();
    for (const auto& item : items_)
      fields_.emplace_back(item->name.c_str(), item->data.data(), item->type, item->length);
    collection_.nbFields = static_cast<std::int32_t>(fields_.size());
    collection_.fields = fields_.data();
    return &collection_;
  }

 private:
  struct Item {
    std::string name;
    std::vector<char> data;
    PluginFieldType type;
    std::int32_t length;
  };
  FieldSet& add(const std::string& name, const void* data, std::size_t bytes, PluginFieldType type,
                std::int32_t length) {
    const char* begin = static_cast<const char*>(data);
    auto item = std::make_shared<Item>(Item{name, std::vector<char>(begin, begin + bytes), type, length});
    item->data.reserve(1);  // a pointer even for an empty text
    items_.push_back(std::move(item));
    return *this;
  }
  std::vector<std::shared_ptr<Item>> items_;
  std::vector<PluginField> fields_;
  PluginFieldCollection collection_{};
};

struct Plugin {
  std::unique_ptr<IPluginV3> owner;
  IPluginV3OneCore* core = nullptr;
  IPluginV3OneBuild* build = nullptr;
  IPluginV3OneRuntime* runtime = nullptr;

  explicit Plugin(IPluginV3* plugin) : owner(plugin) {
    if (plugin == nullptr) return;
    core = static_cast<IPluginV3OneCore*>(plugin->getCapabilityInterface(PluginCapabilityType::kCORE));
    build = static_cast<IPluginV3OneBuild*>(plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
    runtime = static_cast<IPluginV3OneRuntime*>(plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  }
  explicit operator bool() const { return owner != nullptr; }
};

Plugin create(const Library& library, const std::string& op, FieldSet fields = {},
              TensorRTPhase phase = TensorRTPhase::kBUILD) {
  return Plugin(library.creator(op).createPlugin("node", fields.collection(), phase));
}

// ---- mock of the symbolic dimensions ---------------------------------------------------------------------------------

class MockDimension final : public IDimensionExpr, private apiv::VDimensionExpr {
 public:
  explicit MockDimension(std::string text) : text_(std::move(text)) { mImpl = this; }
  const std::string& text() const { return text_; }

 private:
  bool isConstant() const override { return false; }
  std::int64_t getConstantValue() const override { return -1; }
  bool isSizeTensor() const override { return false; }
  std::string text_;
};

class MockBuilder final : public IExprBuilder, private apiv::VExprBuilder {
 public:
  MockBuilder() { mImpl = this; }
  const IDimensionExpr* symbol(const std::string& name) {
    made_.push_back(std::make_unique<MockDimension>(name));
    return made_.back().get();
  }

 private:
  const IDimensionExpr* constant(std::int64_t value) override { return symbol(std::to_string(value)); }
  const IDimensionExpr* operation(DimensionOperation op, const IDimensionExpr& first,
                                  const IDimensionExpr& second) override {
    return symbol("(" + static_cast<const MockDimension&>(first).text() + " op" +
                  std::to_string(static_cast<int>(op)) + " " + static_cast<const MockDimension&>(second).text() + ")");
  }
  const IDimensionExpr* declareSizeTensor(std::int32_t, const IDimensionExpr&, const IDimensionExpr&) override {
    return symbol("size tensor");
  }
  std::vector<std::unique_ptr<MockDimension>> made_;
};

std::string text_of(const DimsExprs& dims) {
  std::string text = "[";
  for (std::int32_t i = 0; i < dims.nbDims; ++i)
    text += (i > 0 ? " " : "") + static_cast<const MockDimension*>(dims.d[i])->text();
  return text + "]";
}

// ---- tensor descriptions ---------------------------------------------------------------------------------------------

Dims dims_of(const std::vector<std::int64_t>& extents) {
  Dims dims{};
  dims.nbDims = static_cast<std::int32_t>(extents.size());
  std::copy(extents.begin(), extents.end(), dims.d);
  return dims;
}

PluginTensorDesc desc_of(DataType type, const std::vector<std::int64_t>& extents) {
  PluginTensorDesc desc{};
  desc.dims = dims_of(extents);
  desc.type = type;
  desc.format = TensorFormat::kLINEAR;
  desc.scale = 1.0F;
  return desc;
}

DynamicPluginTensorDesc dynamic_of(const PluginTensorDesc& desc) {
  DynamicPluginTensorDesc dynamic{};
  dynamic.desc = desc;
  dynamic.min = dynamic.opt = dynamic.max = desc.dims;
  return dynamic;
}

std::vector<DynamicPluginTensorDesc> dynamic_of(const std::vector<PluginTensorDesc>& descs) {
  std::vector<DynamicPluginTensorDesc> result;
  for (const PluginTensorDesc& desc : descs) result.push_back(dynamic_of(desc));
  return result;
}

struct OpCase {
  std::string op;
  FieldSet fields;
  std::vector<PluginTensorDesc> in;
  std::vector<PluginTensorDesc> out;
  std::vector<std::vector<std::string>> symbols;  // of the inputs
  std::string shapes;                             // expected of the outputs
};

constexpr std::int64_t kBatch = 2, kTokens = 9, kSlots = 6, kChannels = 4;

std::vector<OpCase> op_cases() {
  const PluginTensorDesc metric = desc_of(DataType::kHALF, {kBatch, kTokens, kChannels});
  const PluginTensorDesc score = desc_of(DataType::kFLOAT, {kBatch, kTokens});
  const PluginTensorDesc slots = desc_of(DataType::kINT64, {kSlots});
  const PluginTensorDesc kept = desc_of(DataType::kINT64, {kSlots - 1});
  const PluginTensorDesc map = desc_of(DataType::kINT32, {kBatch, kTokens});
  const PluginTensorDesc index = desc_of(DataType::kINT32, {kBatch, kSlots});
  const PluginTensorDesc sim = score;
  const PluginTensorDesc count = desc_of(DataType::kINT32, {kBatch});
  const PluginTensorDesc y = desc_of(DataType::kHALF, {kBatch, kSlots, kChannels});
  const PluginTensorDesc wsum = desc_of(DataType::kFLOAT, {kBatch, kSlots});
  std::vector<OpCase> cases;
  cases.push_back({"TokenMatch", {}, {metric, slots}, {map, index, sim}, {{"B", "N", "C"}, {"M"}}, "[B N][B M][B N]"});
  cases.push_back({"TokenSelect", {}, {score, slots}, {map, index, sim, count}, {{"B", "N"}, {"M"}},
                   "[B N][B M][B N][B]"});
  cases.push_back({"TokenSelect", {}, {score, slots, metric}, {map, index, sim, count},
                   {{"B", "N"}, {"M"}, {"B", "N", "C"}}, "[B N][B M][B N][B]"});
  cases.back().fields.text("leftover", "nearest");
  cases.push_back({"TokenSelect", {}, {score, slots, kept}, {map, index, sim, count}, {{"B", "N"}, {"M"}, {"K"}},
                   "[B N][B M][B N][B]"});
  cases.back().fields.text("leftover", "fuse");
  cases.push_back({"TokenReduce", {}, {metric, map, index}, {y, wsum}, {{"B", "N", "F"}, {"B", "N"}, {"B", "M"}},
                   "[B M F][B M]"});
  cases.push_back({"TokenReduce", {}, {metric, map, index, sim}, {y, wsum},
                   {{"B", "N", "F"}, {"B", "N"}, {"B", "M"}, {"B", "N"}}, "[B M F][B M]"});
  return cases;
}

// ---- checks ----------------------------------------------------------------------------------------------------------

std::string fields_text(const PluginFieldCollection* collection) {
  std::string text;
  for (std::int32_t i = 0; collection != nullptr && i < collection->nbFields; ++i) {
    const PluginField& field = collection->fields[i];
    text += std::string(field.name) + "=";
    if (field.type == PluginFieldType::kINT32) text += std::to_string(*static_cast<const std::int32_t*>(field.data));
    if (field.type == PluginFieldType::kFLOAT32) text += std::to_string(*static_cast<const float*>(field.data));
    if (field.type == PluginFieldType::kCHAR)
      text += std::string(static_cast<const char*>(field.data), static_cast<std::size_t>(field.length));
    text += ";";
  }
  return text;
}

void check_library(const Library& library) {
  check(library.has("setLoggerFinder"), "library: setLoggerFinder is exported");
  check(library.creators.size() == 3, "library: three creators");
  for (const char* op : {"TokenMatch", "TokenSelect", "TokenReduce"}) {
    IPluginCreatorV3One& creator = library.creator(op);
    check(std::strcmp(creator.getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") == 0, std::string(op) + ": is a V3 creator");
    check(std::strcmp(creator.getPluginNamespace(), "tmdeploy") == 0 && std::strcmp(creator.getPluginVersion(), "1") == 0,
          std::string(op) + ": namespace tmdeploy, version 1");
    const PluginFieldCollection* names = creator.getFieldNames();
    check(names != nullptr && names->nbFields > 0, std::string(op) + ": says its attributes");
  }
}

void check_creation(const Library& library) {
  check(static_cast<bool>(Plugin(library.creator("TokenMatch").createPlugin("n", nullptr, TensorRTPhase::kBUILD))),
        "creation: without fields, as the defaults");
  const auto refused = [&](const char* op, FieldSet fields, const char* what) {
    check(!create(library, op, std::move(fields)), std::string("creation refuses ") + what);
  };
  refused("TokenMatch", FieldSet().text("order", "rank"), "an unknown order");
  refused("TokenMatch", FieldSet().integer("order", 1), "an order that is a number");
  refused("TokenMatch", FieldSet().integer("num_prefix", -1), "a negative num_prefix");
  refused("TokenMatch", FieldSet().text("metric_eps", "0"), "a metric_eps that is text");
  refused("TokenSelect", FieldSet().text("leftover", "keep"), "an unknown leftover");
  refused("TokenReduce", FieldSet().text("mode", "median"), "an unknown mode");
  refused("TokenReduce", FieldSet().integer("input_count", 7), "seven inputs");
  check(static_cast<bool>(create(library, "TokenReduce", FieldSet().text("mode", std::string("mlerp\0", 6)))),
        "creation: a text with its terminator");
}

void check_shapes(const Library& library, OpCase& one, Plugin& plugin) {
  static_cast<void>(library);
  MockBuilder builder;
  std::vector<DimsExprs> in;
  for (const auto& names : one.symbols) {
    DimsExprs dims{};
    dims.nbDims = static_cast<std::int32_t>(names.size());
    for (std::size_t d = 0; d < names.size(); ++d) dims.d[d] = builder.symbol(names[d]);
    in.push_back(dims);
  }
  std::vector<DimsExprs> out(one.out.size());
  const auto inputs = static_cast<std::int32_t>(in.size());
  const auto outputs = static_cast<std::int32_t>(out.size());
  std::string text;
  if (plugin.build->getOutputShapes(in.data(), inputs, nullptr, 0, out.data(), outputs, builder) == 0)
    for (const DimsExprs& dims : out) text += text_of(dims);
  check(text == one.shapes, one.op + ": output shapes " + text);
  check(plugin.build->getOutputShapes(in.data(), inputs - 2, nullptr, 0, out.data(), outputs, builder) != 0,
        one.op + ": shapes refuse missing inputs");
  in[0].nbDims = 1;
  check(plugin.build->getOutputShapes(in.data(), inputs, nullptr, 0, out.data(), outputs, builder) != 0,
        one.op + ": shapes refuse a wrong rank");
}

void check_types(OpCase& one, Plugin& plugin) {
  const auto inputs = static_cast<std::int32_t>(one.in.size());
  const auto outputs = static_cast<std::int32_t>(one.out.size());
  check(plugin.build->getNbOutputs() == outputs, one.op + ": number of outputs");
  int accepted = 0;
  bool right = true;
  for (const DataType data : {DataType::kFLOAT, DataType::kHALF, DataType::kBF16}) {
    std::vector<PluginTensorDesc> all = one.in;
    all.insert(all.end(), one.out.begin(), one.out.end());
    all[0].type = data;
    if (one.op == "TokenReduce") all[static_cast<std::size_t>(inputs)].type = data;
    std::vector<DynamicPluginTensorDesc> dynamic = dynamic_of(all);
    for (std::int32_t i = 0; i < inputs + outputs; ++i) {
      const bool ok = plugin.build->supportsFormatCombination(i, dynamic.data(), inputs, outputs);
      accepted += ok ? 1 : 0;
      // every other type and every other format at this position is refused
      auto& desc = dynamic[static_cast<std::size_t>(i)].desc;
      const PluginTensorDesc good = desc;
      desc.format = TensorFormat::kCHW4;
      right = right && !plugin.build->supportsFormatCombination(i, dynamic.data(), inputs, outputs);
      desc = good;
      desc.type = DataType::kINT8;
      right = right && !plugin.build->supportsFormatCombination(i, dynamic.data(), inputs, outputs);
      desc.type = DataType::kBOOL;
      right = right && !plugin.build->supportsFormatCombination(i, dynamic.data(), inputs, outputs);
      desc = good;
    }
    std::vector<DataType> in_types;
    for (std::int32_t i = 0; i < inputs; ++i) in_types.push_back(all[static_cast<std::size_t>(i)].type);
    std::vector<DataType> out_types(static_cast<std::size_t>(outputs));
    right = right && plugin.build->getOutputDataTypes(out_types.data(), outputs, in_types.data(), inputs) == 0;
    for (std::int32_t i = 0; i < outputs; ++i)
      right = right && out_types[static_cast<std::size_t>(i)] == all[static_cast<std::size_t>(inputs + i)].type;
  }
  check(accepted == 3 * (inputs + outputs), one.op + ": float32, float16 and bfloat16 are accepted everywhere");
  check(right, one.op + ": output types, and other types and formats are refused");
  if (one.op == "TokenReduce") {
    std::vector<PluginTensorDesc> all = one.in;
    all.insert(all.end(), one.out.begin(), one.out.end());
    all[static_cast<std::size_t>(inputs)].type = DataType::kFLOAT;
    std::vector<DynamicPluginTensorDesc> dynamic = dynamic_of(all);
    check(!plugin.build->supportsFormatCombination(inputs, dynamic.data(), inputs, outputs),
          "TokenReduce: y of another type than x is refused");
  }
}

void check_configuration(OpCase& one, Plugin& plugin) {
  std::vector<DynamicPluginTensorDesc> in = dynamic_of(one.in);
  std::vector<DynamicPluginTensorDesc> out = dynamic_of(one.out);
  const auto inputs = static_cast<std::int32_t>(in.size());
  const auto outputs = static_cast<std::int32_t>(out.size());
  check(plugin.build->configurePlugin(in.data(), inputs, out.data(), outputs) == 0, one.op + ": configures");
  check(plugin.build->configurePlugin(in.data(), inputs, out.data(), outputs + 1) != 0,
        one.op + ": refuses another number of outputs");
  const DataType good = in[1].desc.type;
  in[1].desc.type = DataType::kFLOAT;
  check(plugin.build->configurePlugin(in.data(), inputs, out.data(), outputs) != 0,
        one.op + ": refuses an input of the wrong type");
  in[1].desc.type = good;
  const std::size_t few = plugin.build->getWorkspaceSize(in.data(), inputs, out.data(), outputs);
  in[0].max.d[1] = 4096;
  const std::size_t many = plugin.build->getWorkspaceSize(in.data(), inputs, out.data(), outputs);
  check(few == 0 && (one.op == "TokenMatch" ? many > 0 : many == 0), one.op + ": workspace only for many tokens to match");
}

void check_serialisation(const Library& library, OpCase& one, Plugin& plugin) {
  const PluginFieldCollection* fields = plugin.runtime->getFieldsToSerialize();
  const std::string text = fields_text(fields);
  Plugin again(library.creator(one.op).createPlugin("node", fields, TensorRTPhase::kRUNTIME));
  check(again && fields_text(again.runtime->getFieldsToSerialize()) == text, one.op + ": serialises to " + text);
  check(text.find("input_count=" + std::to_string(one.in.size())) != std::string::npos,
        one.op + ": remembers its inputs");
  Plugin copy(plugin.owner->clone());
  check(copy && fields_text(copy.runtime->getFieldsToSerialize()) == text, one.op + ": clones");
  Plugin attached(plugin.runtime->attachToContext(nullptr));
  check(attached && attached.owner != plugin.owner && fields_text(attached.runtime->getFieldsToSerialize()) == text,
        one.op + ": attaches to a context");
  const std::string name = copy.core->getPluginName();
  plugin.owner.reset();  // a copy does not live on its original
  check(copy.core->getPluginName() == name && fields_text(copy.runtime->getFieldsToSerialize()) == text,
        one.op + ": a clone outlives its original");
  plugin = std::move(copy);
}

// Every call is refused before anything is launched, so that no memory and no GPU is needed.
void check_enqueue_refusals(const OpCase& one, Plugin& plugin) {
  std::vector<char> memory(16);
  const auto attempt = [&](std::vector<PluginTensorDesc> in, std::vector<PluginTensorDesc> out, int null_input,
                           int null_output) {
    std::vector<const void*> inputs(in.size(), memory.data());
    std::vector<void*> outputs(out.size(), memory.data());
    if (null_input >= 0) inputs[static_cast<std::size_t>(null_input)] = nullptr;
    if (null_output >= 0) outputs[static_cast<std::size_t>(null_output)] = nullptr;
    return plugin.runtime->enqueue(in.data(), out.data(), inputs.data(), outputs.data(), nullptr, nullptr);
  };
  check(plugin.runtime->onShapeChange(one.in.data(), static_cast<std::int32_t>(one.in.size()), one.out.data(),
                                      static_cast<std::int32_t>(one.out.size())) == 0,
        one.op + ": takes new shapes");
  check(plugin.runtime->enqueue(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr) != 0,
        one.op + ": enqueue refuses no tensors");
  check(attempt(one.in, one.out, 0, -1) != 0, one.op + ": enqueue refuses a null input");
  for (int o = 0; o < static_cast<int>(one.out.size()); ++o)
    check(attempt(one.in, one.out, -1, o) != 0, one.op + ": enqueue refuses null output " + std::to_string(o));
  const auto changed_in = [&](std::size_t tensor, const std::function<void(PluginTensorDesc&)>& change,
                              const std::string& what) {
    std::vector<PluginTensorDesc> in = one.in;
    change(in[tensor]);
    check(attempt(in, one.out, -1, -1) != 0, one.op + ": enqueue refuses " + what);
  };
  const auto changed_out = [&](std::size_t tensor, const std::function<void(PluginTensorDesc&)>& change,
                               const std::string& what) {
    std::vector<PluginTensorDesc> out = one.out;
    change(out[tensor]);
    check(attempt(one.in, out, -1, -1) != 0, one.op + ": enqueue refuses " + what);
  };
  changed_in(0, [](PluginTensorDesc& d) { d.type = DataType::kINT8; }, "data of an unknown type");
  changed_in(0, [](PluginTensorDesc& d) { d.dims.nbDims = 1; }, "data of the wrong rank");
  changed_in(0, [](PluginTensorDesc& d) { d.dims.d[1] = -1; }, "an unknown extent");
  changed_in(0, [](PluginTensorDesc& d) { d.dims.d[1] = 5000; }, "too many tokens");
  changed_out(0, [](PluginTensorDesc& d) { d.dims.d[1] += 1; }, "an output of the wrong shape");
  changed_out(0, [](PluginTensorDesc& d) { d.type = DataType::kBOOL; }, "an output of the wrong type");
  if (one.op == "TokenReduce") {
    changed_in(1, [](PluginTensorDesc& d) { d.dims.d[1] -= 1; }, "a map that does not fit");
    changed_in(2, [](PluginTensorDesc& d) { d.dims.d[0] += 1; }, "an index that does not fit");
    check(attempt(one.in, one.out, 1, -1) != 0 && attempt(one.in, one.out, 2, -1) != 0,
          one.op + ": enqueue refuses a null plan");
    if (one.in.size() == 4) changed_in(3, [](PluginTensorDesc& d) { d.dims.d[1] -= 1; }, "a weight that does not fit");
  } else {
    std::vector<PluginTensorDesc> in = one.in;
    std::vector<PluginTensorDesc> out = one.out;
    for (const std::int64_t slots : {kTokens + 1, std::int64_t{1}}) {
      in[1].dims.d[0] = slots;
      out[1].dims.d[1] = slots;
      if (one.in.size() == 3 && one.in[2].dims.nbDims == 1) in[2].dims.d[0] = slots;
      check(attempt(in, out, -1, -1) != 0, one.op + ": enqueue refuses " + std::to_string(slots) + " slots");
    }
    if (one.in.size() == 3)
      changed_in(2, [](PluginTensorDesc& d) { d.dims.d[d.dims.nbDims == 3 ? 1 : 0] -= 1; },
                 "a last input that does not fit");
  }
}

int check_all(const Library& library) {
  check_library(library);
  check_creation(library);
  for (OpCase& one : op_cases()) {
    Plugin plugin(library.creator(one.op).createPlugin("node", one.fields.collection(), TensorRTPhase::kBUILD));
    check(plugin && plugin.core != nullptr && plugin.build != nullptr && plugin.runtime != nullptr,
          one.op + ": has its three capabilities");
    if (!plugin) continue;
    check_shapes(library, one, plugin);
    check_types(one, plugin);
    check_configuration(one, plugin);
    check_serialisation(library, one, plugin);
    check_enqueue_refusals(one, plugin);
  }
  std::printf("%d failed\n", g_failures);
  return g_failures == 0 ? 0 : 1;
}

// ---- NVIDIA's registry ------------------------------------------------------------------------------------------------

// IPluginRegistry lost its IPluginV2 functions in TensorRT 11.0, and with them its vtable's layout.
class Registry11 {
 public:
  virtual ~Registry11() = default;
  virtual void setErrorRecorder(IErrorRecorder*) noexcept = 0;
  virtual IErrorRecorder* getErrorRecorder() const noexcept = 0;
  virtual bool isParentSearchEnabled() const = 0;
  virtual void setParentSearchEnabled(bool) = 0;
  virtual void* loadLibrary(const char*) noexcept = 0;
  virtual void deregisterLibrary(void*) noexcept = 0;
  virtual bool registerCreator(IPluginCreatorInterface&, const char*) noexcept = 0;
  virtual IPluginCreatorInterface* const* getAllCreators(std::int32_t*) const noexcept = 0;
  virtual IPluginCreatorInterface* getCreator(const char*, const char*, const char*) noexcept = 0;
};

template <class Registry>
int check_registry(Registry& registry, const char* library) {
  void* loaded = registry.loadLibrary(library);
  check(loaded != nullptr, "registry: loads the library");
  for (OpCase& one : op_cases()) {
    IPluginCreatorInterface* found = registry.getCreator(one.op.c_str(), "1", "tmdeploy");
    check(found != nullptr, "registry: has a creator of " + one.op);
    if (found == nullptr) continue;
    const Plugin plugin(static_cast<IPluginCreatorV3One*>(found)->createPlugin("node", one.fields.collection(),
                                                                               TensorRTPhase::kRUNTIME));
    check(plugin && one.op == plugin.core->getPluginName(), "registry: its creator makes a " + one.op);
  }
  check(registry.getCreator("TokenMatch", "1", "") == nullptr, "registry: nothing outside the namespace tmdeploy");
  if (loaded != nullptr) registry.deregisterLibrary(loaded);
  check(registry.getCreator("TokenMatch", "1", "tmdeploy") == nullptr, "registry: unloads the library");
  std::printf("%d failed\n", g_failures);
  return g_failures == 0 ? 0 : 1;
}

int check_lean_registry(const char* library, const char* lean) {
  void* handle = dlopen(lean, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw std::runtime_error(dlerror());
  const auto get = reinterpret_cast<void* (*)()>(dlsym(handle, "getPluginRegistry"));
  const auto version = reinterpret_cast<std::int32_t (*)()>(dlsym(handle, "getInferLibVersion"));
  if (get == nullptr || version == nullptr) throw std::runtime_error("not a TensorRT runtime");
  std::printf("ok   registry: of TensorRT %d\n", version());
  if (version() >= 110000) return check_registry(*static_cast<Registry11*>(get()), library);
  return check_registry(*static_cast<IPluginRegistry*>(get()), library);
}

// ---- running ---------------------------------------------------------------------------------------------------------

#ifdef TMDEPLOY_EMULATE
class Buffer {
 public:
  explicit Buffer(std::size_t bytes) : memory_(bytes + 1) {}
  void* get() { return memory_.data(); }
  void upload(const std::vector<char>& data) { std::copy(data.begin(), data.end(), memory_.begin()); }
  std::vector<char> download(std::size_t bytes) { return {memory_.begin(), memory_.begin() + static_cast<long>(bytes)}; }
  void fill() { std::fill(memory_.begin(), memory_.end(), static_cast<char>(0xFF)); }

 private:
  std::vector<char> memory_;
};
#else
void cuda_check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

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

class Stream {
 public:
  Stream() { cuda_check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate"); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const { return stream_; }
  void wait() const { cuda_check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  Event() { cuda_check(cudaEventCreate(&event_), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

class Graph {
 public:
  Graph(cudaStream_t stream, const std::function<void()>& work) {
    cuda_check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "capture");
    work();
    cuda_check(cudaStreamEndCapture(stream, &graph_), "end of capture");
    cuda_check(cudaGraphGetNodes(graph_, nullptr, &nodes_), "cudaGraphGetNodes");
    cuda_check(cudaGraphInstantiate(&executable_, graph_, 0), "cudaGraphInstantiate");
  }
  ~Graph() {
    cudaGraphExecDestroy(executable_);
    cudaGraphDestroy(graph_);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(cudaStream_t stream) const { cuda_check(cudaGraphLaunch(executable_, stream), "cudaGraphLaunch"); }
  std::size_t nodes() const { return nodes_; }

 private:
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
  std::size_t nodes_ = 0;
};
#endif

struct Tensor {
  PluginTensorDesc desc;
  std::string file;
  std::size_t bytes;
};

Tensor parse_tensor(std::istringstream& line) {
  std::string type, file;
  line >> type >> file;
  const std::vector<std::pair<std::string, std::pair<DataType, std::size_t>>> types = {
      {"float32", {DataType::kFLOAT, 4}}, {"float16", {DataType::kHALF, 2}}, {"bfloat16", {DataType::kBF16, 2}},
      {"int32", {DataType::kINT32, 4}},   {"int64", {DataType::kINT64, 8}}};
  const auto known = std::find_if(types.begin(), types.end(), [&](const auto& item) { return item.first == type; });
  if (known == types.end()) throw std::invalid_argument("unknown type " + type);
  std::vector<std::int64_t> extents;
  std::size_t bytes = known->second.second;
  for (std::int64_t extent; line >> extent;) {
    if (extent < 0 || extent > (1LL << 31)) throw std::invalid_argument("bad extent");
    extents.push_back(extent);
    bytes *= static_cast<std::size_t>(extent);
  }
  if (extents.size() > static_cast<std::size_t>(Dims::MAX_DIMS)) throw std::invalid_argument("too many dimensions");
  return {desc_of(known->second.first, extents), file, bytes};
}

int run_case(const Library& library, const char* path) {
  std::ifstream text(path);
  if (!text) throw std::invalid_argument(std::string("cannot read ") + path);
  std::string op;
  FieldSet fields;
  std::vector<Tensor> in, out;
  for (std::string line; std::getline(text, line);) {
    std::istringstream words(line);
    std::string kind, name;
    if (!(words >> kind)) continue;
    if (kind == "op") {
      words >> op;
    } else if (kind == "int") {
      std::int32_t value = 0;
      words >> name >> value;
      fields.integer(name, value);
    } else if (kind == "float") {
      float value = 0.0F;
      words >> name >> value;
      fields.real(name, value);
    } else if (kind == "text") {
      std::string value;
      words >> name >> value;
      fields.text(name, value);
    } else if (kind == "in" || kind == "out") {
      (kind == "in" ? in : out).push_back(parse_tensor(words));
    } else {
      throw std::invalid_argument("unknown item " + kind);
    }
  }
  std::vector<PluginTensorDesc> in_desc, out_desc;
  for (const Tensor& tensor : in) in_desc.push_back(tensor.desc);
  for (const Tensor& tensor : out) out_desc.push_back(tensor.desc);
  const auto inputs = static_cast<std::int32_t>(in.size());
  const auto outputs = static_cast<std::int32_t>(out.size());

  // As TensorRT does it: configure, serialise, make again in the runtime phase, attach.
  Plugin built(library.creator(op).createPlugin("node", fields.collection(), TensorRTPhase::kBUILD));
  if (!built) return 1;
  const std::vector<DynamicPluginTensorDesc> in_dynamic = dynamic_of(in_desc), out_dynamic = dynamic_of(out_desc);
  if (built.build->configurePlugin(in_dynamic.data(), inputs, out_dynamic.data(), outputs) != 0) return 1;
  const std::size_t workspace_bytes =
      built.build->getWorkspaceSize(in_dynamic.data(), inputs, out_dynamic.data(), outputs);
  Plugin loaded(
      library.creator(op).createPlugin("node", built.runtime->getFieldsToSerialize(), TensorRTPhase::kRUNTIME));
  if (!loaded) return 1;
  Plugin plugin(loaded.runtime->attachToContext(nullptr));
  if (!plugin || plugin.runtime->onShapeChange(in_desc.data(), inputs, out_desc.data(), outputs) != 0) return 1;

  std::vector<std::unique_ptr<Buffer>> buffers;
  std::vector<const void*> in_memory;
  std::vector<void*> out_memory;
  for (const Tensor& tensor : in) {
    std::ifstream file(tensor.file, std::ios::binary);
    std::vector<char> data(tensor.bytes);
    if (!file.read(data.data(), static_cast<std::streamsize>(data.size())))
      throw std::invalid_argument("cannot read " + tensor.file);
    buffers.push_back(std::make_unique<Buffer>(tensor.bytes));
    buffers.back()->upload(data);
    in_memory.push_back(buffers.back()->get());
  }
  for (const Tensor& tensor : out) {
    buffers.push_back(std::make_unique<Buffer>(tensor.bytes));
    buffers.back()->fill();
    out_memory.push_back(buffers.back()->get());
  }
  Buffer workspace(workspace_bytes);
  const auto enqueue = [&](cudaStream_t stream) {
    return plugin.runtime->enqueue(in_desc.data(), out_desc.data(), in_memory.data(), out_memory.data(),
                                   workspace.get(), stream);
  };
  const auto download = [&] {
    std::vector<std::vector<char>> data;
    for (std::size_t i = 0; i < out.size(); ++i) data.push_back(buffers[in.size() + i]->download(out[i].bytes));
    return data;
  };

#ifdef TMDEPLOY_EMULATE
  if (enqueue(nullptr) != 0) return 1;
  const std::vector<std::vector<char>> results = download();
  std::printf("{\"workspace_bytes\": %zu}\n", workspace_bytes);
#else
  const Stream stream;
  if (enqueue(stream.get()) != 0) return 1;
  stream.wait();
  const std::vector<std::vector<char>> results = download();
  for (std::size_t i = 0; i < out.size(); ++i) buffers[in.size() + i]->fill();
  int captured = 0;
  const Graph graph(stream.get(), [&] { captured = enqueue(stream.get()); });
  if (captured != 0) return 1;
  graph.launch(stream.get());
  stream.wait();
  const bool same = download() == results;
  constexpr int kRuns = 50, kRepeats = 20;
  std::vector<float> microseconds;
  const Event begin, end;
  for (int run = 0; run < kRuns; ++run) {
    cuda_check(cudaEventRecord(begin.get(), stream.get()), "cudaEventRecord");
    for (int repeat = 0; repeat < kRepeats; ++repeat) graph.launch(stream.get());
    cuda_check(cudaEventRecord(end.get(), stream.get()), "cudaEventRecord");
    stream.wait();
    float milliseconds = 0.0F;
    cuda_check(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()), "cudaEventElapsedTime");
    microseconds.push_back(milliseconds * 1000.0F / kRepeats);
  }
  std::sort(microseconds.begin(), microseconds.end());
  std::printf("{\"workspace_bytes\": %zu, \"graph_nodes\": %zu, \"graph_equals_stream\": %s, \"median_us\": %.3f}\n",
              workspace_bytes, graph.nodes(), same ? "true" : "false",
              static_cast<double>(microseconds[microseconds.size() / 2]));
  if (!same) return 1;
#endif
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::ofstream file(out[i].file, std::ios::binary);
    file.write(results[i].data(), static_cast<std::streamsize>(results[i].size()));
    if (!file) throw std::invalid_argument("cannot write " + out[i].file);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc > 2 ? argv[2] : "";
  try {
    if (argc == 3 && verb == "check") return check_all(Library(argv[1]));
    if (argc == 4 && verb == "run") return run_case(Library(argv[1]), argv[3]);
    if (argc == 4 && verb == "registry") return check_lean_registry(argv[1], argv[3]);
    std::fprintf(stderr, "usage: harness LIBRARY check | harness LIBRARY registry LEAN | harness LIBRARY run CASE\n");
    return 2;
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "harness: %s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "harness: %s\n", error.what());
    return 1;
  }
}
