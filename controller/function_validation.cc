#include "controller/function_validation.h"

#include <google/protobuf/util/json_util.h>

#include "nfs/chain.h"
#include "nfs/timeouts_message.h"

namespace flowkeep {

Result<void> validate_functions(const StoredChain& chain) {
  ChainSpec spec;
  spec.name = chain.name;
  spec.revision = chain.revision;
  spec.timeouts = timeouts_of(chain.spec.timeouts());
  for (const v1::Function& function : chain.spec.functions()) {
    FunctionSpec added;
    added.type = function.type();
    if (function.has_config()) {
      const auto status =
          google::protobuf::util::MessageToJsonString(function.config(), &added.config_json);
      if (!status.ok()) {
        return invalid("spec.functions[" + std::to_string(spec.functions.size()) + "].config",
                       "has no JSON form: " + status.ToString());
      }
    }
    spec.functions.push_back(std::move(added));
  }
  return validate_chain(spec);
}

}  // namespace flowkeep
