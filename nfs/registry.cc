#include "nfs/registry.h"

namespace flowkeep {

Result<std::unique_ptr<AnyFunction>> build_function(const FunctionSpec& spec,
                                                    const std::string& field,
                                                    const FunctionContext& context) {
  FunctionContext own = context;
  own.field = field + ".config";
  std::string accepted;
  for (const RegisteredFunction& entry : registered_functions()) {
    if (entry.type == spec.type) return entry.build(spec, own);
    accepted.append(accepted.empty() ? "" : ", ").append(entry.type);
  }
  if (own.make_function) {
    if (auto made = own.make_function(spec.type)) return made;
  }
  return invalid(field + ".type", "unknown function \"" + spec.type + "\"; accepted: " + accepted);
}

}  // namespace flowkeep
