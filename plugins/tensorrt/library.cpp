// The two functions TensorRT looks for in a plugin library (IPluginRegistry::loadLibrary, plugins_to_serialize).
#include "token_match_plugin.h"
#include "token_reduce_plugin.h"
#include "token_select_plugin.h"

#define TMDEPLOY_EXPORT __attribute__((visibility("default")))

extern "C" TMDEPLOY_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(std::int32_t& count) {
  using namespace tmdeploy::tensorrt;
  static TokenPluginCreator<TokenMatchOp> match;
  static TokenPluginCreator<TokenSelectOp> select;
  static TokenPluginCreator<TokenReduceOp> reduce;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&match, &select, &reduce};
  count = 3;
  return creators;
}

// Taken and never used: the vtable of ILogger changed in TensorRT 11.0, and this library is to load in both.
extern "C" TMDEPLOY_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* /*finder*/) {}
