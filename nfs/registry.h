// The functions that a chain can name: "firewall", "nat44". A new function is added here.
#pragma once

#include <memory>
#include <string>

#include "nfs/step.h"

namespace flowkeep {

struct FunctionSpec {
  std::string type;
  std::string config_json;  // JSON form of the function's Config message; empty: all defaults
};

// `field`: path of the function, "spec.functions[0]"; errors name what is wrong below it.
Result<std::unique_ptr<AnyFunction>> build_function(const FunctionSpec& spec,
                                                    const std::string& field,
                                                    const FunctionContext& context);

}  // namespace flowkeep
