// The functions that a chain can name. The table of them is a source of its own (nfs/functions.cc),
// so that a test program can be linked with another one.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "nfs/json_config.h"
#include "nfs/step.h"

namespace flowkeep {

struct FunctionSpec {
  std::string type;
  std::string config_json;  // JSON form of the function's Config message; empty: all defaults
};

struct RegisteredFunction {
  std::string_view type;
  Result<std::unique_ptr<AnyFunction>> (*build)(const FunctionSpec&, const FunctionContext&);
};

// The program's table.
std::span<const RegisteredFunction> registered_functions();

template <typename F>
Result<std::unique_ptr<AnyFunction>> build_from_json(const FunctionSpec& spec,
                                                     const FunctionContext& context) {
  typename F::Config config;
  if (const auto read = read_json_config(spec.config_json, context.field, config); !read.ok()) {
    return read.error();
  }
  auto function = F::create(config, context);
  if (!function.ok()) return function.error();
  return Result<std::unique_ptr<AnyFunction>>(std::make_unique<Function<F>>(std::move(*function)));
}

// `field`: path of the function, "spec.functions[0]"; errors name what is wrong below it.
Result<std::unique_ptr<AnyFunction>> build_function(const FunctionSpec& spec,
                                                    const std::string& field,
                                                    const FunctionContext& context);

}  // namespace flowkeep
