#include "controller/function_validation.h"

#include <google/protobuf/util/json_util.h>

namespace flowkeep {

Result<void> validate_functions(const StoredChain& chain) {
  for (int i = 0; i < chain.spec.functions_size(); ++i) {
    const std::string& type = chain.spec.functions(i).type();
    if (type == "firewall" || type == "nat44") continue;
    return invalid("spec.functions[" + std::to_string(i) + "].type",
                   "unknown function \"" + type + "\"; known: firewall, nat44");
  }
  return {};
}

}  // namespace flowkeep
