#include "op_cases.h"

#include "tensor_desc.h"

namespace tmdeploy::harness {

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

}  // namespace tmdeploy::harness
