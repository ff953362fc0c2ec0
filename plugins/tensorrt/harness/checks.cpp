// Creators, fields, shapes, formats, configuration, serialisation, clones, and what enqueue refuses.
#include <NvInferRuntime.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "modes.h"
#include "op_cases.h"
#include "plugin_library.h"
#include "symbolic_shapes.h"
#include "tally.h"
#include "tensor_desc.h"

namespace tmdeploy::harness {

namespace {

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

void check_library(const Library& library, Tally& tally) {
  tally.check(library.has("setLoggerFinder"), "library: setLoggerFinder is exported");
  tally.check(library.creators.size() == 3, "library: three creators");
  for (const char* op : {"TokenMatch", "TokenSelect", "TokenReduce"}) {
    IPluginCreatorV3One& creator = library.creator(op);
    tally.check(std::strcmp(creator.getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") == 0,
                std::string(op) + ": is a V3 creator");
    tally.check(
        std::strcmp(creator.getPluginNamespace(), "tmdeploy") == 0 && std::strcmp(creator.getPluginVersion(), "1") == 0,
        std::string(op) + ": namespace tmdeploy, version 1");
    const PluginFieldCollection* names = creator.getFieldNames();
    tally.check(names != nullptr && names->nbFields > 0, std::string(op) + ": says its attributes");
  }
}

void check_creation(const Library& library, Tally& tally) {
  tally.check(static_cast<bool>(create(library, "TokenMatch", nullptr)), "creation: without fields, as the defaults");
  const auto refused = [&](const char* op, FieldSet fields, const char* what) {
    tally.check(!create(library, op, fields.collection()), std::string("creation refuses ") + what);
  };
  refused("TokenMatch", FieldSet().text("order", "rank"), "an unknown order");
  refused("TokenMatch", FieldSet().integer("order", 1), "an order that is a number");
  refused("TokenMatch", FieldSet().integer("num_prefix", -1), "a negative num_prefix");
  refused("TokenMatch", FieldSet().text("metric_eps", "0"), "a metric_eps that is text");
  refused("TokenSelect", FieldSet().text("leftover", "keep"), "an unknown leftover");
  refused("TokenReduce", FieldSet().text("mode", "median"), "an unknown mode");
  refused("TokenReduce", FieldSet().integer("input_count", 7), "seven inputs");
  FieldSet terminated = FieldSet().text("mode", std::string("mlerp\0", 6));
  tally.check(static_cast<bool>(create(library, "TokenReduce", terminated.collection())),
              "creation: a text with its terminator");
}

void check_shapes(const OpCase& one, const Plugin& plugin, Tally& tally) {
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
  tally.check(text == one.shapes, one.op + ": output shapes " + text);
  tally.check(plugin.build->getOutputShapes(in.data(), inputs - 2, nullptr, 0, out.data(), outputs, builder) != 0,
              one.op + ": shapes refuse missing inputs");
  in[0].nbDims = 1;
  tally.check(plugin.build->getOutputShapes(in.data(), inputs, nullptr, 0, out.data(), outputs, builder) != 0,
              one.op + ": shapes refuse a wrong rank");
}

void check_types(const OpCase& one, const Plugin& plugin, Tally& tally) {
  const auto inputs = static_cast<std::int32_t>(one.in.size());
  const auto outputs = static_cast<std::int32_t>(one.out.size());
  tally.check(plugin.build->getNbOutputs() == outputs, one.op + ": number of outputs");
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
  tally.check(accepted == 3 * (inputs + outputs), one.op + ": float32, float16 and bfloat16 are accepted everywhere");
  tally.check(right, one.op + ": output types, and other types and formats are refused");
  if (one.op == "TokenReduce") {
    std::vector<PluginTensorDesc> all = one.in;
    all.insert(all.end(), one.out.begin(), one.out.end());
    all[static_cast<std::size_t>(inputs)].type = DataType::kFLOAT;
    std::vector<DynamicPluginTensorDesc> dynamic = dynamic_of(all);
    tally.check(!plugin.build->supportsFormatCombination(inputs, dynamic.data(), inputs, outputs),
                "TokenReduce: y of another type than x is refused");
  }
}

void check_configuration(const OpCase& one, const Plugin& plugin, Tally& tally) {
  std::vector<DynamicPluginTensorDesc> in = dynamic_of(one.in);
  std::vector<DynamicPluginTensorDesc> out = dynamic_of(one.out);
  const auto inputs = static_cast<std::int32_t>(in.size());
  const auto outputs = static_cast<std::int32_t>(out.size());
  tally.check(plugin.build->configurePlugin(in.data(), inputs, out.data(), outputs) == 0, one.op + ": configures");
  tally.check(plugin.build->configurePlugin(in.data(), inputs, out.data(), outputs + 1) != 0,
              one.op + ": refuses another number of outputs");
  const DataType good = in[1].desc.type;
  in[1].desc.type = DataType::kFLOAT;
  tally.check(plugin.build->configurePlugin(in.data(), inputs, out.data(), outputs) != 0,
              one.op + ": refuses an input of the wrong type");
  in[1].desc.type = good;
  const std::size_t few = plugin.build->getWorkspaceSize(in.data(), inputs, out.data(), outputs);
  in[0].max.d[1] = 4096;
  const std::size_t many = plugin.build->getWorkspaceSize(in.data(), inputs, out.data(), outputs);
  tally.check(few == 0 && (one.op == "TokenMatch" ? many > 0 : many == 0),
              one.op + ": workspace only for many tokens to match");
}

void check_serialisation(const Library& library, const OpCase& one, Plugin& plugin, Tally& tally) {
  const PluginFieldCollection* fields = plugin.runtime->getFieldsToSerialize();
  const std::string text = fields_text(fields);
  const Plugin again = create(library, one.op, fields, TensorRTPhase::kRUNTIME);
  tally.check(again && fields_text(again.runtime->getFieldsToSerialize()) == text, one.op + ": serialises to " + text);
  tally.check(text.find("input_count=" + std::to_string(one.in.size())) != std::string::npos,
              one.op + ": remembers its inputs");
  Plugin copy(plugin.owner->clone());
  tally.check(copy && fields_text(copy.runtime->getFieldsToSerialize()) == text, one.op + ": clones");
  Plugin attached(plugin.runtime->attachToContext(nullptr));
  tally.check(
      attached && attached.owner != plugin.owner && fields_text(attached.runtime->getFieldsToSerialize()) == text,
      one.op + ": attaches to a context");
  const std::string name = copy.core->getPluginName();
  plugin.owner.reset();  // a copy does not live on its original
  tally.check(copy.core->getPluginName() == name && fields_text(copy.runtime->getFieldsToSerialize()) == text,
              one.op + ": a clone outlives its original");
  plugin = std::move(copy);
}

// Every call is refused before anything is launched, so that no memory and no GPU is needed.
void check_enqueue_refusals(const OpCase& one, const Plugin& plugin, Tally& tally) {
  std::vector<char> memory(16);
  const auto attempt = [&](std::vector<PluginTensorDesc> in, std::vector<PluginTensorDesc> out, int null_input,
                           int null_output) {
    std::vector<const void*> inputs(in.size(), memory.data());
    std::vector<void*> outputs(out.size(), memory.data());
    if (null_input >= 0) inputs[static_cast<std::size_t>(null_input)] = nullptr;
    if (null_output >= 0) outputs[static_cast<std::size_t>(null_output)] = nullptr;
    return plugin.runtime->enqueue(in.data(), out.data(), inputs.data(), outputs.data(), nullptr, nullptr);
  };
  tally.check(plugin.runtime->onShapeChange(one.in.data(), static_cast<std::int32_t>(one.in.size()), one.out.data(),
                                            static_cast<std::int32_t>(one.out.size())) == 0,
              one.op + ": takes new shapes");
  tally.check(plugin.runtime->enqueue(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr) != 0,
              one.op + ": enqueue refuses no tensors");
  tally.check(attempt(one.in, one.out, 0, -1) != 0, one.op + ": enqueue refuses a null input");
  for (int o = 0; o < static_cast<int>(one.out.size()); ++o)
    tally.check(attempt(one.in, one.out, -1, o) != 0, one.op + ": enqueue refuses null output " + std::to_string(o));
  const auto changed_in = [&](std::size_t tensor, const std::function<void(PluginTensorDesc&)>& change,
                              const std::string& what) {
    std::vector<PluginTensorDesc> in = one.in;
    change(in[tensor]);
    tally.check(attempt(in, one.out, -1, -1) != 0, one.op + ": enqueue refuses " + what);
  };
  const auto changed_out = [&](std::size_t tensor, const std::function<void(PluginTensorDesc&)>& change,
                               const std::string& what) {
    std::vector<PluginTensorDesc> out = one.out;
    change(out[tensor]);
    tally.check(attempt(one.in, out, -1, -1) != 0, one.op + ": enqueue refuses " + what);
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
    tally.check(attempt(one.in, one.out, 1, -1) != 0 && attempt(one.in, one.out, 2, -1) != 0,
                one.op + ": enqueue refuses a null plan");
    if (one.in.size() == 4) changed_in(3, [](PluginTensorDesc& d) { d.dims.d[1] -= 1; }, "a weight that does not fit");
  } else {
    std::vector<PluginTensorDesc> in = one.in;
    std::vector<PluginTensorDesc> out = one.out;
    for (const std::int64_t slots : {kTokens + 1, std::int64_t{1}}) {
      in[1].dims.d[0] = slots;
      out[1].dims.d[1] = slots;
      if (one.in.size() == 3 && one.in[2].dims.nbDims == 1) in[2].dims.d[0] = slots;
      tally.check(attempt(in, out, -1, -1) != 0, one.op + ": enqueue refuses " + std::to_string(slots) + " slots");
    }
    if (one.in.size() == 3)
      changed_in(
          2, [](PluginTensorDesc& d) { d.dims.d[d.dims.nbDims == 3 ? 1 : 0] -= 1; }, "a last input that does not fit");
  }
}

}  // namespace

int check_all(const Library& library) {
  Tally tally;
  check_library(library, tally);
  check_creation(library, tally);
  for (OpCase& one : op_cases()) {
    Plugin plugin = create(library, one.op, one.fields.collection());
    tally.check(plugin && plugin.core != nullptr && plugin.build != nullptr && plugin.runtime != nullptr,
                one.op + ": has its three capabilities");
    if (!plugin) continue;
    check_shapes(one, plugin, tally);
    check_types(one, plugin, tally);
    check_configuration(one, plugin, tally);
    check_serialisation(library, one, plugin, tally);
    check_enqueue_refusals(one, plugin, tally);
  }
  return tally.finish();
}

}  // namespace tmdeploy::harness
