// libFuzzer target: configurations of every function, as JSON text and as messages filled at
// random. What is refused names a field of its own; what is accepted is accepted again.
//
//   ./flowkeep fuzz config
#include <google/protobuf/util/json_util.h>

#include <memory>

#include "nfs/chain.h"
#include "nfs/dscp/dscp.h"
#include "nfs/firewall/firewall.h"
#include "nfs/fuzz_message.h"
#include "nfs/nat44/nat44.h"

namespace flowkeep {
namespace {

struct Configured {
  std::string_view type;
  std::unique_ptr<google::protobuf::Message> config;
};

Configured random_function(FuzzScript& script) {
  switch (script.below(3)) {
    case 0:
      return {Firewall::kType, std::make_unique<Firewall::Config>()};
    case 1:
      return {Nat44::kType, std::make_unique<Nat44::Config>()};
    default:
      return {Dscp::kType, std::make_unique<Dscp::Config>()};
  }
}

std::string random_json(FuzzScript& script, google::protobuf::Message& config) {
  if (script.one_in(4)) return std::string(script.rest());
  RandomMessage(script).fill(config);
  std::string json;
  // Refused where a random string is no UTF-8.
  if (!google::protobuf::util::MessageToJsonString(config, &json).ok()) return "{}";
  return json;
}

}  // namespace
}  // namespace flowkeep

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace flowkeep;
  FuzzScript script({bytes, size});
  const Configured function = random_function(script);
  const std::string json = random_json(script, *function.config);
  const ChainSpec spec{"fuzzed", 1, {{std::string(function.type), json}}};
  const auto checked = validate_chain(spec);
  demand(validate_chain(spec).ok() == checked.ok(), "the same answer twice to " + json);
  if (!checked.ok()) {
    const std::string text = checked.error().text();
    demand(text.starts_with("spec.functions"), "a refusal names its field: " + text);
  }
  return 0;
}
