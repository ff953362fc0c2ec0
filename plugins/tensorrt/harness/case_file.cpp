#include "case_file.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "tensor_desc.h"

namespace tmdeploy::harness {

namespace {

using namespace nvinfer1;

CaseTensor parse_tensor(std::istringstream& line) {
  std::string type, file;
  line >> type >> file;
  const std::vector<std::pair<std::string, std::pair<DataType, std::size_t>>> types = {
      {"float32", {DataType::kFLOAT, 4}},
      {"float16", {DataType::kHALF, 2}},
      {"bfloat16", {DataType::kBF16, 2}},
      {"int32", {DataType::kINT32, 4}},
      {"int64", {DataType::kINT64, 8}}};
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

}  // namespace

Case read_case(const char* path) {
  std::ifstream text(path);
  if (!text) throw std::invalid_argument(std::string("cannot read ") + path);
  Case result;
  for (std::string line; std::getline(text, line);) {
    std::istringstream words(line);
    std::string kind, name;
    if (!(words >> kind)) continue;
    if (kind == "op") {
      words >> result.op;
    } else if (kind == "int") {
      std::int32_t value = 0;
      words >> name >> value;
      result.fields.integer(name, value);
    } else if (kind == "float") {
      float value = 0.0F;
      words >> name >> value;
      result.fields.real(name, value);
    } else if (kind == "text") {
      std::string value;
      words >> name >> value;
      result.fields.text(name, value);
    } else if (kind == "in" || kind == "out") {
      (kind == "in" ? result.in : result.out).push_back(parse_tensor(words));
    } else {
      throw std::invalid_argument("unknown item " + kind);
    }
  }
  return result;
}

}  // namespace tmdeploy::harness
