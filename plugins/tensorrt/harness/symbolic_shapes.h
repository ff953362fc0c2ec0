// Mock of TensorRT's symbolic dimensions: an expression is the text that names it.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tmdeploy::harness {

using namespace nvinfer1;

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
    return symbol("(" + static_cast<const MockDimension&>(first).text() + " op" + std::to_string(static_cast<int>(op)) +
                  " " + static_cast<const MockDimension&>(second).text() + ")");
  }
  const IDimensionExpr* declareSizeTensor(std::int32_t, const IDimensionExpr&, const IDimensionExpr&) override {
    return symbol("size tensor");
  }
  std::vector<std::unique_ptr<MockDimension>> made_;
};

inline std::string text_of(const DimsExprs& dims) {
  std::string text = "[";
  for (std::int32_t i = 0; i < dims.nbDims; ++i)
    text += (i > 0 ? " " : "") + static_cast<const MockDimension*>(dims.d[i])->text();
  return text + "]";
}

}  // namespace tmdeploy::harness
