// The functions of the product. A new one is added here.
#include "nfs/dscp/dscp.h"
#include "nfs/firewall/firewall.h"
#include "nfs/nat44/nat44.h"
#include "nfs/registry.h"

namespace flowkeep {

std::span<const RegisteredFunction> registered_functions() {
  static constexpr RegisteredFunction kFunctions[] = {
      {Dscp::kType, build_from_json<Dscp>},
      {Firewall::kType, build_from_json<Firewall>},
      {Nat44::kType, build_from_json<Nat44>},
  };
  return kFunctions;
}

}  // namespace flowkeep
